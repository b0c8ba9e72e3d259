"""Where the layers' blocks lie in a flat buffer (..., P): windows are views, never copies.

Every window and P itself is padded to ALIGN elements, so that every member's every window
starts aligned. The padding stays zero; it is neither counted nor saved.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any

from xpmlp.layers.layer import Block
from xpmlp.spec import Spec
from xpmlp.types import Array, Namespace

ALIGN = 32


def blocks(spec: Spec) -> tuple[Block, ...]:
    """Every block of every layer, in order."""
    return spec.blocks


def names(spec: Spec) -> list[str]:
    """What every block is called in a file: `layers.0.weights`, `layers.0.bias`, ..."""
    return [f"layers.{i}.{b.name}" for i, layer in enumerate(spec.layers) for b in layer.blocks]


def stored_shapes(spec: Spec) -> list[tuple[str, tuple[int, ...]]]:
    """Every block's name and shape in a file, of one network."""
    return [(n, block.stored) for n, block in zip(names(spec), blocks(spec), strict=True)]


def padded(count: int) -> int:
    return -(-count // ALIGN) * ALIGN


def starts(spec: Spec) -> tuple[int, ...]:
    """Where every window starts; the last entry is P."""
    return starts_of(spec.blocks)


@lru_cache(256)  # asked for a dozen times by one training
def starts_of(all_blocks: tuple[Block, ...]) -> tuple[int, ...]:
    return tuple(accumulate((padded(prod(block.shape)) for block in all_blocks), initial=0))


def padded_size(spec: Spec) -> int:
    """P, the length of a flat buffer."""
    return starts(spec)[-1]


def views(xp: Namespace, spec: Spec, flat: Array) -> list[Array]:
    """Each block's view onto `flat` (..., P)."""
    return [
        xp.reshape(flat[..., start : start + prod(block.shape)], (*flat.shape[:-1], *block.shape))
        for start, block in zip(starts(spec), blocks(spec), strict=False)
    ]


def windows(xp: Namespace, spec: Spec, flat: Array) -> tuple[Any, ...]:
    """Each layer's views onto `flat` (..., P), by the names of its blocks."""
    return packed(spec, views(xp, spec, flat))


def packed(spec: Spec, arrays: Sequence[Array]) -> tuple[Any, ...]:
    """Each layer's parameters, of arrays that are listed block by block."""
    listed = iter(arrays)
    return tuple(layer.pack(listed) for layer in spec.layers)


def block_factors(xp: Namespace, spec: Spec, like: Array, name: str) -> Array:
    """(P,) of the blocks' own factors "decay_factor" or "rate_factor"; 0 on padding."""
    flat = xp.zeros(padded_size(spec), dtype=like.dtype, device=like.device)
    for view, block in zip(views(xp, spec, flat), blocks(spec), strict=True):
        view[...] = xp.full_like(view, getattr(block, name))
    return flat


def tensors(xp: Namespace, spec: Spec, flat: Array) -> Iterator[tuple[str, Array]]:
    """The blocks by the names and in the shapes that files have."""
    for (name, shape), view in zip(stored_shapes(spec), views(xp, spec, flat), strict=True):
        yield name, xp.reshape(view, (*flat.shape[:-1], *shape))
