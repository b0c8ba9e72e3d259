"""Randomness as a function of (seed, stream, step, index): nothing to save, nothing to share.

What is drawn once or once an epoch (initial weights, orders, splits) comes from NumPy's Philox
on the host and is uploaded. Dropout masks are drawn every step, where the arrays are, from a
counter-based 32-bit hash in plain integer operations: the same choices on every namespace.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np

from xpmlp.apply import plain
from xpmlp.types import Array, Namespace


class Stream(IntEnum):
    """What the numbers are for; streams of one seed are independent."""

    WEIGHTS = 0
    ORDER = 1
    DROPOUT = 2
    SPLIT = 3


def generator(seed: int, stream: int, step: int = 0) -> np.random.Generator:
    """NumPy's generator on Philox (Salmon et al. 2011) at (seed, stream, step).

    `seed` and `stream` are the key; `step` (an epoch, a layer) is a high word of the counter,
    so that neighbouring steps never overlap.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of `rows` rows in `epoch`: a permutation, (rows,) int64."""
    return generator(seed, Stream.ORDER, epoch).permutation(rows)


def dropout_keys(seeds: Sequence[int], lead: tuple[int, ...], layer: int) -> np.ndarray:
    """The two 32-bit words that a layer's masks are drawn from, (*lead, 2) int64.

    seeds: one per member; lead: () for one network, (K,) for a population.
    """
    words = [generator(seed, Stream.DROPOUT, layer).integers(2**32, size=2) for seed in seeds]
    return np.array(words, dtype=np.int64).reshape((*lead, 2))


def mix(x: Array, low: int) -> Array:
    """A bijection of 32-bit words that leaves no pattern (C. Wellons's prospector, 2022).

    `low` keeps the low 32 bits where x is held in wider lanes.
    """
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & low
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & low
    return x ^ (x >> 15)


def lanes(xp: Namespace) -> str:
    """The integer dtype that 32-bit words live in: uint32, or int64 where it is lacking."""
    known = xp.__array_namespace_info__().dtypes(kind="unsigned integer")
    return "uint32" if "uint32" in known else "int64"


def words(xp: Namespace, index: Array, first: Array, second: Array, step: Array) -> Array:
    """Random 32-bit words, a function of an element's index, the key's two words and the step,
    which broadcast: the same arguments give the same words."""
    low, now = 0xFFFFFFFF, xp.astype(step, index.dtype)
    return mix(mix(index ^ first, low) ^ mix((now & low) ^ second, low), low)


def counters(xp: Namespace, key: Array, step: Array, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """The arguments of `words` for a key (..., 2), a step () and an array of this shape."""
    index = xp.reshape(xp.arange(prod(shape), dtype=key.dtype, device=key.device), shape)
    each = (*key.shape[:-1], *[1] * len(shape))
    first, second = (xp.reshape(key[..., i], each) for i in (0, 1))
    # not 0-d: NumPy warns where the product of two scalars wraps
    return index, first, second, xp.reshape(step, (1,))


def factors(
    xp: Namespace, rate: float, dtype: str, index: Array, first: Array, second: Array, step: Array
) -> Array:
    kept = words(xp, index, first, second, step) >= round(rate * 2**32)
    return xp.astype(kept, getattr(xp, dtype)) * (1 / (1 - rate))


def mask(
    xp: Namespace,
    key: Array,
    step: Array,
    rate: float,
    shape: tuple[int, ...],
    dtype: str,
    *,
    apply: Callable[..., Any] = plain,
) -> Array:
    """Dropout factors (..., *shape): 0 with probability `rate`, else 1 / (1 - rate).

    Thresholded as integers, so that the same units drop on every namespace (Srivastava et al.
    2014, in the inverted form that leaves inference alone).
    """
    mask: Array = apply(factors, xp, rate, dtype, *counters(xp, key, step, shape))
    return mask
