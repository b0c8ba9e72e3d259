"""Device words: auto, cpu, gpu, gpu:N (cuda is an alias), the same everywhere."""

import os
import sys
from typing import Any

from xpmlp.devices import cuda
from xpmlp.devices.namespace import CPU, Place, place_of, running
from xpmlp.names import nearest

WORDS = ("auto", "cpu", "gpu", "gpu:N", "cuda", "cuda:N")
PRECISIONS = ("full", "tf32")
VARIABLE = "XPMLP_DEVICE"


def place_for(word: str, precision: str = "full", name: str = "device") -> Place:
    """The place that a device word names. `gpu` never falls back; `auto` may.

    name: of the parameter, for error messages.
    """
    index = gpu_index(word, name)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    checked: Any = precision
    if word == "auto":
        try:
            return cuda.place(0, checked)
        except cuda.GPUUnavailableError:
            word = "cpu"
    if word == "cpu":
        return require_full_precision(CPU, precision)
    return cuda.place(index, checked)


def gpu_index(word: Any, name: str) -> int:
    """The index of the GPU that a device word names, 0 where it has none; ValueError for an
    unknown word."""
    kind, colon, index = word.partition(":") if isinstance(word, str) else ("", "", "")
    if word in ("auto", "cpu") or (kind in ("gpu", "cuda") and (index.isdecimal() or not colon)):
        return int(index or 0)
    hint = nearest(str(word), list(WORDS))
    raise ValueError(f"{name} {word!r} is unknown{hint} Known: {', '.join(WORDS)}")


def require_full_precision(place: Place, precision: str) -> Place:
    """`place`, which supports full precision alone; ValueError for another one."""
    if precision != "full":
        raise ValueError(f"precision {precision!r} needs a GPU; the device is {place.name}")
    return place


def choose_place(word: str | None, X: object, precision: str = "full") -> Place:
    """Where to train: at the device word's place, else at the environment variable's, else at
    X's."""
    if word is not None:
        return place_for(word, precision)
    if VARIABLE in os.environ:
        return place_for(os.environ[VARIABLE], precision, VARIABLE)
    return writable_place(X, precision)


def writable_place(X: object, precision: str = "full") -> Place:
    """The place of X, if its arrays can be written in place; else the CPU."""
    place = place_of(X)
    if place.name.startswith("gpu:"):
        return place_for(place.name, precision)
    return require_full_precision(place if is_writable(X) else CPU, precision)


def is_writable(X: object) -> bool:
    """Whether arrays of X's namespace can be written in place (JAX's cannot)."""
    if place_of(X) is CPU:
        return True
    from array_api_compat import is_writeable_array

    return bool(is_writeable_array(X))


def free_bytes(place: Place) -> int | None:
    """Bytes that can be allocated on a GPU; None elsewhere, where they are unknown."""
    if not place.name.startswith("gpu:"):
        return None
    import cupy

    with running(place):
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())


def release(place: Place) -> None:
    """Free the unused memory of CuPy's pools, on the GPU and pinned on the host."""
    if place.name.startswith("gpu:") and not sys.is_finalizing():  # the process frees it
        import cupy

        with running(place):
            cupy.get_default_memory_pool().free_all_blocks()
            cupy.get_default_pinned_memory_pool().free_all_blocks()


def default_word() -> str:
    """The default device word of a command: the environment variable's, or auto."""
    word = os.environ.get(VARIABLE, "auto")
    gpu_index(word, VARIABLE)
    return word
