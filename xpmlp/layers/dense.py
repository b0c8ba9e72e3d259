"""The dense layer: every neuron sees every input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, Self

from xpmlp.layers.layer import AnyActivation, Block, Layer, check_activation
from xpmlp.names import title, whole
from xpmlp.network import Trace, dense_backward, dense_forward
from xpmlp.shapes import LIST, PRODUCT, Line, Position, ShapeError, Upstream, many, written
from xpmlp.types import Array, Namespace


@dataclass(frozen=True)
class Dense(Layer):
    """z = x W + b, a = activation(z), then dropout.

    Parameters
    ----------
    n_in, n_out : int
        Neurons of the layer before and of this one, at least 1.
    activation : str, Activation or function, optional
        A name such as "relu" or "leaky_relu:0.1", or a function (xp, z) -> (a, slope). None is
        "identity".
    dropout : float in [0, 1)
        The probability that a neuron's output is dropped while training.

    References
    ----------
    Srivastava et al. 2014, "Dropout: A simple way to prevent neural networks from overfitting"

    Examples
    --------
    >>> import xpmlp
    >>> xpmlp.Spec.parse([Dense(2, 16, "relu", dropout=0.1), Dense(16, 1)]).parameters
    65
    """

    n_in: int
    n_out: int
    activation: AnyActivation = "identity"
    dropout: float = 0.0

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return (
            Block("weights", (self.n_in, self.n_out), "W", decay_factor=1.0),
            Block("bias", (1, self.n_out), "b"),
        )

    @property
    def activations(self) -> tuple[AnyActivation, ...]:
        return (self.activation,)

    @property
    def multiplications(self) -> int:
        return self.n_in * self.n_out

    def forward_rows(self, xp: Namespace, p: Any, x: Array, mask: Any, apply: Any) -> Any:
        return dense_forward(xp, self, p, x, mask, apply)

    def backward_rows(
        self, xp: Namespace, p: Any, trace: Trace, g: Array, grads: Any, apply: Any
    ) -> Callable[[], Array]:
        return dense_backward(xp, self, p, trace, g, grads, apply)

    def draw(self, rng: Any, weights: Callable[..., Any], bias: Callable[..., Any]) -> list[Any]:
        sizes = (self.n_in, self.n_out)
        return [weights(rng, self.activation, *sizes), bias(rng, *sizes)]

    def masks(self, draw: Callable[[float, int], Any]) -> Any:
        return draw(self.dropout, self.n_out)

    def kinks(self, xp: Namespace, trace: Trace) -> tuple[Array, ...]:
        return (trace.z,)

    def checked(self, number: int | str) -> Self:
        f = check_activation(self.activation, number)
        p: Any = self.dropout
        if isinstance(p, bool) or not isinstance(p, Real) or not 0 <= float(p) < 1:
            raise ValueError(f"dropout must be in [0, 1); layer {number} has {p!r}")
        return replace(self, activation=f, dropout=float(p), **check_sizes(self, number))

    def check_last(self, number: int, loss: Any, loss_name: str) -> None:
        if self.dropout:
            raise ValueError(
                f"layer {number} is the last and gives the result: its dropout must be 0"
            )
        if self.activation == "sigmoid" and loss.labels == "binary":
            raise ValueError(
                f"loss {loss_name!r} applies the sigmoid itself: the last layer's activation must "
                "be None"
            )

    def shape_error(
        self, at: Position, x: tuple[int, ...], shapes: Sequence[tuple[int, ...]] = ()
    ) -> ShapeError:
        weights = (shapes or self.shapes)[0]
        if len(x) < 2 or x[-1] == weights[-2]:
            return super().shape_error(at, x, shapes or self.shapes)
        line = self.forward_lines(at)[0]
        return ShapeError(
            f"{at.input} has {many(x[-1], 'column')} but W{at.label} has "
            f"{many(weights[-2], 'row')}: layer {at.label} computes {line.formula}, and "
            f"{written(x)} @ {written(weights)} does not align.{line.quoted}"
        )

    def forward_lines(self, at: Position) -> list[Line]:
        i, x, w = at.label, (*at.lead, at.rows, self.n_in), (*at.lead, self.n_in, self.n_out)
        z = (*at.lead, at.rows, self.n_out)
        after = f" * mask{i}" if self.dropout else ""
        return [
            Line(i, f"z{i} = {at.input} @ W{i} + b{i}", (x, w), PRODUCT, z, ""),
            Line(i, f"a{i} = {title(self.activation)}(z{i}){after}", (z,), LIST, z, ""),
        ]

    def backward_lines(self, at: Position, upstream: Upstream) -> tuple[list[Line], Upstream]:
        i, rows = at.label, at.rows
        w, bias = (*at.lead, self.n_in, self.n_out), (*at.lead, 1, self.n_out)
        d, x_shape = (*at.lead, rows, self.n_out), (*at.lead, self.n_in, rows)
        w_shape = (*at.lead, self.n_out, self.n_in)
        end = self.activation == "identity" and upstream.joined == LIST
        slope = ("" if end else f" * f'(z{i})") + (f" * mask{i}" if self.dropout else "")
        lines = [
            upstream.line(i, f"d{i}", d, f"z{i}", slope),
            Line(i, f"dW{i} = {at.input}.T @ d{i}", (x_shape, d), PRODUCT, w, f"W{i}"),
            Line(i, f"db{i} = sum of d{i} over its rows", (d,), LIST, bias, f"b{i}"),
        ]
        return lines, Upstream(f"d{i} @ W{i}.T", (d, w_shape), PRODUCT)

    @property
    def title(self) -> str:
        return title(self.activation)


def check_sizes(layer: Any, number: int | str) -> dict[str, int]:
    """The sizes of a layer's neurons as ints; ValueError naming the layer."""
    sizes = {"n_in": whole(layer.n_in, f"layer {number}'s input size")}
    return sizes | {"n_out": whole(layer.n_out, f"layer {number}'s size")}
