"""Activations: f(z) and, beside it, its slope f'(z).

Both are elementwise: of xp and of z (..., B, n), an array of at least two axes. A slope is given z
and a = f(z), because the cheaper one differs: tanh's slope is 1 - a * a, relu's is z > 0.
Every function is finite for finite input, and emits no overflow on the way.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from xpmlp.names import is_ours, lookup, positive, public_dir, split_pair
from xpmlp.types import Array, Namespace

__all__ = [
    "ACTIVATIONS", "Activation", "activation", "elu", "gelu", "identity", "leaky_relu",
    "mish", "relu", "selu", "sigmoid", "silu", "softplus", "tanh",
]  # fmt: skip
__dir__ = public_dir(__all__)


class Activation(NamedTuple):
    """An activation and its slope, the pair that backprop needs.

    Parameters
    ----------
    f : function (xp, z) -> a
        Of the pre-activations z (..., B, n), elementwise.
    slope : function (xp, z, a) -> f'(z)
        Its derivative, given a = f(z) too.
    name : str, optional
        What a model file stores, such as "elu:1.0"; None for one of your own.

    Examples
    --------
    >>> import xpmlp
    >>> sine = Activation(lambda xp, z: xp.sin(z), lambda xp, z, a: xp.cos(z))
    >>> xpmlp.gradcheck(xpmlp.Spec.parse("2-3-1", activation=sine)).passed
    True
    """

    f: Callable[..., Array]
    slope: Callable[..., Array]
    name: str | None = None


def level(xp: Namespace, like: Array, value: float) -> Array:
    """One row of `value`, (..., 1, n), that broadcasts against `like`.

    maximum and minimum of the Array API take arrays only, and a row is faster than a scalar.
    """
    return xp.full_like(like[..., :1, :], value)


def above_zero(xp: Namespace, z: Array) -> Array:
    """1 where z > 0, else 0, in z's dtype."""
    return xp.astype(z > 0, z.dtype)


def identity(xp: Namespace, z: Array) -> Array:
    """z itself.

    Examples
    --------
    >>> identity(np, np.array([[-1.0, 2.0]]))
    array([[-1.,  2.]])
    """
    return z


def identity_slope(xp: Namespace, z: Array, a: Array) -> Array:
    return xp.ones_like(z)


def sigmoid(xp: Namespace, z: Array) -> Array:
    """1 / (1 + exp(-z)), in (0, 1): the logistic function.

    Examples
    --------
    >>> sigmoid(np, np.array([[0.0, -1000.0]]))
    array([[0.5, 0. ]])
    """
    # exp of -|z| never overflows, and small probabilities keep all their digits
    e = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, xp.ones_like(e), e) / (1 + e)


def sigmoid_slope(xp: Namespace, z: Array, a: Array) -> Array:
    return a * (1 - a)


def tanh(xp: Namespace, z: Array) -> Array:
    """The hyperbolic tangent, in (-1, 1).

    Examples
    --------
    >>> tanh(np, np.array([[0.0, 1000.0]]))
    array([[0., 1.]])
    """
    return xp.tanh(z)


def tanh_slope(xp: Namespace, z: Array, a: Array) -> Array:
    return 1 - a * a


def relu(xp: Namespace, z: Array) -> Array:
    """max(z, 0), with the slope 0 at 0.

    References
    ----------
    Nair & Hinton 2010, "Rectified linear units improve restricted Boltzmann machines"

    Examples
    --------
    >>> relu(np, np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """
    return xp.maximum(z, level(xp, z, 0.0))


def leaky_relu(leak: float = 0.01) -> Activation:
    """z above zero, leak * z below.

    Parameters
    ----------
    leak : float in [0, 1)

    References
    ----------
    Maas, Hannun & Ng 2013, "Rectifier nonlinearities improve neural network acoustic models"

    Examples
    --------
    >>> leaky_relu(0.1).f(np, np.array([[-1.0, 2.0]]))
    array([[-0.1,  2. ]])
    """
    leak = float(leak)
    if not 0 <= leak < 1:
        raise ValueError(f"leak must be in [0, 1); got {leak}")

    def f(xp: Namespace, z: Array) -> Array:
        return xp.maximum(z, leak * z)

    def slope(xp: Namespace, z: Array, a: Array) -> Array:
        return leak + (1 - leak) * above_zero(xp, z)

    return Activation(f, slope, f"leaky_relu:{leak}")


def elu(alpha: float = 1.0) -> Activation:
    """z above zero, alpha * (exp(z) - 1) below.

    Parameters
    ----------
    alpha : float above 0
        The limit far below zero is -alpha.

    References
    ----------
    Clevert, Unterthiner & Hochreiter 2016, "Fast and accurate deep network learning by
    exponential linear units (ELUs)"

    Examples
    --------
    >>> elu(0.5).f(np, np.array([[-100.0, 2.0]]))
    array([[-0.5,  2. ]])
    """
    alpha = float(alpha)
    positive(alpha=alpha)

    def f(xp: Namespace, z: Array) -> Array:
        zero = level(xp, z, 0.0)
        return xp.maximum(z, zero) + alpha * xp.expm1(xp.minimum(z, zero))

    def slope(xp: Namespace, z: Array, a: Array) -> Array:
        up = above_zero(xp, z)
        # below zero f' = alpha exp(z) = a + alpha; the minimum keeps a large a out of the product
        return up + (1 - up) * (xp.minimum(a, level(xp, a, 0.0)) + alpha)

    return Activation(f, slope, f"elu:{alpha}")


SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def selu(xp: Namespace, z: Array) -> Array:
    """1.0507 * elu(z) with alpha 1.6733, which keep mean 0 and variance 1 from layer to layer.

    References
    ----------
    Klambauer et al. 2017, "Self-normalizing neural networks"

    Examples
    --------
    >>> selu(np, np.array([[-100.0, 1.0]])).round(4)
    array([[-1.7581,  1.0507]])
    """
    zero = level(xp, z, 0.0)
    below = SELU_ALPHA * xp.expm1(xp.minimum(z, zero))
    return SELU_SCALE * (xp.maximum(z, zero) + below)


def selu_slope(xp: Namespace, z: Array, a: Array) -> Array:
    up = above_zero(xp, z)
    below = xp.minimum(a, level(xp, a, 0.0)) + SELU_SCALE * SELU_ALPHA
    return SELU_SCALE * up + (1 - up) * below


GELU_RATE = 2 * math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715
GELU_FAR = 9.9  # beyond it f is z or 0 to every digit, and exp overflows in float32


def gelu_parts(xp: Namespace, z: Array) -> tuple[Array, Array]:
    """z within +-GELU_FAR, and the share of z that gelu lets through."""
    near = xp.minimum(xp.maximum(z, level(xp, z, -GELU_FAR)), level(xp, z, GELU_FAR))
    return near, 1 / (1 + xp.exp(-GELU_RATE * near * (1 + GELU_CUBE * near * near)))


def gelu(xp: Namespace, z: Array) -> Array:
    """z * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 * z**3))) / 2.

    Close to z times the standard normal distribution function (the Array API has no erf).

    References
    ----------
    Hendrycks & Gimpel 2016, "Gaussian error linear units (GELUs)"

    Examples
    --------
    >>> gelu(np, np.array([[-1.0, 1.0]])).round(4)
    array([[-0.1588,  0.8412]])
    """
    # the tanh is written as an exponential: 1 + tanh loses its digits below zero
    _, share = gelu_parts(xp, z)
    return z * share


def gelu_slope(xp: Namespace, z: Array, a: Array) -> Array:
    near, share = gelu_parts(xp, z)
    bend = GELU_RATE * near * (1 + 3 * GELU_CUBE * near * near)
    return share + share * (1 - share) * bend


def silu(xp: Namespace, z: Array) -> Array:
    """z * sigmoid(z), also called swish.

    References
    ----------
    Elfwing, Uchibe & Doya 2018, "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning"

    Examples
    --------
    >>> silu(np, np.array([[-1.0, 1.0]])).round(4)
    array([[-0.2689,  0.7311]])
    """
    return z * sigmoid(xp, z)


def silu_slope(xp: Namespace, z: Array, a: Array) -> Array:
    s = sigmoid(xp, z)
    return s + a * (1 - s)


def softplus(xp: Namespace, z: Array) -> Array:
    """log(1 + exp(z)), above 0.

    References
    ----------
    Dugas et al. 2001, "Incorporating second-order functional knowledge for better option pricing"

    Examples
    --------
    >>> softplus(np, np.array([[0.0, 1.0]])).round(4)
    array([[0.6931, 1.3133]])
    """
    return xp.maximum(z, level(xp, z, 0.0)) + xp.log1p(xp.exp(-xp.abs(z)))


def mish(xp: Namespace, z: Array) -> Array:
    """z * tanh(softplus(z)).

    References
    ----------
    Misra 2020, "Mish: A self regularized non-monotonic activation function"

    Examples
    --------
    >>> mish(np, np.array([[-1.0, 1.0]])).round(4)
    array([[-0.3034,  0.8651]])
    """
    return z * xp.tanh(softplus(xp, z))


def mish_slope(xp: Namespace, z: Array, a: Array) -> Array:
    t = xp.tanh(softplus(xp, z))
    return t + z * (1 - t * t) * sigmoid(xp, z)


ACTIVATIONS = {
    "identity": Activation(identity, identity_slope, "identity"),
    "sigmoid": Activation(sigmoid, sigmoid_slope, "sigmoid"),
    "tanh": Activation(tanh, tanh_slope, "tanh"),
    "relu": Activation(relu, lambda xp, z, a: above_zero(xp, z), "relu"),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": Activation(selu, selu_slope, "selu"),
    "gelu": Activation(gelu, gelu_slope, "gelu"),
    "silu": Activation(silu, silu_slope, "silu"),
    "mish": Activation(mish, mish_slope, "mish"),
    "softplus": Activation(softplus, lambda xp, z, a: sigmoid(xp, z), "softplus"),
}


@lru_cache(1024)
def resolve(choice: str | Callable[..., Any]) -> Activation:
    if isinstance(choice, str):
        entry: Activation = lookup("activation", ACTIVATIONS, choice)
        return entry
    f, slope = split_pair("activation", "(a, slope)", "return xp.sin(z), xp.cos(z)", choice)
    return Activation(f, lambda xp, z, a: slope(xp, z))


def activation(choice: Any) -> Activation:
    """The Activation of a choice: by name, as a value or as a user's own function.

    Parameters
    ----------
    choice : str, Activation or function
        A name with its arguments after a colon, such as "relu" or "elu:0.5", or a function
        (xp, z) -> (a, slope): the value and, beside it, its derivative.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        For an unknown name or argument, naming those that are known.

    Examples
    --------
    >>> import numpy as np
    >>> sine = activation(lambda xp, z: (xp.sin(z), xp.cos(z)))
    >>> float(sine.slope(np, np.zeros((1, 1)), None)[0, 0])
    1.0
    """
    if isinstance(choice, Activation):
        # a name of the user's own is no word of the table
        return choice if is_ours(choice.f, choice.slope) else choice._replace(name=None)
    if not (isinstance(choice, str) or callable(choice)):
        raise ValueError(f"activation must be a name or a function (xp, z); got {choice!r}")
    return resolve(choice)
