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
from xpmlp.names import is_ours, lookup, positive, public_dir, split_pair
from xpmlp.types import Array, Namespace

__all__ = [
    "LOSSES", "Loss", "absolute_value", "binary_value", "cross_entropy", "gaussian_value",
    "huber", "loss", "poisson_value", "quantile", "softmax", "squared_value",
]  # fmt: skip
__dir__ = public_dir(__all__)


class Loss(NamedTuple):
    """A loss, its derivative, and the link that makes predictions of scores.

    Parameters
    ----------
    value : function (xp, score, target) -> array of shape (..., B)
        The loss of each row, of a score (..., B, n_out) and a target (..., B, n_targets).
    delta : function (xp, score, target) -> array of shape (..., B, n_out)
        Its derivative with respect to the score.
    link : function (xp, score) -> prediction
        Of shape (..., B, n_out) or (..., B, n_targets).
    labels : {"none", "binary", "classes"}
        What a label becomes: a number, 0 or 1, or a one-hot row.
    scores_per_target : int
        n_out / n_targets: above 1 for a mean and a variance, or for several quantiles.
    name : str, optional
        What a model file stores, such as "huber:1.0"; None for one of your own.

    Examples
    --------
    >>> import xpmlp
    >>> fourth = Loss(
    ...     lambda xp, score, target: xp.sum((score - target) ** 4, axis=-1),
    ...     lambda xp, score, target: 4 * (score - target) ** 3,
    ...     identity,
    ... )
    >>> xpmlp.gradcheck(xpmlp.Spec.parse("2-3-1", loss=fourth)).passed
    True
    """

    value: Callable[..., Array]
    delta: Callable[..., Array]
    link: Callable[..., Array]
    labels: str = "none"
    scores_per_target: int = 1
    name: str | None = None

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
    """The sum of (score - target)**2 / 2 over the outputs; the prediction is the score.

    Examples
    --------
    >>> loss("squared_error").value(np, np.array([[3.0]]), np.array([[1.0]]))
    array([2.])
    """
    e = score - target
    return over_outputs(xp, 0.5 * e * e)


def squared_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return score - target


def absolute_value(xp: Namespace, score: Array, target: Array) -> Array:
    """The sum of |score - target| over the outputs; the prediction is the score, a median.

    Examples
    --------
    >>> loss("absolute_error").value(np, np.array([[3.0]]), np.array([[1.0]]))
    array([2.])
    """
    return over_outputs(xp, xp.abs(score - target))


def absolute_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return xp.astype(score > target, score.dtype) - xp.astype(score < target, score.dtype)


def huber(threshold: float = 1.0) -> Loss:
    """Quadratic within a threshold of the target, linear beyond; the prediction is the score.

    The sum over the outputs of e**2 / 2 where |e| <= threshold, else threshold *
    (|e| - threshold / 2), with e = score - target.

    Parameters
    ----------
    threshold : float above 0

    References
    ----------
    Huber 1964, "Robust estimation of a location parameter"

    Examples
    --------
    >>> loss("huber:1").value(np, np.array([[3.0]]), np.array([[1.0]]))
    array([1.5])
    """
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
    """The pinball loss of one or several quantiles; the prediction is the scores.

    The sum of max(q * e, (q - 1) * e) over levels q and targets, with e = target - score.

    Parameters
    ----------
    *levels : float in (0, 1)
        0.5, the median, where none is given. The scores (..., B, levels * k) of k targets
        come level by level.

    References
    ----------
    Koenker & Bassett 1978, "Regression quantiles"

    Examples
    --------
    >>> loss("quantile:0.25,0.75").value(np, np.array([[1.0, 4.0]]), np.array([[3.0]]))
    array([0.75])
    """
    levels = levels or (0.5,)
    if not all(0 < q < 1 for q in levels):
        raise ValueError(f"quantiles must be in (0, 1); got {', '.join(map(str, levels))}")

    def by_level(xp: Namespace, score: Array, function: Callable[[float, Array], Array]) -> Array:
        # an array of levels would be copied from the host, as would CuPy's concat of nine parts
        columns, k = xp.empty_like(score), score.shape[-1] // len(levels)
        for i, q in enumerate(levels):
            part = slice(i * k, (i + 1) * k)
            columns[..., part] = function(q, score[..., part])
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


def gaussian_mean_and_std(xp: Namespace, score: Array) -> Array:
    """Means and standard deviations, (..., B, 2 k)."""
    mean, log_variance = gaussian_parts(xp, score)
    return xp.concat([mean, xp.exp(0.5 * log_variance)], axis=-1)


def gaussian_distance(xp: Namespace, score: Array, target: Array) -> tuple[Array, Array, Array]:
    """log variance, 1 / deviation, and how many deviations the target is from the mean."""
    mean, log_variance = gaussian_parts(xp, score)
    precision = xp.exp(-0.5 * log_variance)
    half = 0.5 * target - 0.5 * mean  # half the distance never overflows
    # where the deviation underflows, 0 * inf would be NaN at a perfect fit
    return log_variance, precision, xp.where(half == 0, half, 2 * (half * precision))


def gaussian_value(xp: Namespace, score: Array, target: Array) -> Array:
    """Minus the log likelihood under N(mean, variance); the prediction is the mean.

    The sum of (log(variance) + (target - mean)**2 / variance) / 2 over k targets, without the
    constant log(2 pi) / 2. The scores (..., B, 2 k) are the means and then the logarithms of the
    variances. Both are learned, so that rows that scatter count for less.

    References
    ----------
    Nix & Weigend 1994, "Estimating the mean and variance of the target probability distribution"

    Examples
    --------
    >>> loss("gaussian").value(np, np.array([[3.0, 0.0]]), np.array([[1.0]]))
    array([2.])
    """
    log_variance, _, z = gaussian_distance(xp, score, target)
    return over_outputs(xp, 0.5 * log_variance + 0.5 * z * z)


def gaussian_delta(xp: Namespace, score: Array, target: Array) -> Array:
    _, precision, z = gaussian_distance(xp, score, target)
    slope = xp.where(z == 0, z, -z * precision)
    return xp.concat([slope, 0.5 - 0.5 * z * z], axis=-1)


POISSON_FAR = 80.0  # its exp is finite in float32 too


def poisson_value(xp: Namespace, score: Array, target: Array) -> Array:
    """Half the Poisson deviance of counts; the prediction is mean = exp(score).

    The sum of target * log(target / mean) - target + mean over the outputs: 0 at a perfect fit.
    A target is at least 0.

    Examples
    --------
    >>> loss("poisson").value(np, np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]))
    array([1.])
    """
    counted = target > 0
    excess = score - xp.log(xp.where(counted, target, xp.ones_like(target)))
    # target * (exp(u) - 1 - u) keeps its digits near a fit; where u is far, the mean is all
    near = counted & (excess < POISSON_FAR)
    u = xp.where(near, excess, xp.zeros_like(excess))
    return over_outputs(xp, xp.where(near, target * (xp.expm1(u) - u), xp.exp(score)))


def poisson_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return xp.exp(score) - target


def binary_value(xp: Namespace, score: Array, target: Array) -> Array:
    """The log loss of each output on its own; the prediction is p = sigmoid(score).

    The sum of -target * log(p) - (1 - target) * log(1 - p) over the outputs. A target is in [0, 1].

    Examples
    --------
    >>> loss("binary_cross_entropy").value(np, np.array([[0.0]]), np.array([[1.0]])).round(4)
    array([0.6931])
    """
    # softplus(score) - target * score, with the large parts cancelled before they are added
    high = xp.maximum(score, level(xp, score, 0.0))
    near = xp.log1p(xp.exp(-xp.abs(score)))
    return over_outputs(xp, target * (high - score) + (1 - target) * high + near)


def binary_delta(xp: Namespace, score: Array, target: Array) -> Array:
    return sigmoid(xp, score) - target


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """The log loss of one class among several; the prediction is p = softmax(score).

    The sum of -target * log(p) over the classes. A target is a distribution over the classes.

    Parameters
    ----------
    smoothing : float in [0, 1)
        With s above 0, the target is (1 - s) * target + s / classes.

    References
    ----------
    Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision"

    Examples
    --------
    >>> loss("cross_entropy").value(np, np.zeros((1, 2)), np.array([[1.0, 0.0]])).round(4)
    array([0.6931])
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

    Parameters
    ----------
    choice : str, Loss or function
        A name with its arguments after a colon, such as "poisson" or "huber:1.35", or a function
        (xp, score, target) -> (value, delta): value (..., B) and its derivative with respect to
        the score, (..., B, n_out). Its link is the identity.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        For an unknown name or argument, naming those that are known.

    Examples
    --------
    >>> loss("huber").name
    'huber:1.0'
    """
    if isinstance(choice, Loss):
        # a name of the user's own is no word of the table
        return choice if is_ours(*choice[:3]) else choice._replace(name=None)
    if not (isinstance(choice, str) or callable(choice)):
        raise ValueError(f"loss must be a name or a function (xp, score, target); got {choice!r}")
    return resolve(choice)
