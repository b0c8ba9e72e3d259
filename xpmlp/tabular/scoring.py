"""Scores on held-out rows, by scikit-learn (extra: table)."""

import math
from collections.abc import Mapping

from xpmlp.devices.extras import import_extra
from xpmlp.types import Array


def class_scores(truth: Array, classes: Array, proba: Array) -> dict[str, float]:
    """accuracy, log_loss and auc (of two classes; else one against the rest, averaged).

    truth (N,) labels, classes (C,) sorted, proba (N, C). auc is omitted if a class is
    missing from `truth`.
    """
    metrics = import_extra("sklearn.metrics", "table")
    codes, labels = classes.searchsorted(truth), list(range(len(classes)))  # of any dtype
    scores = {
        "accuracy": float(metrics.accuracy_score(codes, proba.argmax(axis=1))),
        "log_loss": float(metrics.log_loss(codes, proba, labels=labels)),
    }
    if len(set(codes.tolist())) == len(classes) > 1:
        score = proba[:, 1] if len(classes) == 2 else proba / proba.sum(axis=1, keepdims=True)
        scores["auc"] = float(metrics.roc_auc_score(codes, score, multi_class="ovr"))
    return scores


def number_scores(truth: Array, predicted: Array) -> dict[str, float]:
    """rmse and mae in the target's unit, and r2."""
    metrics = import_extra("sklearn.metrics", "table")
    _, exponent = math.frexp(max(abs(truth).max(), abs(predicted).max()))
    unit = 2.0 ** (exponent - 1)  # a power of two loses no digit, and squares do not overflow
    truth, predicted = truth / unit, predicted / unit
    return {
        "rmse": float(metrics.root_mean_squared_error(truth, predicted)) * unit,
        "mae": float(metrics.mean_absolute_error(truth, predicted)) * unit,
        "r2": float(metrics.r2_score(truth, predicted)) if len(truth) > 1 else float("nan"),
    }


def score_table(scores: dict[str, float], baseline: dict[str, float] | None = None) -> str:
    """The scores as a text table, with a column for the baseline if given."""
    if baseline is None:
        return "\n".join(f"{name:<10} {value:>12.5g}" for name, value in scores.items())
    rows = [f"{'held-out':<10} {'this model':>12} {'baseline':>12}"]
    rows += [
        f"{name:<10} {value:>12.5g} {baseline.get(name, float('nan')):>12.5g}"
        for name, value in scores.items()
    ]
    return "\n".join(rows)


def nan_to_none(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores for JSON: None for NaN, such as the R2 of a single row."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def round_scores(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores for JSON with six significant digits."""
    return nan_to_none({name: float(f"{value:.6g}") for name, value in scores.items()})
