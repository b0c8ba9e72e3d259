"""scikit-learn's own tests of its MLPs, run on ours."""

import pytest
from sklearn import neural_network
from sklearn.neural_network.tests import test_mlp as theirs

import xpmlp

# what ours say of too little to learn from, and scikit-learn's do not
pytestmark = pytest.mark.filterwarnings("ignore:(y has a single class|X has one row)")
OURS = {
    neural_network.MLPClassifier: xpmlp.MLPClassifier,
    neural_network.MLPRegressor: xpmlp.MLPRegressor,
}
LEFT_OUT = {
    "test_gradient": "it calls the private _loss_grad_lbfgs with buffers of scikit-learn's own; "
    "the same is asked in test_against_sklearn.py, and for every activation and loss in tests/fit",
    "test_preserve_feature_names": "its y has a single class, and ours warn of that; the same is "
    "asked in test_held_out.py with two",
}
TESTS = {name: test for name, test in vars(theirs).items() if name.startswith("test_")}


@pytest.fixture
def global_random_seed():
    """What scikit-learn's conftest gives."""
    return 42


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """The module's names stand for our estimators while its tests run."""
    for class_, instead in OURS.items():
        monkeypatch.setattr(theirs, class_.__name__, instead)


def on_ours(test):
    """`test` with our estimators in place of scikit-learn's among its parameters."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            mark.args[1][:] = [OURS.get(v, v) if isinstance(v, type) else v for v in mark.args[1]]
    return test


globals().update({name: on_ours(test) for name, test in TESTS.items() if name not in LEFT_OUT})


def test_the_suite_is_whole():
    assert len(TESTS) > 40
    assert set(LEFT_OUT) < set(TESTS)
