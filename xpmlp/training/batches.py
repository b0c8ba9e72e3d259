"""The minibatches of an epoch, gathered a window of them at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.namespace import Place, dtype_name, to_place
from xpmlp.random import order
from xpmlp.step import Batch
from xpmlp.training.data import Data, Elsewhere, Resident
from xpmlp.training.settings import Settings
from xpmlp.types import Array, Namespace


class Window(NamedTuple):
    """Minibatches that follow one another, W of them, every one of the same shape."""

    x: Array  # (W, ..., B, n_in)
    target: Array  # (W, ..., B, n_out)
    weight: Array  # (W, ..., B)
    share: Array  # (W,) what part of the epoch's rows each has
    scale: Any  # factor on the strength of every penalty: 1.0, or (W, ..., 1)

    @property
    def steps(self) -> int:
        return int(self.share.shape[0])


class Minibatch(NamedTuple):
    """A minibatch with its part in the epoch."""

    batch: Batch
    share: Array  # (), of the epoch's rows
    scale: Any  # factor on the strength of every penalty


def minibatch(window: Window, t: int) -> Minibatch:
    """Minibatch t of a window: views, not copies."""
    x, target, weight, share, scale = window
    batch = Batch(x[t, ...], target[t, ...], weight[t, ...])
    return Minibatch(batch, share[t], scale if isinstance(scale, float) else scale[t, ...])


# The order of the rows ------------------------------------------------------------------------


def epoch_order(
    seeds: tuple[int, ...], lead: tuple[int, ...], epoch: int, count: int
) -> np.ndarray:
    """The order of the rows in an epoch, (*lead, count) int64: each member its own."""
    orders = np.stack([order(seed, epoch, count) for seed in seeds])
    return orders.reshape((*lead, count))


def unshuffled(seeds: tuple[int, ...], lead: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """Rows as they come, in every epoch and for every member."""
    return np.broadcast_to(np.arange(count), (*lead, count))


def orders(settings: Settings, epoch: int, count: int) -> np.ndarray:
    """The order that a training's settings ask for in an epoch, (..., count)."""
    draw = epoch_order if settings.shuffle else unshuffled
    return draw(settings.seeds, settings.lead, epoch, count)


# What the rows of a batch weigh: functions of their weights (W, ..., B), where padding has 0, and
# of how many are real (W, ..., 1). They return weights, and the factor on every penalty.


def unbiased(xp: Namespace, weight: Array, real: Array) -> tuple[Array, float]:
    """Row weights whose gradient is unbiased, and penalties as they are (see `Batch`)."""
    return weight / real, 1.0


def per_batch(xp: Namespace, weight: Array, real: Array) -> tuple[Array, Array]:
    """scikit-learn's row weights: normalised within each batch, which shares out alpha too.

    A batch whose rows all weigh 0 teaches nothing.
    """
    total = xp.sum(weight, axis=-1, keepdims=True)
    total = xp.where(total > 0, total, xp.full_like(total, float("inf")))
    return weight / total, 1 / total


def per_row(mean: float) -> Callable[..., Any]:
    """Row weights that are the same in every batch, so that the gradient is unbiased.

    mean: of the weights of all rows. Alpha is shared out likewise.
    """

    def row_weights(xp: Namespace, weight: Array, real: Array) -> tuple[Array, Array]:
        each = mean * real
        return weight / each, xp.broadcast_to(1 / each, (*weight.shape[:-1], 1))

    return row_weights


# Windows --------------------------------------------------------------------------------------


def windows(
    place: Place,
    data: Data,
    orders: np.ndarray,
    size: int,
    steps: int,
    row_weights: Callable[..., Any] = unbiased,
) -> Iterator[Callable[..., Window]]:
    """The minibatches of an epoch, each of `size` rows, at most `steps` of them in a window: what
    gathers it, and takes which members it is for (an index; none is all).

    orders: (..., N). The last batch is filled up with its own first row at weight 0.
    row_weights: what its rows weigh, such as `unbiased`.
    """
    for start in range(0, orders.shape[-1], steps * size):
        part = orders[..., start : start + steps * size]
        yield partial(window, place, data, part, size, row_weights)


def window(
    place: Place,
    data: Data,
    part: np.ndarray,
    size: int,
    row_weights: Callable[..., Any],
    members: Any = ...,
) -> Window:
    """The batches of a part of an order, (..., n), for the members of an index."""
    part = part[members]
    xp, (*lead, count) = place.xp, part.shape
    steps = -(-count // size)
    lacking = steps * size - count
    if lacking:
        first = part[..., (steps - 1) * size, None]
        part = np.concatenate([part, np.repeat(first, lacking, axis=-1)], axis=-1)
    # C order: a strided product may round in another order
    host = np.ascontiguousarray(np.moveaxis(part.reshape(*lead, steps, size), -2, 0))
    index = to_place(place, host)
    dtype, between = dtype_name(data.weight), (1,) * len(lead)
    weight = Resident(xp, data.weight).take(index)
    real = np.full(steps, size)
    real[-1] -= lacking
    if lacking:
        kept = np.arange(size) < real[:, None]
        weight = weight * to_place(place, kept.reshape(steps, *between, size), dtype)
    weight, scale = row_weights(
        xp, weight, to_place(place, real.reshape(steps, *between, 1), dtype)
    )
    return Window(
        data.x.take(host if isinstance(data.x, Elsewhere) else index),
        Resident(xp, data.target).take(index),
        weight,
        to_place(place, real / data.rows, dtype),
        scale,
    )
