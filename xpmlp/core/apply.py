"""How elementwise functions are run: the one seam through which a backend makes them fast."""

from collections.abc import Callable, Sequence
from typing import Any

from xpmlp.core.types import Array


def plain(function: Callable[..., Any], *arguments: Any, into: Sequence[Array] = ()) -> Any:
    """function(*arguments) as it is, its results written `into` buffers where they are given.

    A backend's own `apply` takes the same and gives the same numbers, in fewer passes.
    """
    results = function(*arguments)
    kept = [
        arguments[0].asarray(result, copy=True)
        if any(result is other for other in into)
        else result
        for result in (results if into else ())
    ]  # a result that is a buffer itself is taken before that is written over
    for buffer, result in zip(into, kept, strict=True):
        buffer[...] = result
    return results
