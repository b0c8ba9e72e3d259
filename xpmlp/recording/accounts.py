"""The accounts of a step as one function: small calls are held back and run together.

A step counts itself, finds its rate, and adds up its loss: numbers of one or one for each
network, which nothing reads before the update. One kernel does for all of them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from xpmlp.types import Array, Namespace


class PendingCall(NamedTuple):
    """A call that is held back."""

    function: Callable[..., Any]
    given: tuple[Any, ...]
    into: Sequence[Array]


class ArrayIndex(NamedTuple):
    """Stands for an array among those of the joint call."""

    at: int


@lru_cache(256)  # the same function again, so that what was made of it is found
def joint_function(
    parts: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...],
) -> Callable[..., Any]:
    """Several functions as one. parts: each with what it is given."""

    def accounts(xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        results: list[Array] = []
        for function, given in parts:
            results += function(xp, *(arrays[x.at] if type(x) is ArrayIndex else x for x in given))
        return tuple(results)

    return accounts


class Accounts:
    """Calls on small arrays of one namespace, in the order in which they were held back."""

    def __init__(self, array: Any) -> None:
        """array: the type of the arrays."""
        self.array = array
        self.calls: list[PendingCall] = []

    def arrays(self, of: Sequence[Any]) -> list[Any]:
        return [one for one in of if isinstance(one, self.array)]

    def can_join(self, call: PendingCall) -> bool:
        """Whether a call may run at the same time as those that are held: it touches nothing that
        they write, and writes nothing for all networks that they read for each."""
        writes = {x.data.ptr for held in self.calls for x in self.arrays(held.into)}
        reads = {x.data.ptr for held in self.calls for x in self.arrays(held.given)}
        touched = {x.data.ptr for x in self.arrays((*call.given, *call.into))}
        most = max(x.size for one in (*self.calls, call) for x in one.into)
        shared = {x.data.ptr for x in call.into if x.size < most}
        return not (writes & touched or reads & shared)

    def joined(self) -> tuple[Callable[..., Any], list[Array], list[Array]]:
        """What is held as one function, the flat arrays that it is given, and those it writes."""
        calls, self.calls = self.calls, []
        indices: dict[tuple[int, int], int] = {}
        flat: list[Array] = []

        def indexed(one: Any) -> Any:
            if not isinstance(one, self.array):
                return one
            key = (one.data.ptr, one.size)
            if key not in indices:
                indices[key] = len(flat)
                flat.append(one.reshape(-1))
            return ArrayIndex(indices[key])

        parts = tuple((call.function, tuple(map(indexed, call.given))) for call in calls)
        given = list(flat)
        into = [flat[indexed(x).at] for call in calls for x in call.into]
        return joint_function(parts), given, into
