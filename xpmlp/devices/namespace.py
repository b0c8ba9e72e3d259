"""An array's namespace and device, and conversion to and from the host."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from xpmlp.types import Array, Namespace


class Place(NamedTuple):
    """Where arrays live: a namespace and one of its devices."""

    xp: Namespace
    device: Any  # what the namespace's asarray takes; None is its default
    name: str  # the device word "cpu" or "gpu:0"; for other namespaces "torch cpu" and the like


CPU = Place(np, None, "cpu")


@contextmanager
def running(place: Place) -> Iterator[None]:
    """A context in which the place's device is the current one, and overflow is no warning, as
    results are checked by themselves."""
    device = place.device if hasattr(place.device, "__enter__") else nullcontext()
    with np.errstate(all="ignore"), device:
        yield


def is_array(value: object) -> bool:
    """Whether `value` is an array of some Array API namespace (NumPy's included)."""
    if isinstance(value, np.ndarray | np.generic):
        return True
    # the package of any other namespace's array is imported already
    if not hasattr(value, "__dlpack__") and not hasattr(value, "__array_namespace__"):
        return False
    from array_api_compat import is_array_api_obj

    return bool(is_array_api_obj(value))


def place_of(value: object) -> Place:
    """The place of `value`; lists, frames and anything else without a namespace are on the CPU."""
    if isinstance(value, np.ndarray | np.generic) or not is_array(value):
        return CPU
    from array_api_compat import array_namespace, device, is_cupy_array

    if is_cupy_array(value):
        return Place(array_namespace(value), device(value), f"gpu:{device(value).id}")
    xp = array_namespace(value)
    return Place(xp, device(value), f"{xp.__name__.rpartition('.')[2]} {device(value)}")


def to_host(value: Array) -> np.ndarray:
    """`value` as a NumPy array, copied from its device if need be."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    from array_api_compat import is_array_api_strict_namespace, is_cupy_array, is_torch_array

    if is_cupy_array(value):
        return value.get()  # type: ignore[no-any-return]
    if is_torch_array(value):
        host = value.detach().cpu()
        # NumPy has no bfloat16; float32 holds every number of it
        return (host.float() if dtype_name(host) == "bfloat16" else host).numpy()  # type: ignore[no-any-return]
    xp = value.__array_namespace__()
    if is_array_api_strict_namespace(xp):
        return np.from_dlpack(value.to_device(xp.Device("CPU_DEVICE")))
    return np.asarray(value)  # JAX's and others' convert themselves


def to_place(place: Place, value: np.ndarray, dtype: str | None = None) -> Array:
    """A NumPy array as an array of `place`, in the dtype of that name or its own."""
    if dtype is not None:
        value = value.astype(dtype, copy=False)
    value = np.asarray(value, order="C")  # a strided product may round in another order
    if place.xp is np:
        return value
    return place.xp.asarray(value, device=place.device, copy=True)


@cache  # NumPy computes it each time
def numpy_name(dtype: np.dtype[Any]) -> str:
    return str(dtype.name)  # str() would write another byte order as ">f4"


def dtype_name(value: Array) -> str:
    """The name of an array's dtype in NumPy's words: "float32", "int64", "bool", ..."""
    if isinstance(value.dtype, np.dtype):
        return numpy_name(value.dtype)
    return str(value.dtype).rpartition(".")[2]


def like_caller(caller: object, value: Array, place: Place) -> Array:
    """`value`, an array of `place`, in the namespace and on the device of `caller`."""
    target = place_of(caller)
    if target.name == place.name:
        return value
    return to_place(target, to_host(value))
