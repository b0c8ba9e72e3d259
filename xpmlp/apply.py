"""How the small functions of a step are run: the one seam where a backend makes them fast."""

from collections.abc import Callable, Sequence
from typing import Any

from xpmlp.types import Array


def plain(function: Callable[..., Any], *arguments: Any, into: Sequence[Array] = ()) -> Any:
    """function(*arguments) as it is, its results written `into` buffers where they are given.

    A backend's own `apply` takes the same and gives the same numbers, in fewer passes.
    """
    results = function(*arguments)
    if into:
        apart = [pair for pair in zip(into, results, strict=True) if pair[0] is not pair[1]]
        if any(result is buffer for _, result in apart for buffer in into):
            # a result that is another's buffer is taken before that is written over
            apart = [(buffer, arguments[0].asarray(r, copy=True)) for buffer, r in apart]
        for buffer, result in apart:
            buffer[...] = result
    return results


def account(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of numbers about a step, one or one for each network. Nothing reads what it
    gives before the update, so that a backend may run several such functions as one."""
    vars(function)["is_account"] = True
    return function


def is_account(function: Callable[..., Any]) -> bool:
    return getattr(function, "is_account", False)
