"""What a layer is: blocks of parameters, forward and backward, and all that follows from them."""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xpmlp.activations import Activation, activation
from xpmlp.shapes import LIST, Line, Position, ShapeError, Upstream, written
from xpmlp.types import Array, Namespace

Own = Callable[[str, Any], Any]  # of what something is and its value
AnyActivation = str | Activation | Callable[..., Any] | None


class Block(NamedTuple):
    """One array of a layer's parameters.

    Parameters
    ----------
    name : str
        What it is called in a file, such as "weights".
    shape : tuple of int
        Of one network, two axes or more; leading axes of its own are shared by no other block.
    symbol : str
        What it is called in the ledger, such as "W".
    start : float
        What it is filled with at first, where the kind draws nothing.
    decay_factor : float
        Factor on weight decay and on penalties; 0 is neither.
    rate_factor : float
        Factor on the learning rate.

    Attributes
    ----------
    stored

    Examples
    --------
    >>> Block("scale", (1, 8), "s", start=1.0).stored
    (8,)
    """

    name: str
    shape: tuple[int, ...]
    symbol: str
    start: float = 0.0
    decay_factor: float = 0.0
    rate_factor: float = 1.0

    @property
    def stored(self) -> tuple[int, ...]:
        """Its shape in a file: a row of numbers is stored without its first axis."""
        return self.shape[1:] if self.shape[0] == 1 and len(self.shape) > 1 else self.shape


class LayerTrace(NamedTuple):
    """What a layer remembers of the forward pass, unless its kind remembers more."""

    x: Array  # (..., B, n_in)
    y: Array  # (..., B, n_out)


def run(xp: Namespace, layer: "Layer", x: Array, *blocks: Array) -> Array:
    return layer.forward(xp, x, *blocks)


def run_back(xp: Namespace, layer: "Layer", x: Array, y: Array, g: Array, *blocks: Array) -> Any:
    return layer.backward(xp, x, y, g, *blocks)


@lru_cache(256)
def parameters_type(kind: str, names: tuple[str, ...]) -> Callable[..., Any]:
    """What holds the arrays of a layer, by the names of its blocks."""
    return namedtuple(kind, names)


class Layer:
    """A kind of layers: what a frozen dataclass inherits, and may say otherwise.

    `forward` and `backward` are a kind's formulas. Whoever trains calls `run_forward` and
    `run_backward`, which call `forward_rows` and `backward_rows`: a kind overrides those where it
    remembers more than x and y, or can leave work undone. `xpmlp.layers` shows a kind of one's own.

    Attributes
    ----------
    n_in, n_out : int
        Columns that it is given and that it gives: fields of the dataclass, or properties.
    blocks
    activations
    multiplications
    """

    if TYPE_CHECKING:  # a field or a property

        @property
        def n_in(self) -> int: ...

        @property
        def n_out(self) -> int: ...

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The arrays of its parameters, in order."""
        return ()

    @property
    def activations(self) -> tuple[AnyActivation, ...]:
        """The activations in it, which may be a user's own."""
        return ()

    @property
    def multiplications(self) -> int:
        """Of the products of one row in the forward pass."""
        return 0

    def forward(self, xp: Namespace, x: Array, *blocks: Array) -> Array:
        """The layer's formula.

        Parameters
        ----------
        xp : namespace
        x : array of shape (..., B, n_in)
        *blocks : arrays of shape (..., *block.shape)

        Returns
        -------
        array of shape (..., B, n_out)
        """
        raise NotImplementedError

    def backward(self, xp: Namespace, x: Array, y: Array, g: Array, *blocks: Array) -> Any:
        """Its derivatives.

        Parameters
        ----------
        xp : namespace
        x : array of shape (..., B, n_in)
        y : array of shape (..., B, n_out)
            What `forward` gave.
        g : array of shape (..., B, n_out)
            dL/dy.
        *blocks : arrays of shape (..., *block.shape)

        Returns
        -------
        tuple of arrays
            dL/dx, then dL/dblock of each block, shaped like x and the blocks.
        """
        raise NotImplementedError

    # what the loop calls

    def run_forward(self, xp: Namespace, p: Any, x: Array, mask: Any, apply: Any) -> Any:
        """A trace with the fields x and y."""
        rows = as_rows(xp, x, p, apply)
        trace = self.forward_rows(xp, p, rows, mask, apply)
        if rows is x:
            return trace
        return trace._replace(y=apply(reshaped, xp, trace.y, (*x.shape[:-1], -1)))

    def run_backward(
        self, xp: Namespace, p: Any, trace: Any, g: Array, grads: Any, apply: Any
    ) -> Callable[[], Array]:
        """Write the gradients of the blocks over grads; what is returned gives dL/dx."""
        rows = as_rows(xp, g, p, apply)
        if rows is g:
            return self.backward_rows(xp, p, trace, g, grads, apply)
        trace = trace._replace(y=as_rows(xp, trace.y, p, apply))
        input_gradient = self.backward_rows(xp, p, trace, rows, grads, apply)
        return lambda: apply(reshaped, xp, input_gradient(), (*g.shape[:-1], -1))

    def forward_rows(self, xp: Namespace, p: Any, x: Array, mask: Any, apply: Any) -> Any:
        """`run_forward` of rows that have no axes but those of p."""
        return LayerTrace(x, apply(run, xp, self, x, *p))

    def backward_rows(
        self, xp: Namespace, p: Any, trace: Any, g: Array, grads: Any, apply: Any
    ) -> Callable[[], Array]:
        """`run_backward` of such rows."""
        values = apply(run_back, xp, self, trace.x, trace.y, g, *p)
        dx, *gradients = values if isinstance(values, tuple) else (values,)
        for place, gradient in zip(grads, gradients, strict=True):
            place[...] = gradient
        return lambda: dx

    # parameters

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(block.shape for block in self.blocks)

    @property
    def block_names(self) -> tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    def pack(self, arrays: Iterator[Array]) -> Any:
        """The next of the arrays as the parameters that `run_forward` takes, by their names."""
        names = self.block_names
        return parameters_type(type(self).__name__, names)(*islice(arrays, len(names)))

    def unpack(self, p: Any) -> tuple[Array, ...]:
        """The arrays of `pack`."""
        return tuple(p)

    def draw(self, rng: Any, weights: Callable[..., Any], bias: Callable[..., Any]) -> list[Any]:
        """Initial values of the blocks, each an array or one number.

        weights(rng, activation, n_in, n_out), bias(rng, n_in, n_out): the initializers, of
        NumPy's generator rng.
        """
        return [block.start for block in self.blocks]

    def masks(self, draw: Callable[[float, int], Any]) -> Any:
        """Its dropout masks, by draw(probability, neurons)."""
        return None

    def kinks(self, xp: Namespace, trace: Any) -> tuple[Array, ...]:
        """Arrays that a gradient check keeps away from 0, where the formula may have a kink."""
        return ()

    # checks

    def checked(self, number: int | str) -> Self:
        """This layer with canonical values; ValueError naming the layer otherwise."""
        return self

    def check_last(self, number: int, loss: Any, loss_name: str) -> None:
        """ValueError where this layer, as the last, and the loss contradict each other."""

    @property
    def input_multiplications(self) -> int:
        """Of the product that gives dL/dx, of one row: the first layer leaves it out."""
        return self.multiplications

    def fits(self, x: Array, p: Any) -> bool:
        ends = tuple(array.shape[-len(s) :] for array, s in zip(p, self.shapes, strict=True))
        return x.ndim >= 2 and x.shape[-1] == self.n_in and ends == self.shapes

    def check_shapes(self, number: int, x: Array, p: Any) -> None:
        """ShapeError where the rows x or the parameters p are not this layer's."""
        if not self.fits(x, p):
            name = "x" if number == 1 else f"a{number - 1}"
            shapes = [tuple(array.shape) for array in self.unpack(p)]
            raise self.shape_error(Position(number, name, "B"), tuple(x.shape), shapes)

    def shape_error(
        self, at: Position, x: tuple[int, ...], shapes: Sequence[tuple[int, ...]] = ()
    ) -> ShapeError:
        """Why rows of shape x do not go through blocks of these shapes, with the ledger's line."""
        line = self.forward_lines(at)[0]
        computes = f"layer {at.label} computes {line.formula}"
        problem = f"{at.input} is {written(x)} but must be rows (B, {self.n_in})"
        if len(x) >= 2 and x[-1] == self.n_in:
            pairs = zip(self.blocks, shapes, strict=True)
            block, shape = next((b, s) for b, s in pairs if s[-len(b.shape) :] != b.shape)
            problem = (
                f"{block.symbol}{at.label} is {written(shape)} but must be {written(block.shape)}"
            )
        return ShapeError(f"{problem}: {computes}.{line.quoted}")

    # the ledger

    def forward_lines(self, at: Position) -> list[Line]:
        """Its formulas of the forward pass; the last one gives a."""
        shapes = ((*at.lead, at.rows, self.n_in), *((*at.lead, *s) for s in self.shapes))
        names = ", ".join([at.input, *(f"{block.symbol}{at.label}" for block in self.blocks)])
        formula = f"a{at.label} = {self.title}({names})"
        result = (*at.lead, at.rows, self.n_out)
        return [Line(at.label, formula, shapes, LIST, result, "")]

    def backward_lines(self, at: Position, upstream: Upstream) -> tuple[list[Line], Upstream]:
        """Its formulas of the backward pass, and where the layer below goes on."""
        y, x = (*at.lead, at.rows, self.n_out), (*at.lead, at.rows, self.n_in)
        g, below = f"g{at.label}", f"{self.title}'({at.input})"
        lines = [upstream.line(at.label, g, y, f"a{at.label}")]
        for block in self.blocks:
            name, shape = f"{block.symbol}{at.label}", (*at.lead, *block.shape)
            formula = f"d{name} = sum of {g} * d{self.title}/d{name} over its rows"
            lines.append(Line(at.label, formula, (y, x), LIST, shape, name))
        return lines, Upstream(f"{g} * {below}", (y, x), LIST)

    @property
    def title(self) -> str:
        """What a ledger calls it."""
        return type(self).__name__.lower()

    # files

    def fields(self, number: int | str, own: Own) -> dict[str, Any]:
        """What a file holds of it, as JSON has it. own: what stands there for a user's function."""
        values = {"kind": type(self).__name__}
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            plain = value is None or isinstance(value, int | float | str)
            values[entry.name] = value if plain else own(f"layer {number}'s {entry.name}", value)
        return values

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Self:
        """The layer of these fields; an error of any kind for others."""
        return cls(**values)


def as_rows(xp: Namespace, x: Array, p: Sequence[Array], apply: Any) -> Array:
    """x (..., k, B, n) as (..., k B, n) where no parameter has the axis k: all share them."""
    axes = max([array.ndim for array in p], default=x.ndim)
    if x.ndim <= axes:
        return x
    return apply(reshaped, xp, x, (*x.shape[: axes - 2], -1, x.shape[-1]))


def reshaped(xp: Namespace, x: Array, shape: tuple[int, ...]) -> Array:
    return xp.reshape(x, shape)


def is_built_in(kind: type[Layer]) -> bool:
    """Whether a kind is this library's own."""
    return kind.__module__.startswith("xpmlp.")


def check_activation(choice: AnyActivation, number: int | str) -> AnyActivation:
    """The name of an activation, or a user's own; ValueError naming the layer."""
    choice = "identity" if choice is None else choice
    try:
        return activation(choice).name or choice
    except ValueError as error:
        raise ValueError(f"layer {number}: {error}") from None
