"""Programs that change nothing where a condition does not hold, and everything where it does.

Element by element, a choice costs a ufunc two more passes. On the host the condition can be read
beforehand: where it holds everywhere, the program without the choices gives the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xpmlp.recording.tracing import Program, Value
from xpmlp.types import Array


class Guarded(NamedTuple):
    """A program whose results are all where(a > 0, new, what lay there)."""

    at: int  # which argument a is
    moving: Program  # to the new results alone


def guarded(program: Program, aliases: Sequence[int]) -> Guarded | None:
    """The program without its guard; None where it has none.

    aliases: which argument lies where each result goes, or -1.
    """
    count, first = len(aliases), program.arguments
    ends = program.operations[-count:] if aliases else ()
    kept = len(program.operations) - count - 1
    if kept < 0 or [v.at - first for v in program.results] != [*range(kept + 1, kept + 1 + count)]:
        return None
    condition = program.operations[kept]
    at = condition.inputs[0].at
    if condition.name != "greater" or condition.inputs[1] != Value(-1, 0.0) or not 0 <= at < first:
        return None
    for operation, old in zip(ends, aliases, strict=True):
        if operation.name != "where" or operation.inputs[::2] != (Value(first + kept), Value(old)):
            return None
    results = tuple(operation.inputs[1] for operation in ends)
    return Guarded(at, program._replace(operations=program.operations[:kept], results=results))


def choosing(
    at: int, moving: Callable[..., None], careful: Callable[..., None]
) -> Callable[..., None]:
    """`moving` where argument `at` is above 0 everywhere, else `careful`."""

    def run(*arrays: Array) -> None:
        a: Any = arrays[at]
        above = a.item() > 0 if a.size == 1 else (a > 0).all()
        (moving if above else careful)(*arrays)

    return run
