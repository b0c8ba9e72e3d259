"""Layers that give as many columns as they are given: scaling, parametric activations, layer
normalization."""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

from xpmlp.activations import activation
from xpmlp.layers.layer import AnyActivation, Block, Layer, check_activation
from xpmlp.names import title, whole
from xpmlp.types import Array, Namespace


class Columnwise(Layer):
    """A layer that gives as many columns as it is given."""

    n_in: int

    @property
    def n_out(self) -> int:
        return self.n_in

    def row(self, name: str, symbol: str, start: float, **more: float) -> Block:
        """A block of one number for each column."""
        return Block(name, (1, self.n_in), symbol, start, **more)

    def checked(self, number: int | str) -> Self:
        size = whole(self.n_in, f"layer {number}'s input size")
        return replace(self, n_in=size)  # type: ignore[type-var]


def over_rows(xp: Namespace, values: Array) -> Array:
    return xp.sum(values, axis=-2, keepdims=True)


@dataclass(frozen=True)
class Scale(Columnwise):
    """y = x * scale, with a learned factor for each column, 1 at first.

    Parameters
    ----------
    n_in : int
        Columns.
    rate_factor : float at least 0
        Factor on the learning rate of scale (RealMLP has 6).

    References
    ----------
    Holzmueller, Grinsztajn & Steinwart 2024, "Better by default: Strong pre-tuned MLPs and boosted
    trees on tabular data"

    Examples
    --------
    >>> Scale(2).forward(np, np.ones((1, 2)), np.array([[1.0, 3.0]]))
    array([[1., 3.]])
    """

    n_in: int
    rate_factor: float = 1.0

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.row("scale", "s", 1.0, rate_factor=self.rate_factor),)

    def forward(self, xp: Namespace, x: Array, scale: Array) -> Array:
        return x * scale

    def backward(self, xp: Namespace, x: Array, y: Array, g: Array, scale: Array) -> Any:
        return g * scale, over_rows(xp, g * x)

    def checked(self, number: int | str) -> Self:
        check_rate(self.rate_factor, number)
        return replace(super().checked(number), rate_factor=float(self.rate_factor))


def check_rate(rate_factor: Any, number: int | str) -> None:
    number_like = isinstance(rate_factor, Real) and not isinstance(rate_factor, bool)
    if not number_like or not 0 <= rate_factor < math.inf:
        raise ValueError(
            f"rate_factor must be at least 0 and finite; layer {number} has {rate_factor!r}"
        )


@dataclass(frozen=True)
class PReLU(Columnwise):
    """y = x above zero, alpha * x below, with a learned alpha for each column, 0.25 at first.

    Parameters
    ----------
    n_in : int
        Columns.

    References
    ----------
    He et al. 2015, "Delving deep into rectifiers: Surpassing human-level performance on ImageNet
    classification"

    Examples
    --------
    >>> PReLU(2).forward(np, np.array([[-1.0, 2.0]]), np.array([[0.25, 0.25]]))
    array([[-0.25,  2.  ]])
    """

    n_in: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.row("alpha", "alpha", 0.25),)

    def forward(self, xp: Namespace, x: Array, alpha: Array) -> Array:
        return xp.where(x > 0, x, alpha * x)

    def backward(self, xp: Namespace, x: Array, y: Array, g: Array, alpha: Array) -> Any:
        dx = xp.where(x > 0, g, alpha * g)
        return dx, over_rows(xp, xp.where(x > 0, xp.zeros_like(g), g * x))

    def kinks(self, xp: Namespace, trace: Any) -> tuple[Array, ...]:
        return (trace.x,)


@dataclass(frozen=True)
class Parametric(Columnwise):
    """y = x + alpha * (f(x) - x), with a learned alpha for each column, 1 at first.

    It is between none of an activation and all of it.

    Parameters
    ----------
    n_in : int
        Columns.
    activation : str, Activation or function
        f.
    rate_factor : float at least 0
        Factor on the learning rate of alpha.

    References
    ----------
    Holzmueller, Grinsztajn & Steinwart 2024, "Better by default: Strong pre-tuned MLPs and boosted
    trees on tabular data"

    Examples
    --------
    >>> Parametric(2, "relu").forward(np, np.array([[-1.0, 2.0]]), np.array([[0.5, 0.5]]))
    array([[-0.5,  2. ]])
    """

    n_in: int
    activation: AnyActivation = "relu"
    rate_factor: float = 1.0

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.row("alpha", "alpha", 1.0, rate_factor=self.rate_factor),)

    @property
    def activations(self) -> tuple[AnyActivation, ...]:
        return (self.activation,)

    def forward(self, xp: Namespace, x: Array, alpha: Array) -> Array:
        return x + alpha * (activation(self.activation).f(xp, x) - x)

    def backward(self, xp: Namespace, x: Array, y: Array, g: Array, alpha: Array) -> Any:
        f = activation(self.activation)
        a = f.f(xp, x)
        dx = g * (1 + alpha * (f.slope(xp, x, a) - 1))
        return dx, over_rows(xp, g * (a - x))

    def kinks(self, xp: Namespace, trace: Any) -> tuple[Array, ...]:
        return (trace.x,)

    def checked(self, number: int | str) -> Self:
        check_rate(self.rate_factor, number)
        f = check_activation(self.activation, number)
        return replace(super().checked(number), activation=f, rate_factor=float(self.rate_factor))

    @property
    def title(self) -> str:
        return f"parametric {title(self.activation)}"


EPS = 1e-5  # of the variance, as PyTorch has it


@dataclass(frozen=True)
class Normalize(Columnwise):
    """y = (x - mean) / sqrt(variance + 1e-5) * gain + bias: layer normalization.

    Mean and variance are those of each row over its columns; gain and bias, 1 and 0 at first, are
    learned for each column.

    Parameters
    ----------
    n_in : int
        Columns, at least 2.

    References
    ----------
    Ba, Kiros & Hinton 2016, "Layer normalization"

    Examples
    --------
    >>> gain, bias = np.ones((1, 2)), np.zeros((1, 2))
    >>> Normalize(2).forward(np, np.array([[1.0, 3.0]]), gain, bias).round(4)
    array([[-1.,  1.]])
    """

    n_in: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self.row("gain", "gain", 1.0), self.row("bias", "b", 0.0))

    def forward(self, xp: Namespace, x: Array, gain: Array, bias: Array) -> Array:
        return self.normal(xp, x)[0] * gain + bias

    def backward(
        self, xp: Namespace, x: Array, y: Array, g: Array, gain: Array, bias: Array
    ) -> Any:
        normal, deviation = self.normal(xp, x)
        d = g * gain
        centered = d - self.mean(xp, d) - normal * self.mean(xp, d * normal)
        return centered / deviation, over_rows(xp, g * normal), over_rows(xp, g)

    def kinks(self, xp: Namespace, trace: Any) -> tuple[Array, ...]:
        """Deviations: near 0 the formula bends as if it had a kink."""
        return (self.normal(xp, trace.x)[1],)

    def mean(self, xp: Namespace, x: Array) -> Array:
        return xp.sum(x, axis=-1, keepdims=True) / self.n_in

    def normal(self, xp: Namespace, x: Array) -> tuple[Array, Array]:
        """x with mean 0 and variance 1 in each row, and each row's deviation."""
        centered = x - self.mean(xp, x)
        deviation = xp.sqrt(self.mean(xp, centered * centered) + EPS)
        return centered / deviation, deviation

    def checked(self, number: int | str) -> Self:
        if whole(self.n_in, f"layer {number}'s input size") < 2:
            raise ValueError(f"layer {number} normalizes one column, which leaves nothing of it")
        return super().checked(number)
