"""Estimators as contenders, scikit-learn's and ours: their public `fit` and predictions."""

import io
import time
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cpu.problems import Problem, joined

ACTIVATIONS = {"sigmoid": "logistic"}  # as scikit-learn has them
NEVER = 10**9  # epochs without improvement that are waited for


class Epochs(io.StringIO):
    """A clock in place of the output, where a verbose fit writes a line at every epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def write(self, text: str) -> int:
        if text.startswith("Iteration "):
            self.ends.append(time.perf_counter())
        return len(text)


class Fit:
    """An MLP estimator of a library, which never stops by itself."""

    def __init__(self, problem: Problem, library: str, **own: Any) -> None:
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
            **own,
        )

    def fit(self, epochs: int) -> Epochs:
        """Fit so many epochs; the clock has the end of each."""
        self.est.set_params(max_iter=epochs)
        clock = Epochs()
        with warnings.catch_warnings(), redirect_stdout(clock):
            warnings.simplefilter("ignore")  # it did not converge: it was not to
            self.est.fit(self.problem.X, self.problem.y)
        return clock

    def begin(self) -> None:
        """Make the next fit go on from the weights that all contenders start from."""
        self.fit(1)
        self.est.set_params(warm_start=True)
        self.est.coefs_ = [weights for weights, _ in self.problem.start]
        self.est.intercepts_ = [bias for _, bias in self.problem.start]

    def seconds(self, count: int) -> float:
        """Of so many epochs of one fit, after the first: set-up is over by then."""
        ends = self.fit(1 + count).ends
        return ends[-1] - ends[0]

    def result(self, count: int) -> np.ndarray:
        self.begin()
        self.fit(count)
        return joined(zip(self.est.coefs_, self.est.intercepts_, strict=True))


class Predict(Fit):
    """The estimator's predictions, or the probabilities of a classifier."""

    def __init__(self, problem: Problem, library: str, **own: Any) -> None:
        super().__init__(problem, library, **own)
        self.begin()
        self.units = problem.size
        self.predict = getattr(self.est, "predict_proba", self.est.predict)

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.predict(self.problem.X)
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        return np.asarray(self.predict(self.problem.X), dtype=np.float64).ravel()


def ours(problem: Problem) -> Fit:
    return Fit(problem, "xpmlp", device=problem.device, continuation="scikit-learn")


def theirs(problem: Problem) -> Fit:
    return Fit(problem, "sklearn.neural_network")


def our_predictions(problem: Problem) -> Predict:
    return Predict(problem, "xpmlp", device=problem.device)


def their_predictions(problem: Problem) -> Predict:
    return Predict(problem, "sklearn.neural_network")
