"""scikit-learn's tests of its MLPs, run on ours."""

import pytest
from sklearn import neural_network
from sklearn.neural_network.tests import test_mlp as sklearn_tests

import xpmlp

# ours warn of too little data, scikit-learn's do not
pytestmark = pytest.mark.filterwarnings("ignore:(y has a single class|X has one row)")
OURS = {
    neural_network.MLPClassifier: xpmlp.MLPClassifier,
    neural_network.MLPRegressor: xpmlp.MLPRegressor,
}
EXCLUDED = {
    "test_gradient": "it calls the private _loss_grad_lbfgs with buffers of scikit-learn's own; "
    "test_against_sklearn.py tests the same, and tests/math does for every activation and loss",
    "test_preserve_feature_names": "its y has a single class, and ours warn of that; "
    "test_held_out.py tests the same with two",
}
TESTS = {name: test for name, test in vars(sklearn_tests).items() if name.startswith("test_")}


@pytest.fixture
def global_random_seed():
    """As in scikit-learn's conftest."""
    return 42


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Replace the module's estimators by ours while its tests run."""
    for class_, replacement in OURS.items():
        monkeypatch.setattr(sklearn_tests, class_.__name__, replacement)


def on_ours(test):
    """`test` with our estimators in place of scikit-learn's among its parameters."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            mark.args[1][:] = [OURS.get(v, v) if isinstance(v, type) else v for v in mark.args[1]]
    return test


globals().update({name: on_ours(test) for name, test in TESTS.items() if name not in EXCLUDED})


def test_the_suite_is_complete():
    assert len(TESTS) > 40
    assert set(EXCLUDED) < set(TESTS)
