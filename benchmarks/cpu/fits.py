"""Estimators of scikit-learn and xpmlp as contenders: their public `fit` and predictions."""

import io
import time
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cpu.problems import Problem, flatten

ACTIVATIONS = {"sigmoid": "logistic"}  # scikit-learn's names
NEVER = 10**9  # epochs without improvement before a fit stops


class EpochClock(io.StringIO):
    """Records the time of each line that a verbose fit prints at the end of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def write(self, text: str) -> int:
        if text.startswith("Iteration "):
            self.ends.append(time.perf_counter())
        return len(text)


class Fit:
    """An MLP estimator of a library, without early stopping."""

    def __init__(self, problem: Problem, library: str, **options: Any) -> None:
        shape, self.problem, self.units = problem.shape, problem, problem.shape.steps
        classes = shape.loss == "cross_entropy"
        kind = getattr(import_module(library), "MLPClassifier" if classes else "MLPRegressor")
        self.est = kind(
            hidden_layer_sizes=shape.sizes[1:-1],
            activation=ACTIVATIONS.get(shape.activation, shape.activation),
            alpha=0.0,
            batch_size=min(shape.batch, len(problem.X)),
            shuffle=problem.shuffle,
            random_state=0,
            verbose=True,
            tol=0.0,
            n_iter_no_change=NEVER,
            **options,
        )

    def fit(self, epochs: int) -> EpochClock:
        """Fit for this number of epochs; the clock has the end of each."""
        self.est.set_params(max_iter=epochs)
        clock = EpochClock()
        with warnings.catch_warnings(), redirect_stdout(clock):
            warnings.simplefilter("ignore")  # that it did not converge
            self.est.fit(self.problem.X, self.problem.y)
        return clock

    def set_initial_weights(self) -> None:
        """Make the next fit start from the weights that all contenders start from."""
        self.fit(1)
        self.est.set_params(warm_start=True)
        self.est.coefs_ = [weights for weights, _ in self.problem.start]
        self.est.intercepts_ = [bias for _, bias in self.problem.start]

    def seconds(self, count: int) -> float:
        """Time of `count` epochs of one fit, without the first, which includes the set-up."""
        ends = self.fit(1 + count).ends
        return ends[-1] - ends[0]

    def result(self, count: int) -> np.ndarray:
        self.set_initial_weights()
        self.fit(count)
        return flatten(zip(self.est.coefs_, self.est.intercepts_, strict=True))


class Predict(Fit):
    """The estimator's predictions, or the probabilities of a classifier."""

    def __init__(self, problem: Problem, library: str, **options: Any) -> None:
        super().__init__(problem, library, **options)
        self.set_initial_weights()
        self.units = problem.size
        self.predict = getattr(self.est, "predict_proba", self.est.predict)

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.predict(self.problem.X)
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        return np.asarray(self.predict(self.problem.X), dtype=np.float64).ravel()


def xpmlp_fit(problem: Problem) -> Fit:
    return Fit(problem, "xpmlp", device=problem.device, continuation="scikit-learn")


def sklearn_fit(problem: Problem) -> Fit:
    return Fit(problem, "sklearn.neural_network")


def xpmlp_predictions(problem: Problem) -> Predict:
    return Predict(problem, "xpmlp", device=problem.device)


def sklearn_predictions(problem: Problem) -> Predict:
    return Predict(problem, "sklearn.neural_network")
