"""The residual block: what its layers answer is added to what they were given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from xpmlp.layers.layer import AnyActivation, Block, Layer
from xpmlp.layers.stack import Stack, chained, layer_fields, layer_from
from xpmlp.network import backward, forward
from xpmlp.shapes import LIST, Line, Position, Upstream
from xpmlp.types import Array, Namespace


@dataclass(frozen=True)
class Residual(Stack, Layer):
    """y = x + what the layers make of x.

    Parameters
    ----------
    layers : sequence of Layer
        Of which the last gives as many columns as the first is given.

    References
    ----------
    He et al. 2016, "Deep residual learning for image recognition"

    Examples
    --------
    >>> import xpmlp
    >>> from xpmlp.layers import Dense
    >>> spec = xpmlp.Spec.parse([Residual((Dense(4, 8, "tanh"), Dense(8, 4))), Dense(4, 1)])
    >>> xpmlp.gradcheck(spec).passed
    True
    """

    layers: tuple[Layer, ...]

    @property
    def n_in(self) -> int:
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        return self.layers[-1].n_out

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(
            block._replace(name=f"layers.{i}.{block.name}", symbol=f"{block.symbol}{i + 1}of")
            for i, layer in enumerate(self.layers)
            for block in layer.blocks
        )

    @property
    def activations(self) -> tuple[AnyActivation, ...]:
        return tuple(choice for layer in self.layers for choice in layer.activations)

    @property
    def multiplications(self) -> int:
        return sum(layer.multiplications for layer in self.layers)

    @property
    def input_multiplications(self) -> int:
        return self.layers[0].input_multiplications

    def run_forward(self, xp: Namespace, p: Any, x: Array, mask: Any, apply: Any) -> Any:
        traces = forward(xp, self, p, x, mask or (), apply=apply)
        return ResidualTrace(x, apply(added, xp, x, traces[-1].y), traces)

    def run_backward(
        self, xp: Namespace, p: Any, trace: Any, g: Array, grads: Any, apply: Any
    ) -> Callable[[], Array]:
        input_gradient = backward(xp, self, p, trace.traces, g, grads, apply=apply)
        return lambda: apply(added, xp, g, input_gradient())

    def pack(self, arrays: Iterator[Array]) -> Any:
        return tuple(layer.pack(arrays) for layer in self.layers)

    def unpack(self, p: Any) -> tuple[Array, ...]:
        pairs = zip(self.layers, p, strict=True)
        return tuple(array for layer, own in pairs for array in layer.unpack(own))

    def draw(self, rng: Any, weights: Callable[..., Any], bias: Callable[..., Any]) -> list[Any]:
        return [one for layer in self.layers for one in layer.draw(rng, weights, bias)]

    def masks(self, draw: Callable[[float, int], Any]) -> Any:
        values = tuple(layer.masks(draw) for layer in self.layers)
        return values if any(one is not None for one in values) else None

    def kinks(self, xp: Namespace, trace: Any) -> tuple[Array, ...]:
        pairs = zip(self.layers, trace.traces, strict=True)
        return tuple(one for layer, own in pairs for one in layer.kinks(xp, own))

    def checked(self, number: int | str) -> Self:
        if not isinstance(self.layers, Sequence) or not self.layers:
            raise ValueError(f"layer {number} needs a tuple of layers; got {self.layers!r}")
        layers = chained(self.layers, f"{number}.")
        if layers[0].n_in != layers[-1].n_out:
            raise ValueError(
                f"layer {number} adds {layers[-1].n_out} columns to the {layers[0].n_in} that it "
                "is given: its last layer must give as many"
            )
        return replace(self, layers=layers)

    def fits(self, x: Array, p: Any) -> bool:
        return bool(x.ndim >= 2 and x.shape[-1] == self.n_in)

    def forward_lines(self, at: Position) -> list[Line]:
        lines, place = [], at
        for i, layer in enumerate(self.layers, 1):
            place = place._replace(label=f"{at.label}.{i}")
            lines += layer.forward_lines(place)
            place = place._replace(input=f"a{at.label}.{i}")
        shape = (*at.lead, at.rows, self.n_out)
        formula = f"a{at.label} = {at.input} + {place.input}"
        return [*lines, Line(at.label, formula, (shape, shape), LIST, shape, "")]

    def backward_lines(self, at: Position, upstream: Upstream) -> tuple[list[Line], Upstream]:
        shape, g = (*at.lead, at.rows, self.n_out), f"g{at.label}"
        lines = [upstream.line(at.label, g, shape, f"a{at.label}")]
        inner = Upstream(g, (shape,), LIST)
        for i, layer in reversed(list(enumerate(self.layers, 1))):
            name = at.input if i == 1 else f"a{at.label}.{i - 1}"
            layer_lines, inner = layer.backward_lines(
                at._replace(label=f"{at.label}.{i}", input=name), inner
            )
            lines += layer_lines
        return lines, inner._replace(formula=f"({g} + {inner.formula})")

    def fields(self, number: int | str, own: Any) -> dict[str, Any]:
        return {"kind": "Residual", "layers": layer_fields(self.layers, own, f"{number}.")}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Self:
        if set(values) != {"layers"} or not isinstance(values["layers"], list):
            raise ValueError("a residual block has layers and nothing else")
        return cls(tuple(map(layer_from, values["layers"])))

    def __str__(self) -> str:
        return "-".join(map(str, (self.n_in, *(layer.n_out for layer in self.layers))))


class ResidualTrace(NamedTuple):
    x: Array
    y: Array
    traces: list[Any]  # of its layers


def added(xp: Namespace, x: Array, y: Array) -> Array:
    return x + y
