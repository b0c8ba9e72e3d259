"""Held-out scores and the naive baseline beside them, by scikit-learn (extra: table)."""

import math
from collections.abc import Mapping

from xpmlp.devices.extras import import_extra
from xpmlp.types import Array


def class_scores(truth: Array, classes: Array, proba: Array) -> dict[str, float]:
    """accuracy, log_loss and auc (of two classes; else one against the rest, averaged).

    truth (N,) labels, classes (C,) sorted, proba (N, C). auc is left out where a class is
    missing from `truth`.
    """
    metrics = import_extra("sklearn.metrics", "table")
    codes, labels = classes.searchsorted(truth), list(range(len(classes)))  # of any type
    found = {
        "accuracy": float(metrics.accuracy_score(codes, proba.argmax(axis=1))),
        "log_loss": float(metrics.log_loss(codes, proba, labels=labels)),
    }
    if len(set(codes.tolist())) == len(classes) > 1:
        chosen = proba[:, 1] if len(classes) == 2 else proba / proba.sum(axis=1, keepdims=True)
        found["auc"] = float(metrics.roc_auc_score(codes, chosen, multi_class="ovr"))
    return found


def number_scores(truth: Array, predicted: Array) -> dict[str, float]:
    """rmse and mae in the target's unit, and r2."""
    metrics = import_extra("sklearn.metrics", "table")
    _, exponent = math.frexp(max(abs(truth).max(), abs(predicted).max()))
    unit = 2.0 ** (exponent - 1)  # which loses no digit, and squares do not overflow
    truth, predicted = truth / unit, predicted / unit
    return {
        "rmse": float(metrics.root_mean_squared_error(truth, predicted)) * unit,
        "mae": float(metrics.mean_absolute_error(truth, predicted)) * unit,
        "r2": float(metrics.r2_score(truth, predicted)) if len(truth) > 1 else float("nan"),
    }


def score_table(found: dict[str, float], baseline: dict[str, float] | None = None) -> str:
    """The scores for a person, side by side with the baseline's where there is one."""
    if baseline is None:
        return "\n".join(f"{name:<10} {value:>12.5g}" for name, value in found.items())
    rows = [f"{'held-out':<10} {'this model':>12} {'baseline':>12}"]
    rows += [
        f"{name:<10} {value:>12.5g} {baseline.get(name, float('nan')):>12.5g}"
        for name, value in found.items()
    ]
    return "\n".join(rows)


def standard(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as JSON has them: null for NaN, such as the R2 of a single row."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def rounded(scores: Mapping[str, float]) -> dict[str, float | None]:
    """The same with six significant digits."""
    return standard({name: float(f"{value:.6g}") for name, value in scores.items()})
