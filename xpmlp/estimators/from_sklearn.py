"""A fitted scikit-learn MLP becomes ours: the same network, and more can be done with it."""

from copy import deepcopy
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xpmlp.devices.namespace import CPU
from xpmlp.estimators.base import MLPBase
from xpmlp.estimators.classifier import MLPClassifier
from xpmlp.estimators.network import drawn, new_resume_state, packed, spec_of
from xpmlp.estimators.regressor import MLPRegressor
from xpmlp.spec import Spec
from xpmlp.training.data import own_dtype

PAIRS = (
    (neural_network.MLPClassifier, MLPClassifier),
    (neural_network.MLPRegressor, MLPRegressor),
)
PRIVATE = ("_label_binarizer", "_no_improvement_count")
SLOTS = ("ms", "vs", "velocities")  # what scikit-learn's optimizers remember, as we order it


def from_sklearn(fitted: Any) -> Any:
    """The `xpmlp` estimator in place of a fitted scikit-learn one.

    fitted: an `MLPClassifier` or `MLPRegressor` of scikit-learn. It is left alone.

    Returns an estimator with the same parameters, weights and curves, and the optimizer's memory:
    it predicts the same, `partial_fit` and `warm_start` go on, on a GPU where asked, and `save`
    writes a safe file. Raises TypeError for anything else, NotFittedError before `fit`.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> theirs = MLPClassifier(random_state=0, max_iter=500).fit(X, y)
    >>> ours = from_sklearn(theirs)
    >>> bool(abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-12)
    True
    """
    ours = next((mine for theirs, mine in PAIRS if isinstance(fitted, theirs)), None)
    if ours is None:
        mine = "xpmlp's own " if isinstance(fitted, MLPBase) else ""
        raise TypeError(
            f"from_sklearn takes a fitted MLPClassifier or MLPRegressor of scikit-learn; got "
            f"{mine}{type(fitted).__name__}"
        )
    check_is_fitted(fitted)
    est: MLPBase = ours(**fitted.get_params(deep=False))
    for name, value in vars(fitted).items():
        if name.endswith("_") or name in PRIVATE:
            setattr(est, name, deepcopy(value))
    est.coefs_, est.intercepts_ = list(est.coefs_), list(est.intercepts_)
    if hasattr(fitted, "_optimizer"):
        go_on(est, fitted._optimizer)
    return est


def go_on(est: MLPBase, optimizer: Any) -> None:
    """Give the estimator the state that scikit-learn's training was on."""
    sizes = [len(bias) for bias in est.intercepts_]
    spec = spec_of(est, len(est.coefs_[0]), sizes[:-1], sizes[-1], est.loss_asked())
    dtype = own_dtype(est.coefs_[0])
    random = deepcopy(check_random_state(est.random_state))
    drawn(est, spec, random)  # as before the held-out rows were drawn
    state = est._optimizer = new_resume_state(est, random)
    if est.solver == "sgd":  # Adam's own holds the bias correction of its last update
        state.learning_rate = optimizer.learning_rate
    state.step, state.epoch = getattr(optimizer, "t", 0), len(est.loss_curve_)
    state.slots = tuple(
        flat_slots(spec, getattr(optimizer, name), dtype)
        for name in SLOTS
        if hasattr(optimizer, name)
    )
    est.history_ = {}
    scores = est.validation_scores_
    est.validation_loss_curve_ = None if scores is None else [np.nan] * len(scores)
    if est.best_validation_score_ is not None:
        state.last = state.kept = packed(CPU, spec, est.coefs_, est.intercepts_, dtype)
        state.best = -est.best_validation_score_


def flat_slots(spec: Spec, listed: list[Any], dtype: str) -> Any:
    """A memory listed like coefs_ + intercepts_ as a flat buffer (P,)."""
    layers = len(spec.layers)
    return packed(CPU, spec, listed[:layers], listed[layers:], dtype)
