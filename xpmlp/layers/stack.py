"""Layers one after the other: what fits together, and how a file writes it."""

from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from itertools import pairwise
from keyword import iskeyword
from typing import Any

from xpmlp.layers.layer import Block, Layer, Own, is_built_in
from xpmlp.names import nearest, title
from xpmlp.shapes import ShapeError, many, written
from xpmlp.types import Array


class Stack:
    """Layers one after the other: what `forward` and `backward` go through."""

    layers: tuple[Layer, ...]

    def check_counts(self, params: Sequence[Any], masks: Sequence[Any]) -> None:
        """ShapeError where so many params or masks do not belong to the layers."""
        count = len(self.layers)
        if len(params) == count and len(masks) in (0, count):
            return
        what = f"{len(masks)} masks" if len(params) == count else f"{len(params)} params"
        raise ShapeError(
            f"network {self} has {many(count, 'layer')}: give one (weights, bias) for "
            f"each, and one mask (or None) for each or none at all; got {what}"
        )

    def check_score_gradient(self, g: Array, y: Array) -> None:
        """ShapeError where g is not shaped like what the last layer gives."""
        if tuple(g.shape) != tuple(y.shape):
            raise ShapeError(
                f"g is {written(tuple(g.shape))} but must be shaped like the score "
                f"a{len(self.layers)}, {written(tuple(y.shape))}: it is dL/da of the last layer"
            )


def check_kind(kind: Any, number: str) -> None:
    """ValueError for a kind of a user's own that a file could not name."""
    name = kind.__name__
    if is_built_in(kind):
        return
    if not is_dataclass(kind):
        raise ValueError(f"layer {number}'s kind {name} must be a frozen dataclass")
    if is_built_in(kinds()[name]):
        raise ValueError(
            f"layer {number}'s kind is called {name}, as one of xpmlp.layers is, for which a file "
            "would take it: rename it"
        )


def check_blocks(layer: Layer, number: str) -> None:
    """ValueError where a kind's blocks are not named arrays of two axes or more."""
    for block in layer.blocks:
        if not isinstance(block, Block):
            raise TypeError(f"layer {number}'s blocks must be a tuple of Block; it has {block!r}")
        named = block.name.isidentifier() and not block.name.startswith("_")
        if type(layer).pack is Layer.pack and (not named or iskeyword(block.name)):
            raise ValueError(
                f"layer {number}'s block {block.name!r} must be named as an attribute can be"
            )
        if len(block.shape) < 2:
            raise ValueError(
                f"layer {number}'s block {block.name!r} must have two axes or more, such as "
                f"(1, n); it has the shape {block.shape}"
            )
    for kind in ("name", "symbol"):
        words = [getattr(block, kind) for block in layer.blocks]
        if len({*words}) < len(words):
            raise ValueError(f"two blocks of layer {number} have one {kind}: {', '.join(words)}")


def chained(layers: Any, prefix: str = "") -> tuple[Layer, ...]:
    """The layers, checked, each of which takes what the one before gives."""
    validated = []
    for number, layer in enumerate(layers, 1):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"layer {prefix}{number} must be a Layer, got {layer!r}: Spec.parse reads sizes"
            )
        check_kind(type(layer), f"{prefix}{number}")
        validated.append(layer.checked(f"{prefix}{number}"))
        check_blocks(validated[-1], f"{prefix}{number}")
    if not validated:
        raise ValueError("a network needs at least one layer; got none")
    for number, (before, layer) in enumerate(pairwise(validated), 2):
        if before.n_out != layer.n_in:
            raise ValueError(
                f"layer {prefix}{number} takes {layer.n_in} inputs, but layer {prefix}{number - 1} "
                f"has {before.n_out} neurons"
            )
    return tuple(validated)


def layer_fields(layers: Sequence[Layer], own: Own, prefix: str = "") -> list[dict[str, Any]]:
    return [layer.fields(f"{prefix}{number}", own) for number, layer in enumerate(layers, 1)]


def refuse_own(what: str, value: Any) -> Any:
    """ValueError: a user's own function is in no file, nor is what JSON does not have."""
    plain = type(value) in (list, tuple, dict, set)
    described = f"{value!r}" if plain else f"your own function {title(value)}"
    raise ValueError(f"{what} is {described}, which a file cannot hold")


def kinds() -> dict[str, type[Layer]]:
    """Every kind that is defined, a user's too, by name.

    Of two of one name it is this library's own, or the one that was defined later.
    """

    def subclasses(kind: type[Layer]) -> Iterator[type[Layer]]:
        for subclass in kind.__subclasses__():
            yield subclass
            yield from subclasses(subclass)

    defined = [kind for kind in subclasses(Layer) if is_dataclass(kind)]
    defined.sort(key=is_built_in)
    return {kind.__name__: kind for kind in defined}


def layer_from(values: Any) -> Layer:
    """The layer that `Layer.fields` wrote; ValueError for an unknown kind."""
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError(f"a layer is written as an object with its kind; got {str(values)[:80]}")
    rest, known = dict(values), kinds()
    name = rest.pop("kind")
    if name not in known:
        hint = nearest(name, sorted(known))
        raise ValueError(
            f"layer kind {name[:80]!r} is unknown{hint} One of your own must be defined before"
        )
    try:
        return known[name].from_fields(rest)
    except TypeError as error:
        raise ValueError(f"a layer of kind {name}: {error}") from None
