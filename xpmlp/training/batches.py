"""The minibatches of an epoch, gathered in windows of several minibatches."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.namespace import Place, dtype_name, to_place
from xpmlp.random import order
from xpmlp.step import Batch
from xpmlp.training.data import Data, DeviceRows, StreamedRows
from xpmlp.training.settings import Settings
from xpmlp.types import Array, Namespace


class Window(NamedTuple):
    """W consecutive minibatches of one shape."""

    x: Array  # (W, ..., B, n_in)
    target: Array  # (W, ..., B, n_out)
    weight: Array  # (W, ..., B)
    share: Array  # (W,) the fraction of the epoch's rows in each
    scale: Any  # factor on the strength of every penalty: 1.0, or (W, ..., 1)

    @property
    def steps(self) -> int:
        return int(self.share.shape[0])


class Minibatch(NamedTuple):
    """A minibatch with its share of the epoch."""

    batch: Batch
    share: Array  # () the fraction of the epoch's rows in it
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
    """The order of the rows in an epoch, (*lead, count) int64, another for each member."""
    orders = np.stack([order(seed, epoch, count) for seed in seeds])
    return orders.reshape((*lead, count))


def sequential_order(
    seeds: tuple[int, ...], lead: tuple[int, ...], epoch: int, count: int
) -> np.ndarray:
    """Rows in their own order, in every epoch and for every member."""
    return np.broadcast_to(np.arange(count), (*lead, count))


def orders(settings: Settings, epoch: int, count: int) -> np.ndarray:
    """The order of the rows in an epoch by the settings, (..., count)."""
    draw = epoch_order if settings.shuffle else sequential_order
    return draw(settings.seeds, settings.lead, epoch, count)


# Row weights in a batch: functions of the sample weights (W, ..., B), 0 for padding, and of the
# number of real rows (W, ..., 1). They return row weights and the factor on every penalty.
# Checkpoints store their names.


def unbiased(xp: Namespace, weight: Array, real: Array) -> tuple[Array, float]:
    """Row weights whose gradient is unbiased, with unscaled penalties (see `Batch`)."""
    return weight / real, 1.0


def per_batch(xp: Namespace, weight: Array, real: Array) -> tuple[Array, Array]:
    """scikit-learn's row weights: normalised within each batch, with alpha divided likewise.

    A batch of zero weights has a gradient of zero.
    """
    total = xp.sum(weight, axis=-1, keepdims=True)
    total = xp.where(total > 0, total, xp.full_like(total, float("inf")))
    return weight / total, 1 / total


def per_row(mean: float) -> Callable[..., Any]:
    """Row weights that do not depend on the batch, so that the gradient is unbiased.

    mean: of the sample weights of all rows. Alpha is divided likewise.
    """

    def row_weights(xp: Namespace, weight: Array, real: Array) -> tuple[Array, Array]:
        total = mean * real
        return weight / total, xp.broadcast_to(1 / total, (*weight.shape[:-1], 1))

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
    """Functions that gather the windows of an epoch, each of at most `steps` minibatches of `size`
    rows, for the members of an index (all by default).

    orders: (..., N). The last batch is padded with its own first row at weight 0.
    row_weights: a function such as `unbiased`.
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
    padding = steps * size - count
    if padding:
        first = part[..., (steps - 1) * size, None]
        part = np.concatenate([part, np.repeat(first, padding, axis=-1)], axis=-1)
    # C order: a strided product may round in another order
    host = np.ascontiguousarray(np.moveaxis(part.reshape(*lead, steps, size), -2, 0))
    index = to_place(place, host)
    dtype, ones = dtype_name(data.weight), (1,) * len(lead)
    weight = DeviceRows(xp, data.weight).take(index)
    real = np.full(steps, size)
    real[-1] -= padding
    if padding:
        is_real = np.arange(size) < real[:, None]
        weight = weight * to_place(place, is_real.reshape(steps, *ones, size), dtype)
    weight, scale = row_weights(xp, weight, to_place(place, real.reshape(steps, *ones, 1), dtype))
    return Window(
        data.x.take(host if isinstance(data.x, StreamedRows) else index),
        DeviceRows(xp, data.target).take(index),
        weight,
        to_place(place, real / data.rows, dtype),
        scale,
    )
