"""Programs that change nothing where a condition does not hold, and everything where it does.

Element by element, a choice costs a ufunc two more passes. On the host the condition can be read
beforehand: where it holds everywhere, the program without the choices gives the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xpmlp.recording.tracing import Program, Value
from xpmlp.types import Array


class GuardedProgram(NamedTuple):
    """A program whose results are all where(a > 0, new, old value of the buffer)."""

    condition: int  # index of the argument a
    unguarded: Program  # of the new results alone


def find_guard(program: Program, aliases: Sequence[int]) -> GuardedProgram | None:
    """The program with its guard apart; None where it has none.

    aliases: which argument the buffer of each result is, or -1.
    """
    count, first = len(aliases), program.n_arguments
    choices = program.operations[-count:] if aliases else ()
    n_kept = len(program.operations) - count - 1
    expected = [*range(n_kept + 1, n_kept + 1 + count)]
    if n_kept < 0 or [v.at - first for v in program.results] != expected:
        return None
    guard = program.operations[n_kept]
    condition = guard.inputs[0].at
    if guard.name != "greater" or guard.inputs[1] != Value(-1, 0.0) or not 0 <= condition < first:
        return None
    for choice, old in zip(choices, aliases, strict=True):
        if choice.name != "where" or choice.inputs[::2] != (Value(first + n_kept), Value(old)):
            return None
    results = tuple(choice.inputs[1] for choice in choices)
    unguarded = program._replace(operations=program.operations[:n_kept], results=results)
    return GuardedProgram(condition, unguarded)


def run_guarded(
    condition: int, unguarded: Callable[..., None], guarded: Callable[..., None]
) -> Callable[..., None]:
    """`unguarded` where the argument at index `condition` is above 0 everywhere, else `guarded`."""

    def run(*arrays: Array) -> None:
        a: Any = arrays[condition]
        above = a.item() > 0 if a.size == 1 else (a > 0).all()
        (unguarded if above else guarded)(*arrays)

    return run
