"""A network as frozen data: layers and loss. No arrays, no randomness, no device."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, Self, TypeGuard

from xpmlp.activations import Activation
from xpmlp.layers import Dense
from xpmlp.layers.layer import AnyActivation, Block, Layer
from xpmlp.layers.stack import Stack, chained, layer_fields, layer_from, refuse_own
from xpmlp.losses import Loss, loss
from xpmlp.names import title, whole

AnyLoss = str | Loss | Callable[..., Any]


@dataclass(frozen=True)
class Spec(Stack):
    """Layers and loss of a multi-layer perceptron, as frozen data; `parse` reads short forms.

    Parameters
    ----------
    layers : sequence of Layer
        At least one; each takes as many columns as the one before gives (see `xpmlp.layers`).
    loss : str, Loss or function
        As for `train`.

    Attributes
    ----------
    sizes
    blocks
    n_in : int
        Columns of the rows.
    n_out : int
        Columns of the score, what the last layer gives.
    parameters

    Raises
    ------
    TypeError
        For what is no Layer.
    ValueError
        Naming the layer that is wrong, that does not fit the one before, or that the loss refuses.

    Examples
    --------
    >>> spec = Spec.parse("2-16-16-1", activation="tanh")
    >>> spec.sizes, spec.parameters
    ((2, 16, 16, 1), 337)
    """

    layers: tuple[Layer, ...]
    loss: AnyLoss = "squared_error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", chained(self.layers))
        object.__setattr__(self, "loss", loss(self.loss).name or self.loss)
        check_end(self.layers[-1], len(self.layers), self.loss)
        if not self.blocks:
            raise ValueError("a network needs a layer with parameters to learn; none has any")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer, inputs first."""
        return (self.layers[0].n_in, *(layer.n_out for layer in self.layers))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The parameters' blocks of all layers, in order."""
        return tuple(block for layer in self.layers for block in layer.blocks)

    @property
    def n_in(self) -> int:
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        return self.layers[-1].n_out

    @property
    def parameters(self) -> int:
        """How many weights and biases there are."""
        return sum(prod(block.shape) for block in self.blocks)

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

        Parameters
        ----------
        text : str, list or Spec
            Sizes as "2-16-16-1", "2,16,16,1" or a list; a list of layers (see `xpmlp.layers`), or
            of [size, input_size, activation] or [size, input_size, activation, dropout] for dense
            ones, where an input_size of None is the layer before and an activation of None the
            identity; or a Spec or a Model's, which stays as it is but for the loss.
        activation : str, Activation or function, or a list of them
            Where text is sizes: one for all hidden layers or one for each; one entry more is the
            last layer's.
        dropout : float in [0, 1), or a list of them
            Likewise.
        loss : str, Loss or function, optional
            None is "squared_error", or a given Spec's own.

        Returns
        -------
        Spec

        Raises
        ------
        ValueError
            Naming the size, the layer or the argument that is wrong.

        Examples
        --------
        >>> Spec.parse("2-16-16-1", activation=["relu", "tanh"]).layers[1].activation
        'tanh'
        >>> Spec.parse([[3, 1, None], [2, None, "sigmoid"], [1, None, None]]).sizes
        (1, 3, 2, 1)
        """
        text = getattr(text, "spec", text)  # of a Model
        if isinstance(text, Spec):
            refuse_extras(text, activation, dropout)
            return replace(text, loss=text.loss if loss is None else loss)  # type: ignore[return-value]
        rows = text
        if isinstance(text, str):
            rows = [piece.strip() for piece in text.replace(",", "-").split("-")]
        if not isinstance(rows, Iterable) or not (rows := list(rows)):
            raise ValueError(f'a network is written "2-16-16-1" or as a list; got {text!r}')
        if any(isinstance(row, Layer) for row in rows):
            refuse_extras(text, activation, dropout)
            layers = rows
        elif isinstance(rows[0], Sequence) and not isinstance(rows[0], str):
            refuse_extras(text, activation, dropout)
            layers = from_lists(rows)
        else:
            layers = from_sizes([whole(size, "a layer's size") for size in rows], text)
            layers = with_activations(layers, activation, dropout)
        return cls(tuple(layers), "squared_error" if loss is None else loss)

    def to_json(self) -> str:
        """The network as JSON.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            Where it holds a function of the user's own.

        Examples
        --------
        >>> json.loads(Spec.parse("1-1", loss="huber:2").to_json())["loss"]
        'huber:2.0'
        """
        loss = self.loss if isinstance(self.loss, str) else refuse_own("the loss", self.loss)
        return json.dumps({"layers": layer_fields(self.layers, refuse_own), "loss": loss})

    def described(self) -> str:
        """The same with a user's own functions by their names, which nothing can read again."""
        layers = layer_fields(self.layers, lambda what, value: title(value))
        return json.dumps({"layers": layers, "loss": title(self.loss)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The network that `to_json` wrote.

        Parameters
        ----------
        text : str

        Returns
        -------
        Spec

        Raises
        ------
        ValueError
            For anything else.

        Examples
        --------
        >>> spec = Spec.parse("2-16-1")
        >>> Spec.from_json(spec.to_json()) == spec
        True
        """
        data = json.loads(text)
        if not isinstance(data, dict) or set(data) != {"layers", "loss"}:
            raise ValueError(f"not a network's JSON: {text[:80]!r}")
        if not isinstance(data["layers"], list) or not isinstance(data["loss"], str):
            raise ValueError("its layers are no list, or its loss is no name")
        spec = cls(tuple(map(layer_from, data["layers"])), data["loss"])
        if json.loads(spec.to_json()) != data:
            raise ValueError("its layers are not written in full")
        return spec

    def __str__(self) -> str:
        return "-".join(map(str, self.sizes))


def check_end(last: Layer, number: int, choice: AnyLoss) -> None:
    """ValueError where the last layer and the loss contradict each other."""
    end = loss(choice)
    loss_name = title(choice)
    last.check_last(number, end, loss_name)
    if end.labels == "classes" and last.n_out < 2:
        raise ValueError(
            f"loss {loss_name!r} needs one neuron per class, at least 2; the last layer has "
            f"{last.n_out}. For one neuron and two classes use 'binary_cross_entropy'"
        )
    if last.n_out % end.scores_per_target:
        raise ValueError(
            f"loss {loss_name!r} needs {end.scores_per_target} neurons for each target; "
            f"the last layer has {last.n_out}"
        )


def refuse_extras(text: object, activation: object, dropout: object) -> None:
    """ValueError where activation or dropout would be overlooked: the layers have their own."""
    if not (isinstance(activation, str) and activation == "relu") or dropout != 0.0:
        raise ValueError(f"activation and dropout belong into the layers of {text!r} themselves")


def from_sizes(sizes: list[int], text: object) -> list[Dense]:
    if len(sizes) < 2:
        raise ValueError(f'a network needs inputs and outputs, such as "2-16-1"; got {text!r}')
    return [Dense(n_in, n_out) for n_in, n_out in pairwise(sizes)]


def from_lists(rows: Sequence[Any]) -> list[Dense]:
    """Layers written [size, input_size, activation] or with a dropout as fourth."""
    layers: list[Dense] = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Sequence) or not 2 <= len(row) <= 4:
            raise ValueError(
                f"layer {number} must be [size, input_size, activation], with dropout as an "
                f"optional fourth; got {row!r}"
            )
        n_out, n_in, *rest = row
        if n_in is None and not layers:
            raise ValueError("layer 1 needs its input size: no layer stands before it")
        layers.append(Dense(layers[-1].n_out if n_in is None else n_in, n_out, *rest))
    return layers


def is_listed(choice: Any) -> TypeGuard[Sequence[Any]]:
    """Whether there is one activation per layer; an Activation is a tuple, but it is one."""
    return isinstance(choice, Sequence) and not isinstance(choice, str | Activation)


def with_activations(
    layers: list[Dense],
    choice: AnyActivation | Sequence[AnyActivation],
    dropout: float | Sequence[float],
) -> list[Dense]:
    """`layers` with activations and dropouts, one for all hidden layers or one for each."""
    hidden = len(layers) - 1
    activations: list[Any] = list(choice) if is_listed(choice) else [choice] * hidden
    rates: list[Any] = list(dropout) if is_listed(dropout) else [dropout] * hidden
    if len(activations) not in (hidden, hidden + 1):
        raise ValueError(f"give one activation per hidden layer, {hidden}; got {len(activations)}")
    if len(rates) not in (hidden, hidden + 1):
        raise ValueError(f"give one dropout per hidden layer, {hidden}; got {len(rates)}")
    activations += ["identity"] * (len(layers) - len(activations))
    rates += [0.0] * (len(layers) - len(rates))
    return [
        replace(layer, activation=f, dropout=p)
        for layer, f, p in zip(layers, activations, rates, strict=True)
    ]
