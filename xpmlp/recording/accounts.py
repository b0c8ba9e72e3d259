"""The accounts of a step as one function: small calls are queued and run together.

A step counts itself, computes its learning rate, and adds up its loss: one number, or one for each
network, which nothing reads before the update. One kernel computes all of them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from xpmlp.types import Array, Namespace


class PendingCall(NamedTuple):
    """A call in the queue."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    into: Sequence[Array]


class ArrayIndex(NamedTuple):
    """Stands for an array among those of the joint call."""

    position: int


@lru_cache(256)  # the same function again, so that its plan is found in the cache
def joint_function(
    parts: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...],
) -> Callable[..., Any]:
    """Several functions as one. parts: each with its arguments."""

    def accounts(xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        results: list[Array] = []
        for function, args in parts:
            values = (arrays[x.position] if type(x) is ArrayIndex else x for x in args)
            results += function(xp, *values)
        return tuple(results)

    return accounts


class Accounts:
    """Calls on small arrays of one namespace, in the order in which they were queued."""

    def __init__(self, array_type: Any) -> None:
        self.array_type = array_type
        self.calls: list[PendingCall] = []

    def arrays(self, values: Sequence[Any]) -> list[Any]:
        return [x for x in values if isinstance(x, self.array_type)]

    def can_join(self, call: PendingCall) -> bool:
        """Whether a call may run at the same time as those in the queue: it touches nothing that
        they write, and writes nothing for all networks that they read for each."""
        writes = {x.data.ptr for pending in self.calls for x in self.arrays(pending.into)}
        reads = {x.data.ptr for pending in self.calls for x in self.arrays(pending.args)}
        touched = {x.data.ptr for x in self.arrays((*call.args, *call.into))}
        largest = max(x.size for each in (*self.calls, call) for x in each.into)
        shared = {x.data.ptr for x in call.into if x.size < largest}
        return not (writes & touched or reads & shared)

    def join(self) -> tuple[Callable[..., Any], list[Array], list[Array]]:
        """Empty the queue: its calls as one function, the function's flat arguments, and those
        that it writes."""
        calls, self.calls = self.calls, []
        indices: dict[tuple[int, int], int] = {}
        flat: list[Array] = []

        def indexed(x: Any) -> Any:
            if not isinstance(x, self.array_type):
                return x
            key = (x.data.ptr, x.size)
            if key not in indices:
                indices[key] = len(flat)
                flat.append(x.reshape(-1))
            return ArrayIndex(indices[key])

        parts = tuple((call.function, tuple(map(indexed, call.args))) for call in calls)
        args = list(flat)
        into = [flat[indexed(x).position] for call in calls for x in call.into]
        return joint_function(parts), args, into
