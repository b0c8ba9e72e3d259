"""A network as frozen data: layers and loss. No arrays, no randomness, no device."""

import json
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, TypeGuard

from xpmlp.core.activations import Activation, activation
from xpmlp.core.losses import Loss, loss
from xpmlp.core.names import title

AnyActivation = str | Activation | Callable[..., Any] | None
AnyLoss = str | Loss | Callable[..., Any]


@dataclass(frozen=True)
class Layer:
    """z = x W + b, a = activation(z), then dropout.

    n_in, n_out: neurons of the layer before and of this one, at least 1.
    activation: a name such as "relu" or "leaky_relu:0.1", an `Activation`, or a function
        (xp, z) -> (a, slope). None is "identity".
    dropout: the probability in [0, 1) that a neuron's output is dropped while training.
    """

    n_in: int
    n_out: int
    activation: AnyActivation = "identity"
    dropout: float = 0.0

    @cached_property
    def shapes(self) -> tuple[tuple[int], tuple[int, int], tuple[int, int]]:
        """The ends of the shapes of what goes in: rows x, weights, bias."""
        return (self.n_in,), (self.n_in, self.n_out), (1, self.n_out)


@dataclass(frozen=True)
class Spec:
    """Layers and loss of a multi-layer perceptron.

    >>> spec = Spec.parse("2-16-16-1", activation="tanh")
    >>> spec.sizes, spec.parameters
    ((2, 16, 16, 1), 337)
    """

    layers: tuple[Layer, ...]
    loss: AnyLoss = "squared_error"

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a network needs at least one layer; got none")
        checked = tuple(check(number, layer) for number, layer in enumerate(self.layers, 1))
        object.__setattr__(self, "layers", checked)
        object.__setattr__(self, "loss", loss(self.loss).name or self.loss)
        for number, (before, layer) in enumerate(pairwise(checked), 2):
            if before.n_out != layer.n_in:
                raise ValueError(
                    f"layer {number} takes {layer.n_in} inputs, but layer {number - 1} "
                    f"has {before.n_out} neurons"
                )
        check_end(checked[-1], len(checked), self.loss)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer, inputs first."""
        return (self.layers[0].n_in, *(layer.n_out for layer in self.layers))

    @property
    def n_in(self) -> int:
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        return self.layers[-1].n_out

    @property
    def parameters(self) -> int:
        """How many weights and biases there are."""
        return sum((layer.n_in + 1) * layer.n_out for layer in self.layers)

    @classmethod
    def parse(
        cls,
        text: Any,
        *,
        activation: AnyActivation | Sequence[AnyActivation] = "relu",
        dropout: float | Sequence[float] = 0.0,
        loss: AnyLoss | None = None,
    ) -> Self:
        """The network that `text` writes.

        text: "2-16-16-1", "2,16,16,1", the sizes as a list, a Spec, or a list of layers
            [size, input_size, activation] or [size, input_size, activation, dropout], where
            an input_size of None is the layer before and an activation of None the identity.
        activation, dropout: of the hidden layers of the first three forms, one for all or one
            per hidden layer; one entry more gives the last layer's activation too.
        loss: None means "squared_error", or a given Spec's own.

        >>> Spec.parse([[3, 1, None], [2, None, "sigmoid"], [1, None, None]]).sizes
        (1, 3, 2, 1)
        """
        if isinstance(text, Spec):
            refuse_extras(text, activation, dropout)
            return replace(text, loss=text.loss if loss is None else loss)  # type: ignore[return-value]
        rows = text
        if isinstance(text, str):
            rows = [piece.strip() for piece in text.replace(",", "-").split("-")]
        if not isinstance(rows, Iterable) or not (rows := list(rows)):
            raise ValueError(f'a network is written "2-16-16-1" or as a list; got {text!r}')
        if isinstance(rows[0], Layer | Sequence) and not isinstance(rows[0], str):
            refuse_extras(text, activation, dropout)
            layers = rows if isinstance(rows[0], Layer) else from_lists(rows)
        else:
            layers = from_sizes([whole(size, "a layer's size") for size in rows], text)
            layers = dressed(layers, activation, dropout)
        return cls(tuple(layers), "squared_error" if loss is None else loss)

    def to_json(self) -> str:
        """The network as JSON; ValueError where it holds a function of the user's own."""
        for number, layer in enumerate(self.layers, 1):
            if not isinstance(layer.activation, str):
                raise ValueError(stored(f"layer {number}'s activation", layer.activation))
        if not isinstance(self.loss, str):
            raise ValueError(stored("the loss", self.loss))
        rows = [[y.n_out, y.n_in, y.activation, y.dropout] for y in self.layers]
        return json.dumps({"layers": rows, "loss": self.loss})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The network that `to_json` wrote; ValueError for anything else."""
        data = json.loads(text)
        if not isinstance(data, dict) or set(data) != {"layers", "loss"}:
            raise ValueError(f"not a network's JSON: {text[:80]!r}")
        return cls.parse(data["layers"], loss=data["loss"])

    def __str__(self) -> str:
        return "-".join(map(str, self.sizes))


def stored(what: str, function: object) -> str:
    return f"{what} is your own function {title(function)}, which a file cannot hold"


def whole(value: Any, what: str) -> int:
    """`value` as an int of at least 1; ValueError naming `what` otherwise."""
    try:
        plain: Any = None if isinstance(value, bool) else value
        number = int(value) if isinstance(value, str) else operator.index(plain)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a whole number; got {value!r}") from None
    if number < 1:
        raise ValueError(f"{what} must be at least 1; got {value!r}")
    return number


def check(number: int, layer: Layer) -> Layer:
    """`layer` with canonical values; ValueError naming the layer otherwise."""
    if not isinstance(layer, Layer):
        raise TypeError(f"layer {number} must be a Layer, got {layer!r}: Spec.parse reads sizes")
    asked = "identity" if layer.activation is None else layer.activation
    try:
        name = activation(asked).name
    except ValueError as error:
        raise ValueError(f"layer {number}: {error}") from None
    p = layer.dropout
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise ValueError(f"dropout must be in [0, 1); layer {number} has {p!r}")
    n_in = whole(layer.n_in, f"layer {number}'s input size")
    n_out = whole(layer.n_out, f"layer {number}'s size")
    return Layer(n_in, n_out, name or asked, float(p))


def check_end(last: Layer, number: int, asked: AnyLoss) -> None:
    """ValueError where the last layer and the loss contradict each other."""
    end = loss(asked)
    called = title(asked)
    if last.dropout:
        raise ValueError(f"layer {number} is the last and gives the result: its dropout must be 0")
    if last.activation == "sigmoid" and end.labels == "binary":
        raise ValueError(
            f"loss {called!r} applies the sigmoid itself: the last layer's activation must be None"
        )
    if end.labels == "classes" and last.n_out < 2:
        raise ValueError(
            f"loss {called!r} needs one neuron per class, at least 2; the last layer has "
            f"{last.n_out}. For one neuron and two classes use 'binary_cross_entropy'"
        )
    if end.levels and last.n_out != end.levels:
        raise ValueError(
            f"loss {called!r} needs one neuron per quantile, {end.levels}; "
            f"the last layer has {last.n_out}"
        )


def refuse_extras(text: object, activation: object, dropout: object) -> None:
    """ValueError where activation or dropout would be overlooked: the layers have their own."""
    if not (isinstance(activation, str) and activation == "relu") or dropout != 0.0:
        raise ValueError(f"activation and dropout belong into the layers of {text!r} themselves")


def from_sizes(sizes: list[int], text: object) -> list[Layer]:
    if len(sizes) < 2:
        raise ValueError(f'a network needs inputs and outputs, such as "2-16-1"; got {text!r}')
    return [Layer(n_in, n_out) for n_in, n_out in pairwise(sizes)]


def from_lists(rows: Sequence[Any]) -> list[Layer]:
    """Layers written [size, input_size, activation] or with a dropout as fourth."""
    layers: list[Layer] = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Sequence) or not 2 <= len(row) <= 4:
            raise ValueError(
                f"layer {number} must be [size, input_size, activation], with dropout as an "
                f"optional fourth; got {row!r}"
            )
        n_out, n_in, *rest = row
        if n_in is None and not layers:
            raise ValueError("layer 1 needs its input size: no layer stands before it")
        layers.append(Layer(layers[-1].n_out if n_in is None else n_in, n_out, *rest))
    return layers


def is_listed(asked: Any) -> TypeGuard[Sequence[Any]]:
    """Whether there is one activation per layer; an Activation is a tuple, but it is one."""
    return isinstance(asked, Sequence) and not isinstance(asked, str | Activation)


def dressed(
    layers: list[Layer],
    asked: AnyActivation | Sequence[AnyActivation],
    dropout: float | Sequence[float],
) -> list[Layer]:
    """`layers` with activations and dropouts, one for all hidden layers or one for each."""
    hidden = len(layers) - 1
    chosen: list[Any] = list(asked) if is_listed(asked) else [asked] * hidden
    rates: list[Any] = list(dropout) if is_listed(dropout) else [dropout] * hidden
    if len(chosen) not in (hidden, hidden + 1):
        raise ValueError(f"give one activation per hidden layer, {hidden}; got {len(chosen)}")
    if len(rates) not in (hidden, hidden + 1):
        raise ValueError(f"give one dropout per hidden layer, {hidden}; got {len(rates)}")
    chosen += ["identity"] * (len(layers) - len(chosen))
    rates += [0.0] * (len(layers) - len(rates))
    return [
        replace(layer, activation=f, dropout=p)
        for layer, f, p in zip(layers, chosen, rates, strict=True)
    ]
