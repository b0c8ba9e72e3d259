"""Rows, targets and weights where training runs, and the minibatches drawn from them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from xpmlp.backends.namespace import Place, dtype_name, is_array, place_of, to_host, to_place
from xpmlp.core.ledger import misfit
from xpmlp.core.random import order
from xpmlp.core.spec import Spec
from xpmlp.core.training import Batch
from xpmlp.core.types import Array, Namespace
from xpmlp.fit.checks import FLOATS, check_fits, numbers
from xpmlp.fit.labels import Labels, sample_weights, targets


class Resident(NamedTuple):
    """Rows (N, n_in) that lie where training runs."""

    xp: Namespace
    x: Array

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.x.shape)

    def take(self, index: Array) -> Array:
        """The rows of an index (B,)."""
        return self.xp.take(self.x, index, axis=0)

    def between(self, start: int, stop: int) -> Array:
        return self.x[start:stop, :]


class Elsewhere(NamedTuple):
    """Rows (N, n_in) that come to `place` a batch at a time: from another device, in another
    dtype, or sparse (SciPy's CSR), made dense on the way."""

    place: Place
    x: Any
    dtype: str
    name: str = "X"

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.x.shape)

    def take(self, index: Array) -> Array:
        """The rows of an index (B,), for rows on the host."""
        return self.moved(self.x[to_host(index)])

    def between(self, start: int, stop: int) -> Array:
        return self.moved(self.x[start:stop, :])

    def moved(self, part: Any) -> Array:
        dense = part.toarray() if hasattr(part, "toarray") else part
        return move(self.place, dense, self.dtype, self.name)


Rows = Resident | Elsewhere


class Data(NamedTuple):
    """A training or held-out set, at one place and in one dtype."""

    x: Rows  # (N, n_in)
    target: Array  # (N, n_out)
    weight: Array  # (N,) sample weights divided by their mean

    @property
    def rows(self) -> int:
        return int(self.x.shape[0])


def move(place: Place, value: Array, dtype: str, name: str) -> Array:
    """`value` at `place` in the float dtype of that name; one that overflows is refused."""
    check_fits(value, dtype, name)
    if isinstance(value, np.ndarray):
        return to_place(place, value, dtype)
    if place_of(value).name == place.name:
        return place.xp.astype(value, getattr(place.xp, dtype), copy=False)
    return move(place, to_host(value), dtype, name)


def rows(value: Any, spec: Spec, name: str = "X") -> Array:
    """X (N, n_in), where it lies; ShapeError with the ledger's line where it does not fit."""
    x = numbers(value, name, (2,))
    if x.shape[-1] != spec.n_in:
        raise misfit(spec, 0, x.shape, spec.layers[0].shapes[1], name)
    return x


def own_dtype(value: Any) -> str:
    """The dtype that data trains in by default: its own float32 or float64, else float64
    for host numbers and float32 for narrower floats."""
    if is_array(value) or hasattr(value, "dtype"):
        name = dtype_name(value)
        if name in FLOATS:
            return name
        if name in ("float16", "bfloat16"):
            return "float32"
    return "float64"


def prepare(
    X: Any,
    y: Any,
    spec: Spec,
    place: Place,
    dtype: str,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    known: Labels | None = None,
    suffix: str = "",
) -> tuple[Data, Labels]:
    """A checked set at `place`; errors name X, y and sample_weight with the suffix."""
    x = rows(X, spec, "X" + suffix)
    here = Resident(place.xp, move(place, x, dtype, "X" + suffix))
    y_name, weight_name = "y" + suffix, "sample_weight" + suffix
    target, labels = targets(y, spec, y_name, known)
    if target.shape[0] != x.shape[0]:
        raise ValueError(f"X{suffix} has {x.shape[0]} rows but {y_name} has {target.shape[0]}")
    weight = sample_weights(
        sample_weight, int(x.shape[0]), target, labels, class_weight, weight_name
    )
    return (
        Data(here, move(place, target, dtype, y_name), to_place(place, weight, dtype)),
        labels,
    )


def epoch_order(
    seeds: tuple[int, ...], lead: tuple[int, ...], epoch: int, count: int
) -> np.ndarray:
    """The order of the rows in an epoch, (*lead, count) int64: each member its own."""
    orders = np.stack([order(seed, epoch, count) for seed in seeds])
    return orders.reshape((*lead, count))


def unshuffled(seeds: tuple[int, ...], lead: tuple[int, ...], epoch: int, count: int) -> np.ndarray:
    """Rows as they come, in every epoch and for every member."""
    return np.broadcast_to(np.arange(count), (*lead, count))


def take(xp: Namespace, rows: Rows, index: Array) -> Array:
    """The rows of an index (B,) or (K, B): (B, n) or (K, B, n)."""
    if index.ndim == 1:
        return rows.take(index)
    picked = rows.take(xp.reshape(index, (-1,)))
    return xp.reshape(picked, (*index.shape, *picked.shape[1:]))


def unbiased(xp: Namespace, weight: Array, real: int) -> tuple[Array, float]:
    """Row weights whose gradient is unbiased, and penalties as they are (see `Batch`).

    weight: (..., real) of a batch's real rows. Returns theirs in the batch, and the factor on
    the strength of every penalty.
    """
    return weight / real, 1.0


def per_batch(xp: Namespace, weight: Array, real: int) -> tuple[Array, Array]:
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

    def weigh(xp: Namespace, weight: Array, real: int) -> tuple[Array, Array]:
        share = weight / (mean * real)
        return share, xp.full_like(share[..., :1], 1 / (mean * real))

    return weigh


class Drawn(NamedTuple):
    """A minibatch with its part in the epoch."""

    batch: Batch
    share: float  # of the epoch's rows
    scale: Any  # factor on the strength of every penalty


def batches(
    place: Place,
    data: Data,
    orders: np.ndarray,
    size: int,
    weigh: Callable[..., Any] = unbiased,
) -> Iterator[Drawn]:
    """The minibatches of an epoch, every one of `size` rows.

    orders: (..., N). The last batch is filled up with its own first row at weight 0.
    weigh: what its real rows weigh, such as `unbiased`.
    """
    target, weights = Resident(place.xp, data.target), Resident(place.xp, data.weight)
    xp, count = place.xp, orders.shape[-1]
    index = to_place(place, orders)
    for start in range(0, count, size):
        real = min(size, count - start)
        part = index[..., start : start + real]
        weight, scale = weigh(xp, take(xp, weights, part), real)
        if real < size:
            filling = xp.broadcast_to(part[..., :1], (*part.shape[:-1], size - real))
            part = xp.concat([part, filling], axis=-1)
            weight = xp.concat([weight, xp.zeros_like(filling, dtype=weight.dtype)], axis=-1)
        batch = Batch(take(xp, data.x, part), take(xp, target, part), weight)
        yield Drawn(batch, real / count, scale)
