"""Losses: value, delta = dvalue/dscore and, beside them, the link from score to prediction.

`score` (..., B, n_out) is what the last layer computes; `target` (..., B, n_out) is what was
asked for. A value is one number per row (..., B), summed over the outputs: minus a log
likelihood up to a constant. Link and loss are one formula, so that softmax and its logarithm,
or exp and its, never meet as separate, overflowing steps. For finite input a value is never
NaN, and inf only where the true value exceeds the dtype.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from xpmlp.activations import identity, level, sigmoid
from xpmlp.names import lookup, positive, split_pair
from xpmlp.types import Array, Namespace


class Loss(NamedTuple):
    """A loss, its derivative, and the link that makes predictions of scores."""

    value: Callable[..., Array]  # (xp, score, target) -> (..., B)
    delta: Callable[..., Array]  # (xp, score, target) -> (..., B, n_out), dvalue/dscore
    link: Callable[..., Array]  # (xp, score) -> prediction (..., B, n_out or targets)
    labels: str = "none"  # what a label becomes: "none" a number, "binary" 0/1, "classes" one-hot
    scores_per_target: int = 1  # such as a mean and a variance, or several quantiles
    name: str | None = None  # what a model file stores; None for a user's own

    def targets(self, n_out: int) -> int:
        """How many columns a target has where the last layer computes n_out scores."""
        return n_out // self.scores_per_target


def over_outputs(xp: Namespace, values: Array) -> Array:
    return xp.sum(values, axis=-1)


def exp(xp: Namespace, score: Array) -> Array:
    return xp.exp(score)


def halfway(xp: Namespace, score: Array) -> Array:
    """Half of score less the largest of the outputs: finite where the whole would overflow."""
    return 0.5 * score - 0.5 * xp.max(score, axis=-1, keepdims=True)


def softmax(xp: Namespace, score: Array) -> Array:
    """exp(score) normalised to sum 1 over the outputs, shifted by the largest."""
    e = xp.exp(2 * halfway(xp, score))
    return e / xp.sum(e, axis=-1, keepdims=True)


def squared_value(xp: Namespace, score: Array, target: Array) -> Array:
    """Half the squared distance: its derivative is score - target."""
    e = score - target
    return over_outputs(xp, 0.5 * e * e)


def squared_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return score - target


def absolute_value(xp: Namespace, score: Array, target: Array) -> Array:
    return over_outputs(xp, xp.abs(score - target))


def absolute_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return xp.astype(score > target, score.dtype) - xp.astype(score < target, score.dtype)


def huber(threshold: float = 1.0) -> Loss:
    """Squared within `threshold` of the target, linear beyond (Huber 1964)."""
    threshold = float(threshold)
    positive(threshold=threshold)

    def value(xp: Namespace, score: Array, target: Array) -> Array:
        half = xp.abs(0.5 * score - 0.5 * target)  # half the distance never overflows
        near = xp.minimum(2 * half, level(xp, half, threshold))
        return over_outputs(xp, 2 * near * (half - 0.25 * near))

    def delta(xp: Namespace, score: Array, target: Array) -> Array:
        e = score - target
        return xp.maximum(xp.minimum(e, level(xp, e, threshold)), level(xp, e, -threshold))

    return Loss(value, delta, identity, name=f"huber:{threshold}")


def quantile(*levels: float) -> Loss:
    """The pinball loss of one or several quantiles (Koenker & Bassett 1978).

    The scores (..., B, levels * k) of k targets come level by level.
    """
    levels = levels or (0.5,)
    if not all(0 < q < 1 for q in levels):
        raise ValueError(f"quantiles must be in (0, 1); got {', '.join(map(str, levels))}")

    def by_level(xp: Namespace, score: Array, piece: Callable[[float, Array], Array]) -> Array:
        # an array of levels would be copied from the host, as would CuPy's concat of nine parts
        columns, k = xp.empty_like(score), score.shape[-1] // len(levels)
        for i, q in enumerate(levels):
            part = slice(i * k, (i + 1) * k)
            columns[..., part] = piece(q, score[..., part])
        return columns

    def value(xp: Namespace, score: Array, target: Array) -> Array:
        def pinball(q: float, s: Array) -> Array:
            half = 0.5 * target - 0.5 * s  # half the distance never overflows
            return xp.maximum(2 * q * half, 2 * (q - 1) * half)

        return over_outputs(xp, by_level(xp, score, pinball))

    def delta(xp: Namespace, score: Array, target: Array) -> Array:
        def slope(q: float, s: Array) -> Array:
            above = xp.astype(s > target, s.dtype)
            return (1 - q) * above - q * xp.astype(s < target, s.dtype)

        return by_level(xp, score, slope)

    written = ",".join(str(q) for q in levels)
    return Loss(value, delta, identity, scores_per_target=len(levels), name=f"quantile:{written}")


def gaussian_parts(xp: Namespace, score: Array) -> tuple[Array, Array]:
    """Means and logarithms of the variances, (..., B, k) each, of scores (..., B, 2 k)."""
    k = score.shape[-1] // 2
    return score[..., :k], score[..., k:]


def gaussian_mean(xp: Namespace, score: Array) -> Array:
    return score[..., : score.shape[-1] // 2]


def gaussian_distance(xp: Namespace, score: Array, target: Array) -> tuple[Array, Array, Array]:
    """log variance, 1 / deviation, and how many deviations the target is from the mean."""
    mean, log_variance = gaussian_parts(xp, score)
    precision = xp.exp(-0.5 * log_variance)
    half = 0.5 * target - 0.5 * mean  # half the distance never overflows
    # where the deviation underflows, 0 * inf would be NaN at a perfect fit
    return log_variance, precision, xp.where(half == 0, half, 2 * (half * precision))


def gaussian_value(xp: Namespace, score: Array, target: Array) -> Array:
    """-log likelihood of the target under N(mean, variance), less log(2 pi) / 2 (Nix & Weigend
    1994): both are learned, so that rows that scatter count for less."""
    log_variance, _, z = gaussian_distance(xp, score, target)
    return over_outputs(xp, 0.5 * log_variance + 0.5 * z * z)


def gaussian_delta(xp: Namespace, score: Array, target: Array) -> Array:
    _, precision, z = gaussian_distance(xp, score, target)
    slope = xp.where(z == 0, z, -z * precision)
    return xp.concat([slope, 0.5 - 0.5 * z * z], axis=-1)


POISSON_FAR = 80.0  # its exp is finite in float32 too


def poisson_value(xp: Namespace, score: Array, target: Array) -> Array:
    """Half the Poisson deviance of target against exp(score): 0 at a perfect fit."""
    counted = target > 0
    surplus = score - xp.log(xp.where(counted, target, xp.ones_like(target)))
    # target * (exp(u) - 1 - u) keeps its digits near a fit; where u is far, the mean is all
    near = counted & (surplus < POISSON_FAR)
    u = xp.where(near, surplus, xp.zeros_like(surplus))
    return over_outputs(xp, xp.where(near, target * (xp.expm1(u) - u), xp.exp(score)))


def poisson_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return xp.exp(score) - target


def binary_value(xp: Namespace, score: Array, target: Array) -> Array:
    """-target log p - (1 - target) log(1 - p) for p = sigmoid(score), target in [0, 1]."""
    # softplus(score) - target * score, with the large parts cancelled before they are added
    high = xp.maximum(score, level(xp, score, 0.0))
    near = xp.log1p(xp.exp(-xp.abs(score)))
    return over_outputs(xp, target * (high - score) + (1 - target) * high + near)


def binary_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return sigmoid(xp, score) - target


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """-sum of target * log softmax(score); target a distribution over the classes.

    With label smoothing s (Szegedy et al. 2016) the target is (1 - s) * target + s / classes.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing must be in [0, 1); got {smoothing}")

    def smoothed(target: Array) -> Array:
        return (1 - smoothing) * target + smoothing / target.shape[-1] if smoothing else target

    def value(xp: Namespace, score: Array, target: Array) -> Array:
        smooth, half = smoothed(target), halfway(xp, score)  # 0 * half is 0, never 0 * inf
        total = xp.log(xp.sum(xp.exp(2 * half), axis=-1))
        return total * over_outputs(xp, smooth) - 2 * over_outputs(xp, smooth * half)

    def delta(xp: Namespace, score: Array, target: Array) -> Array:
        smooth = smoothed(target)
        return softmax(xp, score) * xp.sum(smooth, axis=-1, keepdims=True) - smooth

    name = f"cross_entropy:{smoothing}" if smoothing else "cross_entropy"
    return Loss(value, delta, softmax, labels="classes", name=name)


BINARY = Loss(binary_value, binary_delta, sigmoid, labels="binary", name="binary_cross_entropy")
LOSSES = {
    "squared_error": Loss(squared_value, squared_delta, identity, name="squared_error"),
    "absolute_error": Loss(absolute_value, absolute_delta, identity, name="absolute_error"),
    "huber": huber, "quantile": quantile, "cross_entropy": cross_entropy,
    "poisson": Loss(poisson_value, poisson_delta, exp, name="poisson"),
    "binary_cross_entropy": BINARY,
    "gaussian": Loss(
        gaussian_value, gaussian_delta, gaussian_mean, scores_per_target=2, name="gaussian"
    ),
}  # fmt: skip


@lru_cache(1024)
def resolve(choice: str | Callable[..., Any]) -> Loss:
    if isinstance(choice, str):
        entry: Loss = lookup("loss", LOSSES, choice)
        return entry
    example = "return xp.sum(e * e, axis=-1), 2 * e"
    value, delta = split_pair("loss", "(value, delta)", example, choice)
    return Loss(value, delta, identity)


def loss(choice: Any) -> Loss:
    """The Loss of a choice: by name, as a value or as a user's own function.

    A user's own function is f(xp, score, target) -> (value, delta): value (..., B) and its
    derivative with respect to the score, (..., B, n_out). Its link is the identity.
    """
    if isinstance(choice, Loss):
        return choice
    if not (isinstance(choice, str) or callable(choice)):
        raise ValueError(f"loss must be a name or a function (xp, score, target); got {choice!r}")
    return resolve(choice)
