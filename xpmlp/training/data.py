"""Rows, targets and sample weights, validated and copied to the device of training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.namespace import (
    Place,
    dtype_name,
    is_array,
    place_of,
    running,
    to_host,
    to_place,
)
from xpmlp.shapes import Position
from xpmlp.spec import Spec
from xpmlp.training.checks import FLOATS, check_fits, numbers
from xpmlp.training.labels import Labels, sample_weights, targets
from xpmlp.types import Array, Namespace


class DeviceRows(NamedTuple):
    """Rows (N, n_in) on the device of training."""

    xp: Namespace
    x: Array

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.x.shape)

    def take(self, index: Array) -> Array:
        """The rows of an index (...), (..., n)."""
        picked = self.xp.take(self.x, self.xp.reshape(index, (-1,)), axis=0)
        return self.xp.reshape(picked, (*index.shape, *self.x.shape[1:]))

    def slice(self, start: int, stop: int) -> Array:
        return self.x[start:stop, :]


class StreamedRows(NamedTuple):
    """Rows (N, n_in) that are copied to `place` a batch at a time: from another device, from
    another dtype, or from SciPy's CSR format, each batch made dense."""

    place: Place
    x: Any
    dtype: str
    name: str = "X"

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.x.shape)

    def take(self, index: Array) -> Array:
        """The rows of an index (...) on the host, (..., n)."""
        with running(place_of(self.x)):
            part = self.x[np.reshape(index, -1)]
        picked = self.transfer(part)
        return self.place.xp.reshape(picked, (*index.shape, *self.x.shape[1:]))

    def slice(self, start: int, stop: int) -> Array:
        return self.transfer(self.x[start:stop, :])

    def transfer(self, part: Any) -> Array:
        dense = part.toarray() if hasattr(part, "toarray") else part
        return move(self.place, dense, self.dtype, self.name)


Rows = DeviceRows | StreamedRows


class Data(NamedTuple):
    """A training or validation set, at one place and in one dtype."""

    x: Rows  # (N, n_in)
    target: Array  # (N, n_out)
    weight: Array  # (N,) sample weights divided by their mean

    @property
    def rows(self) -> int:
        return int(self.x.shape[0])


def move(place: Place, value: Array, dtype: str, name: str) -> Array:
    """`value` at `place` in the float dtype of that name; ValueError where a number overflows."""
    check_fits(value, dtype, name)
    if isinstance(value, np.ndarray):
        return to_place(place, value, dtype)
    if place_of(value).name == place.name:
        return place.xp.astype(value, getattr(place.xp, dtype), copy=False)
    return move(place, to_host(value), dtype, name)


def device_rows(place: Place, x: Array, dtype: str, name: str) -> Rows:
    """All the rows, copied to a place."""
    return DeviceRows(place.xp, move(place, x, dtype, name))


def check_rows(value: Any, spec: Spec, name: str = "X") -> Array:
    """X (N, n_in) on its own device; ShapeError with the ledger's line where it does not fit."""
    x = numbers(value, name, (2,))
    if x.shape[-1] != spec.n_in:
        raise spec.layers[0].shape_error(Position(1, name, "B"), tuple(x.shape))
    return x


def own_dtype(value: Any) -> str:
    """The default dtype of training on this data: its own float32 or float64, float32 for
    narrower floats, float64 for anything else."""
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
    known_labels: Labels | None = None,
    suffix: str = "",
    load_rows: Callable[..., Rows] = device_rows,
) -> tuple[Data, Labels]:
    """A validated set at `place`; errors name X, y and sample_weight with the suffix.

    load_rows: what makes Rows of X, a function like `device_rows`.
    """
    x = check_rows(X, spec, "X" + suffix)
    rows = load_rows(place, x, dtype, "X" + suffix)
    y_name, weight_name = "y" + suffix, "sample_weight" + suffix
    target, labels = targets(y, spec, y_name, known_labels)
    if target.shape[0] != x.shape[0]:
        raise ValueError(f"X{suffix} has {x.shape[0]} rows but {y_name} has {target.shape[0]}")
    weight = sample_weights(
        sample_weight, int(x.shape[0]), target, labels, class_weight, weight_name
    )
    return (
        Data(rows, move(place, target, dtype, y_name), to_place(place, weight, dtype)),
        labels,
    )
