"""Data sets, and pairs of estimators: scikit-learn's and ours with the same parameters."""

import warnings

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import xpmlp


def table(load):
    X, y = load(return_X_y=True)
    return scale(X), y


def some_digits():
    X, y = load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


def progression():
    X, y = table(load_diabetes)
    return X, scale(y)


def generated():
    return make_classification(300, 10, n_informative=5, n_classes=3, random_state=0)


def three_targets():
    X, y = make_regression(90, 6, n_targets=3, noise=1.0, random_state=0)
    return scale(X), scale(y)


def counts():
    X = np.random.default_rng(0).normal(size=(90, 4))
    return X, np.random.default_rng(1).poisson(np.exp(0.3 * X[:, 0] + 0.5)).astype(float)


DATA = {
    "iris": lambda: table(load_iris),
    "cancer": lambda: table(load_breast_cancer),
    "digits": some_digits,
    "wine": lambda: table(load_wine),
    "generated": generated,
    "labels": lambda: make_multilabel_classification(80, 8, n_classes=4, random_state=0),
    "diabetes": progression,
    "three targets": three_targets,
    "counts": counts,
}
CLASSES = ("iris", "cancer", "digits", "labels", "wine", "generated")


@pytest.fixture
def data():
    """A function from a name in DATA to (X, y)."""
    return lambda name: DATA[name]()


@pytest.fixture
def pair():
    """A function from a name in DATA and parameters to scikit-learn's and our estimator."""

    def create(name, **params):
        kind = "MLPClassifier" if name in CLASSES else "MLPRegressor"
        return getattr(neural_network, kind)(**params), getattr(xpmlp, kind)(**params)

    return create


@pytest.fixture
def quietly():
    """Call fit or partial_fit without warnings about convergence and a single class."""

    def call(method, *arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "y has a single class")
            return method(*arguments, **options)

    return call


@pytest.fixture
def same_weights():
    """Whether two estimators have the same weights, bit for bit."""

    def equal(est, other):
        pairs = zip(est.coefs_ + est.intercepts_, other.coefs_ + other.intercepts_, strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    return equal
