"""How good scores are: losses and the scores that people compare, all (...), higher is better
for scores. Weighted by row, on any namespace, for any leading axes."""

from collections.abc import Callable

from xpmlp.activations import identity
from xpmlp.losses import Loss, loss as find_loss
from xpmlp.spec import AnyLoss
from xpmlp.types import Array, Namespace


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
        # CuPy compiles its `all` for seconds where there are 128 outputs and more
        right = xp.min(xp.astype((score > 0) == (target > 0.5), xp.uint8), axis=-1)
    return mean_over_rows(xp, xp.astype(right, score.dtype), weight)


def r2(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    """1 - squared error / variance of the target, averaged over the outputs.

    A constant output counts 1 where it is met exactly, else 0.
    """
    prediction, w = measure.link(xp, score), weight[..., None]
    error = xp.sum(w * (prediction - target) ** 2, axis=-2)
    mean = xp.sum(w * target, axis=-2, keepdims=True) / xp.sum(w)
    spread = xp.sum(w * (target - mean) ** 2, axis=-2)
    # around a mean that is rounded even a constant spreads
    inf, counts = xp.full_like(target, float("inf")), w > 0
    low = xp.min(xp.where(counts, target, inf), axis=-2)
    high = xp.max(xp.where(counts, target, -inf), axis=-2)
    varies = (spread > 0) & (low < high)
    relative = error / xp.where(varies, spread, xp.ones_like(spread))
    exact = xp.astype(error == 0, relative.dtype)
    return xp.mean(xp.where(varies, 1 - relative, exact), axis=-1)


def minus_loss(xp: Namespace, measure: Loss, score: Array, target: Array, weight: Array) -> Array:
    return -mean_loss(xp, measure, score, target, weight)


def score_for(measure: Loss) -> Callable[..., Array]:
    """The score that goes with a loss: accuracy for labels, R2 for numbers, minus the loss for
    several quantiles of one target."""
    if measure.labels != "none":
        return accuracy
    several = measure.scores_per_target > 1 and measure.link is identity
    return minus_loss if several else r2


def reported(choice: AnyLoss) -> Loss:
    """The loss with its value as scikit-learn reports it; the gradient stays the true one's.

    Errors are a mean over the outputs. Cross-entropies are those of probabilities that are held
    eps away from 0 and 1, with the digits that this costs.
    """
    base = find_loss(choice)

    def mean(xp: Namespace, score: Array, target: Array) -> Array:
        return base.value(xp, score, target) / base.link(xp, score).shape[-1]

    def of_classes(xp: Namespace, score: Array, target: Array) -> Array:
        return clipped_cross_entropy(xp, base.link(xp, score), target)

    def of_labels(xp: Namespace, score: Array, target: Array) -> Array:
        p = base.link(xp, score)
        return clipped_cross_entropy(xp, p, target) + clipped_cross_entropy(xp, 1 - p, 1 - target)

    values = {"classes": of_classes, "binary": of_labels, "none": mean}
    sums = base.name == "poisson"
    return base if sums else base._replace(value=values[base.labels], name=None)


def clipped_cross_entropy(xp: Namespace, p: Array, target: Array) -> Array:
    """-sum of target * log p over the outputs (..., B), for p kept eps away from 0 and 1."""
    eps = float(xp.finfo(p.dtype).eps)
    clipped = xp.minimum(xp.maximum(p, xp.full_like(p, eps)), xp.full_like(p, 1 - eps))
    return -xp.sum(target * xp.log(clipped), axis=-1)
