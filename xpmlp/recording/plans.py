"""The `apply` of a fast backend: functions run by plans that their traced programs are made into.

A step makes the same calls in the same order every time, so the k-th call of a step is first
compared with the k-th of the step before: nearly always its plan is found at once.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from xpmlp.activations import activation
from xpmlp.apply import plain
from xpmlp.layers.layer import Layer
from xpmlp.names import title
from xpmlp.recording.tracing import (
    REDUCTIONS,
    Program,
    UntraceableError,
    arrays,
    constants,
    picked,
    taken,
    trace,
)
from xpmlp.types import Array, Namespace


class Plan(NamedTuple):
    """A program written out for arguments of given shapes."""

    run: Callable[..., Any]  # of the arguments, then of the places of the results
    made: tuple[tuple[tuple[int, ...], Any], ...]  # shape and dtype of each place
    results: tuple[int, ...]  # where each result is among arguments and places


class Asked(NamedTuple):
    """What a plan is to be written of."""

    program: Program
    values: Sequence[Array]  # arguments like those that it will be run on
    into: Sequence[Array]  # the buffers of the results; empty where they are new arrays
    aliases: Sequence[int]  # which argument each buffer is, or -1
    name: str  # of the function


class Call(NamedTuple):
    """One call of `apply` as the step before made it."""

    function: Callable[..., Any]
    kinds: tuple[tuple[int, tuple[int, ...], Any], ...]  # position, shape, dtype of its arrays
    others: tuple[tuple[int, Any], ...]  # what else it was given, by position
    plan: Plan | None  # None for a function that is run as it is
    pick: tuple[tuple[int, str | None], ...]  # where the plan's arguments lie
    yours: bool  # whether a function of the user's is part of it

    def fits(self, function: Callable[..., Any], given: tuple[Any, ...]) -> bool:
        """Whether this is the call again: of the same function, numbers and namespaces, whose
        arrays may differ, and with arrays of the same shapes and dtypes."""
        if function is not self.function:
            return False
        for i, shape, dtype in self.kinds:
            if given[i].shape != shape or given[i].dtype != dtype:
                return False
        return all(given[i] is one for i, one in self.others)


def reach(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of what an operation of a program gives for inputs of these shapes."""
    if name in REDUCTIONS:
        return shapes[0][:-1] if name.endswith("flat") else (*shapes[0][:-1], 1)
    depth = max(map(len, shapes), default=0)
    padded = [(1,) * (depth - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


class Calls:
    """The `apply` of one trainer's steps. Not for two threads.

    A backend says how a plan is written and where its results go.
    """

    def __init__(self, base: Namespace, array: Any) -> None:
        """base: the namespace as it is, for functions of a user's; array: its arrays' type."""
        self.base, self.array = base, array
        self.calls: list[Call] = []
        self.called = 0  # calls of this step so far
        self.plans: dict[Any, Plan | None] = {}
        self.places: list[Array] = []  # where the results of the call under way are wanted

    def write(self, asked: Asked) -> Plan:
        """The plan that is asked for; UntraceableError if there is none."""
        raise NotImplementedError

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A place for a result of this step."""
        raise NotImplementedError

    def restart(self) -> None:
        """Begin a step."""
        self.called = 0

    def wanted(self, shape: tuple[int, ...], dtype: Any) -> Array | None:
        """Where the call under way wants a result of this shape, if it does."""
        for i, place in enumerate(self.places):
            if place.shape == shape and place.dtype == dtype:
                return self.places.pop(i)
        return None

    def apply(
        self, function: Callable[..., Any], xp: Namespace, *given: Any, into: Sequence[Array] = ()
    ) -> Any:
        """function(xp, *given) by its program, its results written `into` if given."""
        k = self.called
        self.called = k + 1
        if k < len(self.calls) and self.calls[k].fits(function, given):
            call = self.calls[k]
        else:
            call = self.first(function, given, into)
            self.calls[k:] = [call]
        plan = call.plan
        if plan is None:
            if call.yours:  # what a user keeps must not change
                given = tuple(one.copy() if isinstance(one, self.array) else one for one in given)
                return plain(function, self.base, *given, into=into)
            self.places = list(into)  # products and sums are made there at once
            try:
                return plain(function, xp, *given, into=into)
            finally:
                self.places = []
        values = taken(given, call.pick)
        if into:
            return plan.run(*values, *into)
        values += [self.buffer(shape, dtype) for shape, dtype in plan.made]
        plan.run(*values)
        if len(plan.results) == 1:
            return values[plan.results[0]]
        return tuple([values[at] for at in plan.results])

    def first(
        self, function: Callable[..., Any], given: tuple[Any, ...], into: Sequence[Array]
    ) -> Call:
        yours = not all_ours((function, *given))
        plan = None if yours else self.planned(function, given, into)
        is_array = [isinstance(one, self.array) for one in given]
        kinds = tuple((i, one.shape, one.dtype) for i, one in enumerate(given) if is_array[i])
        others = tuple((i, one) for i, one in enumerate(given) if not is_array[i])
        return Call(function, kinds, others, plan, picked(given), yours)

    def planned(
        self, function: Callable[..., Any], given: tuple[Any, ...], into: Sequence[Array]
    ) -> Plan | None:
        """The plan for such arguments; None for a function that is not elementwise, and for an
        argument that stands twice and is written over."""
        values = arrays(given)
        if any(sum(a is r for a in values) > 1 for r in into):
            return None
        aliases = tuple(next((j for j, a in enumerate(values) if a is r), -1) for r in into)
        kinds = tuple((a.shape, a.dtype.char) for a in values)
        key = (function, constants(given), kinds, aliases)
        if key not in self.plans:
            try:
                program = trace(function, *given)
                asked = Asked(program, values, into, aliases, title(function))
                self.plans[key] = self.write(asked)
            except UntraceableError:
                self.plans[key] = None
        return self.plans[key]


def ours(function: Any) -> bool:
    """Whether a function, and all that it calls on, is of this library: a user's own is called
    every time, as it is."""
    if isinstance(function, Layer):
        own = type(function).__module__.startswith("xpmlp.")
        return own and all_ours([part for f in map(activation, function.activations) for part in f])
    if not isinstance(function, FunctionType):
        return False
    if not function.__globals__["__name__"].startswith("xpmlp."):
        return False
    return all_ours([cell.cell_contents for cell in function.__closure__ or ()])


def all_ours(given: Sequence[Any]) -> bool:
    """Whether the functions and layers among these are this library's."""
    return all(ours(one) for one in given if callable(one) or isinstance(one, Layer))
