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

    name: what the word was given as, for error messages.
    """
    index = numbered(word, name)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    asked: Any = precision
    if word == "auto":
        try:
            return cuda.place(0, asked)
        except cuda.GPUUnavailableError:
            word = "cpu"
    if word == "cpu":
        return exact(CPU, precision)
    return cuda.place(index, asked)


def numbered(word: Any, name: str) -> int:
    """The number of the GPU that a device word names, 0 where it has none; ValueError for what
    is no device word."""
    kind, colon, index = word.partition(":") if isinstance(word, str) else ("", "", "")
    if word in ("auto", "cpu") or (kind in ("gpu", "cuda") and (index.isdecimal() or not colon)):
        return int(index or 0)
    hint = nearest(str(word), list(WORDS))
    raise ValueError(f"{name} {word!r} is unknown{hint} Known: {', '.join(WORDS)}")


def exact(place: Place, precision: str) -> Place:
    """`place`, which multiplies in full precision; ValueError where another is asked for."""
    if precision != "full":
        raise ValueError(f"precision {precision!r} needs a GPU; the device is {place.name}")
    return place


def choose(word: str | None, X: object, precision: str = "full") -> Place:
    """Where to train: the device word, else the environment variable, else where X lies."""
    if word is not None:
        return place_for(word, precision)
    if VARIABLE in os.environ:
        return place_for(os.environ[VARIABLE], precision, VARIABLE)
    return home(X, precision)


def home(X: object, precision: str = "full") -> Place:
    """Where X lies, if training can write there; else the CPU."""
    found = place_of(X)
    if found.name.startswith("gpu:"):
        return place_for(found.name, precision)
    return exact(found if writable(X) else CPU, precision)


def writable(X: object) -> bool:
    """Whether arrays of X's namespace can be written in place (JAX's cannot)."""
    if place_of(X) is CPU:
        return True
    from array_api_compat import is_writeable_array

    return bool(is_writeable_array(X))


def free_bytes(place: Place) -> int | None:
    """Bytes that could be had on a GPU; None elsewhere, where nobody counts them."""
    if not place.name.startswith("gpu:"):
        return None
    import cupy

    with running(place):
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())


def release(place: Place) -> None:
    """Give the memory that nobody uses any more back to a GPU's others, and what was pinned for
    copies to the host's."""
    if place.name.startswith("gpu:") and not sys.is_finalizing():  # the process frees all
        import cupy

        with running(place):
            cupy.get_default_memory_pool().free_all_blocks()
            cupy.get_default_pinned_memory_pool().free_all_blocks()


def default_word() -> str:
    """The device word of a command that was given none: the environment variable's, or auto."""
    word = os.environ.get(VARIABLE, "auto")
    numbered(word, VARIABLE)
    return word
