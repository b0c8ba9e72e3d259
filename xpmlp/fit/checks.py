"""Arrays as they come from a user, checked and made plain: one clear error, or the right numbers.

`numbers` accepts whatever holds real numbers (lists, NumPy in any layout and byte order, CuPy,
PyTorch, frames) and names the argument, the first bad place and the count in any error.
"""

from typing import Any

import numpy as np

from xpmlp.backends.namespace import dtype_name, is_array, place_of, to_host
from xpmlp.core.types import Array

FLOATS = ("float32", "float64")
TOP = float(np.finfo(np.float32).max)


def is_float(array: Array) -> bool:
    """Whether `array` is one of float32 or float64."""
    return dtype_name(array) in FLOATS


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def place_in(shape: tuple[int, ...], flat_index: int) -> str:
    """ "row 3, column 0" of the flat index of an element."""
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
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.getmaskarray(value).any():
            count = int(np.ma.getmaskarray(value).sum())
            raise ValueError(f"{name} has {counted(count, 'masked value')}: fill or drop them")
        value = value.data
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind == "O":
        array = from_objects(array, name)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must hold real numbers; got dtype {array.dtype}"
            + (f", such as {array.flat[0]!r}" if array.size else "")
        )
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # what exceeds float64 is found as an infinity
            array = array.astype(np.float64)
    if array.dtype.byteorder not in "=|" or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def from_objects(array: np.ndarray, name: str) -> np.ndarray:
    """An object array of Python numbers as float64; the first that is none is named."""
    flat = array.ravel()
    for i, item in enumerate(flat):
        if isinstance(item, str | bytes | complex | np.complexfloating) or not is_real(item):
            where = place_in(array.shape, i)
            raise ValueError(f"{name} must hold real numbers; {where} has {item!r}")
    return np.array([float(item) for item in flat], dtype=np.float64).reshape(array.shape)


def is_real(item: Any) -> bool:
    try:
        float(item)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def numbers(value: Any, name: str, ndims: tuple[int, ...]) -> Array:
    """`value` as an array of real, finite numbers with one of `ndims` axes, where it lies.

    Host values become NumPy arrays of their own dtype; an array on a device stays there.
    """
    if is_array(value) and not host_like(value):
        array = value.detach() if hasattr(value, "detach") else value
    else:
        array = host_numbers(value, name)
    if len(array.shape) not in ndims:
        asked = " or ".join(f"{n}-D" for n in ndims)
        hint = f"; one column is {name}.reshape(-1, 1)" if array.ndim == 1 else ""
        raise ValueError(f"{name} must be {asked}; got {array.ndim}-D {array.shape}{hint}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(array.shape)}")
    check_finite(array, name)
    return array


def host_like(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def check_finite(array: Array, name: str) -> None:
    """ValueError naming the first NaN or infinity, and how many there are."""
    if isinstance(array, np.ndarray):
        # the sum first: it needs no array of truths as large as the data
        with np.errstate(all="ignore"):
            if array.dtype.kind != "f" or np.isfinite(array.sum()) or np.isfinite(array).all():
                return
        bad = ~np.isfinite(array)
    else:
        xp = place_of(array).xp
        if xp.isdtype(array.dtype, "complex floating"):
            raise ValueError(f"{name} must hold real numbers; got dtype {array.dtype}")
        if not xp.isdtype(array.dtype, "real floating"):
            return
        if bool(xp.isfinite(xp.sum(array))) or bool(xp.all(xp.isfinite(array))):
            return
        bad = to_host(~xp.isfinite(array))
        array = to_host(array)
    first = int(np.argmax(bad))
    what = "NaN" if np.isnan(array.flat[first]) else "infinity"
    raise ValueError(
        f"{name} has {counted(int(bad.sum()), 'value')} that {'is' if bad.sum() == 1 else 'are'} "
        f"not finite, the first a {what} at {place_in(tuple(array.shape), first)}"
    )


def check_fits(array: Array, dtype: str, name: str) -> None:
    """ValueError where a finite number of `array` exceeds what `dtype` holds."""
    if dtype != "float32" or dtype_name(array) not in ("float64", "int64", "uint64"):
        return
    xp = place_of(array).xp
    if not bool(xp.any(xp.abs(array) > TOP)):
        return
    host = to_host(array)
    first = int(np.argmax(np.abs(host) > TOP))
    raise ValueError(
        f"{name} exceeds float32 at {place_in(host.shape, first)} "
        f"({host.flat[first]:g}): scale it, or pass dtype='float64'"
    )
