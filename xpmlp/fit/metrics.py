"""How good scores are: losses and the scores that people compare, all (...), higher is better
for scores. Weighted by row, on any namespace, for any leading axes."""

from collections.abc import Callable

from xpmlp.core.losses import Loss
from xpmlp.core.types import Array, Namespace


def mean_over_rows(xp: Namespace, values: Array, weight: Array) -> Array:
    """The weighted mean over the last axis, rows (..., N)."""
    return xp.sum(values * weight, axis=-1) / xp.sum(weight, axis=-1)


def mean_loss(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    return mean_over_rows(xp, measure.value(xp, score, target), weight)


def accuracy(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    """Share of rows whose class is the most probable one; of several labels all must be right."""
    if measure.labels == "classes":
        right = xp.argmax(score, axis=-1) == xp.argmax(target, axis=-1)
    else:
        right = xp.all((score > 0) == (target > 0.5), axis=-1)
    return mean_over_rows(xp, xp.astype(right, score.dtype), weight)


def r2(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    """1 - squared error / variance of the target, averaged over the outputs.

    A constant output counts 1 where it is met exactly, else 0.
    """
    prediction, w = measure.link(xp, score), weight[..., None]
    error = xp.sum(w * (prediction - target) ** 2, axis=-2)
    mean = xp.sum(w * target, axis=-2, keepdims=True) / xp.sum(w)
    spread = xp.sum(w * (target - mean) ** 2, axis=-2)
    varies = spread > 0
    share = error / xp.where(varies, spread, xp.ones_like(spread))
    met = xp.astype(error == 0, share.dtype)
    return xp.mean(xp.where(varies, 1 - share, met), axis=-1)


def minus_loss(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    return -mean_loss(xp, measure, score, target, weight)


def score_for(measure: Loss) -> Callable[..., Array]:
    """The score that goes with a loss: accuracy for labels, R2 for numbers, minus the loss for
    several quantiles of one target."""
    if measure.labels != "none":
        return accuracy
    return minus_loss if measure.levels > 1 else r2
