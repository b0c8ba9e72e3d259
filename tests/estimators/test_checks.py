"""scikit-learn's estimator checks. Ours may fail what its own MLP fails with the same settings."""

import warnings
from functools import lru_cache

import pytest
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import xpmlp

PASSING = ({}, {"solver": "sgd"}, {"solver": "lbfgs"})
COMPARED = (
    {"early_stopping": True},
    {"activation": "tanh", "hidden_layer_sizes": (8, 4)},
    {"activation": "logistic", "solver": "lbfgs"},
    {"warm_start": True},
    {"shuffle": False},
    {"batch_size": 7, "max_iter": 20},
    {"solver": "sgd", "learning_rate": "adaptive"},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.5},
    {"solver": "sgd", "nesterovs_momentum": False},
    {"alpha": 0.0, "beta_1": 0.8},
)
EXTENSIONS = (
    {"dropout": 0.2},
    {"solver": "adamw", "schedule": "cosine"},
    {"activation": "gelu", "clip": 1.0},
    {"n_threads": 1, "output": "numpy"},
)
EQUIVALENCE = (
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
)
DROPOUT = "a row of weight 2 has one dropout mask, the same row twice has two"
NAMES = ("MLPClassifier", "MLPRegressor")


def sklearn_class(name):
    """A subclass of scikit-learn's class: for the class itself the checks change the settings."""
    return type(name, (getattr(neural_network, name),), {"__module__": __name__})


def failure(check, est):
    """The error that a check ends with, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(est)
        except pytest.skip.Exception:
            return None
        except Exception as error:
            return error
    return None


@lru_cache
def failing_checks(name, settings):
    """The checks that scikit-learn's own estimator fails with these settings."""
    est = sklearn_class(name)(**dict(settings))
    return {check.func.__name__ for _, check in checks(est) if failure(check, est) is not None}


def checks(est):
    return list(estimator_checks_generator(est, legacy=True))


def estimators(settings):
    """Our two estimators with each of these settings."""
    return [getattr(xpmlp, name)(**{"max_iter": 100} | s) for s in settings for name in NAMES]


def expected_failures(est):
    """The checks that an estimator is expected to fail, with the reason."""
    return dict.fromkeys(EQUIVALENCE, DROPOUT) if est.dropout else {}


def comparisons():
    """(our estimator, scikit-learn's settings, check) for COMPARED."""
    return [
        pytest.param(est, {"max_iter": 100} | settings, check, id=f"{est}-{check.func.__name__}")
        for settings in COMPARED
        for est in estimators([settings])
        for _, check in checks(est)
    ]


@pytest.mark.filterwarnings("ignore:y has a single class")  # one check has it
@parametrize_with_checks(estimators(PASSING))
def test_every_check_passes(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [*estimators(EXTENSIONS), xpmlp.MLPClassifier(class_weight="balanced", max_iter=100)],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore:y has a single class")  # one check has it
def test_every_check_passes_with_our_own_parameters(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


@pytest.mark.filterwarnings("ignore:y has a single class")  # one check has it
@pytest.mark.slow
@pytest.mark.parametrize(("est", "settings", "check"), comparisons())
def test_a_check_fails_only_if_scikit_learns_estimator_fails_it(est, settings, check):
    error, name = failure(check, est), check.func.__name__
    if error is not None and name not in failing_checks(
        type(est).__name__, tuple(settings.items())
    ):
        if name == "check_class_weight_classifiers":
            pytest.xfail("scikit-learn's has no class_weight; these settings stop too early for it")
        raise error
