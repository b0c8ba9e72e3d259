"""How elementwise functions are run: the one seam through which a backend makes them fast."""

from collections.abc import Callable, Sequence
from typing import Any

from xpmlp.core.types import Array


def plain(function: Callable[..., Any], *arguments: Any, into: Sequence[Array] = ()) -> Any:
    """function(*arguments) as it is, its results written `into` buffers where they are given.

    A backend's own `apply` takes the same and gives the same numbers, in fewer passes.
    """
    results = function(*arguments)
    for buffer, result in zip(into, results if into else (), strict=True):
        buffer[...] = result
    return results
