"""Validation of the arrays that a user passes.

`numbers` accepts anything that holds real numbers (lists, NumPy in any layout and byte order, CuPy,
PyTorch, frames); an error names the argument, the first bad element and the number of them.
"""

import warnings
from typing import Any

import numpy as np

from xpmlp.devices.namespace import dtype_name, is_array, place_of, running, to_host
from xpmlp.shapes import many
from xpmlp.types import Array, Namespace

FLOATS = ("float32", "float64")
FLOAT32_MAX = float(np.finfo(np.float32).max)


def is_float(array: Array) -> bool:
    """Whether the dtype of `array` is float32 or float64."""
    return dtype_name(array) in FLOATS


class NotNumbersError(ValueError, TypeError):
    """Elements that are not real numbers."""


def describe_index(shape: tuple[int, ...], flat_index: int) -> str:
    """The position of the element at a flat index, such as "row 3, column 0"."""
    names = ("row", "column")
    return ", ".join(
        f"{names[i] if i < 2 else f'axis {i}'} {n}"
        for i, n in enumerate(np.unravel_index(flat_index, shape))
    )


def host_numbers(value: Any, name: str) -> np.ndarray:
    """A host value as a NumPy array of a real numeric dtype."""
    if value is None:
        raise ValueError(f"{name} must be an array of numbers; got None")
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} is a sparse {type(value).__name__}: pass {name}.toarray()")
    value = remove_mask(value, name)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind == "O":
        array = objects_to_float64(array, name)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must hold real numbers; got dtype {array.dtype.newbyteorder('=')}"
            + (f", such as {array.flat[0]!r}" if array.size else "")
        )
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        with np.errstate(
            over="ignore"
        ):  # a number beyond float64 becomes an infinity, reported later
            array = array.astype(np.float64)
    if array.dtype.byteorder not in "=|" or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def remove_mask(value: Any, name: str) -> Any:
    """A masked array as a plain one, anything else as it is; ValueError for masked elements."""
    if isinstance(value, list | tuple) and any(isinstance(v, np.ma.MaskedArray) for v in value):
        value = np.ma.array(value)  # np.asarray would include the masked elements
    if not isinstance(value, np.ma.MaskedArray):
        return value
    mask = np.ma.getmaskarray(value)
    if mask.any():
        raise ValueError(
            f"{name} has {many(int(mask.sum()), 'masked value')}, the first at "
            f"{describe_index(mask.shape, int(mask.argmax()))}: fill or drop them"
        )
    return value.data


def objects_to_float64(array: np.ndarray, name: str) -> np.ndarray:
    """An object array of Python numbers as float64; NotNumbersError for anything else in it."""
    flat = array.ravel()
    bad = [i for i, item in enumerate(flat) if not_real_reason(item) is not None]
    if bad:
        first = flat[bad[0]]
        raise NotNumbersError(
            f"{name} must hold real numbers; {describe_index(array.shape, bad[0])} has {first!r} "
            f"({not_real_reason(first)}); {many(len(bad), 'bad value')} in all"
        )
    return np.array([float(item) for item in flat], dtype=np.float64).reshape(array.shape)


def not_real_reason(item: Any) -> str | None:
    """Why `item` is not a real number, or None if it is one."""
    if isinstance(item, str | bytes | complex | np.complexfloating):
        return f"a {type(item).__name__}"
    try:
        float(item)
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    return None


def numbers(value: Any, name: str, ndims: tuple[int, ...]) -> Array:
    """`value` as an array of real, finite numbers with one of `ndims` axes, where it lies.

    Host values become NumPy arrays of their own dtype; an array on a device stays there.
    """
    if is_array(value) and not is_numpy(value):
        array = value.detach() if hasattr(value, "detach") else value
    else:
        array = host_numbers(value, name)
    if len(array.shape) not in ndims:
        allowed = " or ".join(f"{n}-D" for n in ndims)
        hint = f"; one column is {name}.reshape(-1, 1)" if array.ndim == 1 else ""
        raise ValueError(f"{name} must be {allowed}; got {array.ndim}-D {array.shape}{hint}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(array.shape)}")
    check_finite(array, name)
    return array


def is_numpy(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def all_finite(xp: Namespace, array: Array) -> bool:
    """Whether every number is finite. The sum is tried first: it reads the data once and needs no
    boolean array as large as the data."""
    with np.errstate(all="ignore"):
        if bool(xp.isfinite(xp.sum(array))):
            return True
        return bool(xp.isfinite(xp.min(array))) and bool(xp.isfinite(xp.max(array)))


def all_true(xp: Namespace, booleans: Array) -> bool:
    """Whether all booleans are true, by the smallest: CuPy compiles its `all` for seconds where
    there are 128 or more, and has `min` compiled."""
    return bool(xp.min(xp.astype(xp.asarray(booleans), xp.uint8)))


def any_true(xp: Namespace, booleans: Array) -> bool:
    """Whether any boolean is true (see `all_true`)."""
    return bool(xp.max(xp.astype(xp.asarray(booleans), xp.uint8)))


def check_finite(array: Array, name: str) -> None:
    """ValueError naming the first NaN or infinity and the number of them."""
    if isinstance(array, np.ndarray):
        if array.dtype.kind != "f" or all_finite(np, array):
            return
        bad = ~np.isfinite(array)
    else:
        place = place_of(array)
        if place.xp.isdtype(array.dtype, "complex floating"):
            raise ValueError(f"{name} must hold real numbers; got dtype {array.dtype}")
        if not place.xp.isdtype(array.dtype, "real floating"):
            return
        with running(place):
            if all_finite(place.xp, array):
                return
        array = to_host(array)
        bad = ~np.isfinite(array)
    first = int(np.argmax(bad))
    where = describe_index(tuple(array.shape), first)
    raise not_finite_error(name, int(bad.sum()), float(array.flat[first]), where)


def not_finite_error(name: str, count: int, first: float, where: str) -> ValueError:
    """The error for values of which the first that is not finite, `first`, is at `where`."""
    kind = "NaN" if np.isnan(first) else "infinity"
    return ValueError(
        f"{name} has {many(count, 'value')} that {'is' if count == 1 else 'are'} not finite, "
        f"the first a {kind} at {where}"
    )


def check_fits(array: Array, dtype: str, name: str) -> None:
    """ValueError where a finite number of `array` is beyond the range of `dtype`."""
    if dtype != "float32" or dtype_name(array) != "float64":
        return
    place = place_of(array)
    with running(place):
        if not any_true(place.xp, place.xp.abs(array) > FLOAT32_MAX):
            return
    host = to_host(array)
    first = int(np.argmax(np.abs(host) > FLOAT32_MAX))
    raise ValueError(
        f"{name} exceeds float32 at {describe_index(host.shape, first)} "
        f"({host.flat[first]:g}): scale it, or pass dtype='float64'"
    )


def warn_of_constant_data(x: Any, labels: Array | None) -> None:
    """Warn where nothing can be learnt: one row, rows that are all equal, or a single class.

    x: (N, n_in), SciPy's sparse rows too. labels: (N, n_out) where y holds classes.
    """
    if x.shape[0] == 1:
        warnings.warn("X has one row, so that there is nothing to learn", stacklevel=2)
        return
    if all_rows_equal(x):
        warnings.warn("X is constant, so that there is nothing to learn", stacklevel=2)
    if labels is not None and all_rows_equal(labels):
        warnings.warn("y has a single class, so that there is nothing to learn", stacklevel=2)


def all_rows_equal(rows: Any) -> bool:
    """Whether the rows (N, n) are all equal; the first two are compared first, as most differ."""
    if hasattr(rows, "nnz"):
        return all((rows[[i]] != rows[[0]]).nnz == 0 for i in range(1, rows.shape[0]))
    place, count = place_of(rows), rows.shape[0]
    with running(place):
        return all(all_true(place.xp, rows[:end, :] == rows[:1, :]) for end in (2, count))
