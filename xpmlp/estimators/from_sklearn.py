"""Conversion of a fitted scikit-learn MLP to an xpmlp estimator."""

from copy import deepcopy
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xpmlp.devices.namespace import CPU
from xpmlp.estimators.base import MLPBase
from xpmlp.estimators.classifier import MLPClassifier
from xpmlp.estimators.network import draw_initial_weights, make_spec, new_resume_state, pack_weights
from xpmlp.estimators.regressor import MLPRegressor
from xpmlp.spec import Spec
from xpmlp.training.data import own_dtype

ESTIMATOR_PAIRS = (
    (neural_network.MLPClassifier, MLPClassifier),
    (neural_network.MLPRegressor, MLPRegressor),
)
PRIVATE_ATTRIBUTES = ("_label_binarizer", "_no_improvement_count")
SLOTS = ("ms", "vs", "velocities")  # of scikit-learn's optimizers, in xpmlp's order


def from_sklearn(fitted: Any) -> Any:
    """The xpmlp estimator of a fitted scikit-learn one.

    Parameters
    ----------
    fitted : scikit-learn's MLPClassifier or MLPRegressor
        It is not changed.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With the same parameters, weights, curves and optimizer state: it predicts the same,
        `partial_fit` and `warm_start` continue, on a GPU if requested, and `save` writes a safe
        file.

    Raises
    ------
    TypeError
        For anything else.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> theirs = MLPClassifier(random_state=0, max_iter=500).fit(X, y)
    >>> ours = from_sklearn(theirs)
    >>> bool(abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-12)
    True
    """
    pairs = ESTIMATOR_PAIRS
    estimator_class = next((ours for sklearn, ours in pairs if isinstance(fitted, sklearn)), None)
    if estimator_class is None:
        ours = "xpmlp's own " if isinstance(fitted, MLPBase) else ""
        raise TypeError(
            f"from_sklearn takes a fitted MLPClassifier or MLPRegressor of scikit-learn; got "
            f"{ours}{type(fitted).__name__}"
        )
    check_is_fitted(fitted)
    est: MLPBase = estimator_class(**fitted.get_params(deep=False))
    for name, value in vars(fitted).items():
        if name.endswith("_") or name in PRIVATE_ATTRIBUTES:
            setattr(est, name, deepcopy(value))
    est.coefs_, est.intercepts_ = list(est.coefs_), list(est.intercepts_)
    if hasattr(fitted, "_optimizer"):
        copy_training_state(est, fitted._optimizer)
    return est


def copy_training_state(est: MLPBase, optimizer: Any) -> None:
    """Copy the state of scikit-learn's training to the estimator."""
    sizes = [len(bias) for bias in est.intercepts_]
    spec = make_spec(est, len(est.coefs_[0]), sizes[:-1], sizes[-1], est._resolve_loss())
    dtype = own_dtype(est.coefs_[0])
    random = deepcopy(check_random_state(est.random_state))
    draw_initial_weights(est, spec, random)  # advances random as before the validation split
    state = est._optimizer = new_resume_state(est, random)
    if est.solver == "sgd":  # that of Adam includes the bias correction of its last update
        state.learning_rate = optimizer.learning_rate
    state.step, state.epoch = getattr(optimizer, "t", 0), len(est.loss_curve_)
    state.slots = tuple(
        pack_slots(spec, getattr(optimizer, name), dtype)
        for name in SLOTS
        if hasattr(optimizer, name)
    )
    est.history_ = {}
    scores = est.validation_scores_
    est.validation_loss_curve_ = None if scores is None else [np.nan] * len(scores)
    if est.best_validation_score_ is not None:
        state.last = state.kept = pack_weights(CPU, spec, est.coefs_, est.intercepts_, dtype)
        state.best = -est.best_validation_score_


def pack_slots(spec: Spec, arrays: list[Any], dtype: str) -> Any:
    """Slots in the order of coefs_ + intercepts_ as a flat buffer (P,)."""
    layers = len(spec.layers)
    return pack_weights(CPU, spec, arrays[:layers], arrays[layers:], dtype)
