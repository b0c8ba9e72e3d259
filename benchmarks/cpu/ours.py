"""xpmlp as contenders: the calls of a user, including reports, shuffling and loss curve."""

import time
from itertools import islice
from typing import Any

import numpy as np

import xpmlp
from benchmarks.cpu.problems import Problem, flatten
from xpmlp.devices.namespace import to_host

ENDLESS = 10**9  # epochs: the generator runs for as many as are consumed


class Training:
    """`xpmlp.epochs` of one network."""

    def __init__(self, problem: Problem, **more: Any) -> None:
        shape = problem.shape
        self.units = shape.steps
        self.reports = xpmlp.epochs(
            shape.spec,
            problem.X,
            problem.y,
            batch_size=shape.batch,
            epochs=ENDLESS,
            optimizer=problem.rule,
            shuffle=problem.shuffle,
            device=problem.device,
            **more,
        )

    def train(self, count: int) -> Any:
        """Train for `count` more epochs; return the last report."""
        *_, last = islice(self.reports, count)
        return last

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        self.train(count)
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        return parameters(self.train(count).model())


class Population(Training):
    """`xpmlp.epochs` with members; the last one has the seed of the other contenders' weights."""

    def __init__(self, problem: Problem) -> None:
        seeds = list(reversed(range(problem.size)))
        super().__init__(problem, members=problem.size, seed=seeds)
        self.units *= problem.size

    def result(self, count: int) -> np.ndarray:
        return parameters(self.train(count).model().member(-1))


class Prediction:
    """`Model.predict`, or `predict_proba` of a classifier, on rows in host memory."""

    def __init__(self, problem: Problem) -> None:
        shape, self.X, self.units = problem.shape, problem.X, problem.size
        model = xpmlp.train(
            shape.spec, problem.X, problem.y, learning_rate=0.0, epochs=1, device=problem.device
        )
        self.predict = model.predict_proba if model.classes_ is not None else model.predict

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.predict(self.X)
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        return np.asarray(self.predict(self.X), dtype=np.float64).ravel()


def parameters(model: xpmlp.Model) -> np.ndarray:
    return flatten([(to_host(layer.weights), to_host(layer.bias)) for layer in model.params])
