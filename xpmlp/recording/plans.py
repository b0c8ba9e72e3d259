"""The `apply` of a fast backend: functions run by plans compiled from their traced programs.

A step makes the same calls in the same order every time, so the k-th call of a step is first
compared with the k-th of the previous step: nearly always its plan is found at once.
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
    array_positions,
    arrays,
    constants,
    select,
    trace,
)
from xpmlp.types import Array, Namespace


class Plan(NamedTuple):
    """A program compiled for arguments of given shapes."""

    run: Callable[..., Any]  # of the arguments, then of the output arrays
    outputs: tuple[tuple[tuple[int, ...], Any], ...]  # shape and dtype of each new output array
    result_indices: tuple[int, ...]  # of each result, among arguments and outputs


class CompileRequest(NamedTuple):
    """What a plan is compiled from."""

    program: Program
    arguments: Sequence[Array]  # arrays like those that it will be run on
    into: Sequence[Array]  # the buffers of the results; empty where they are new arrays
    aliases: Sequence[int]  # which argument each buffer is, or -1
    name: str  # of the function


class CachedCall(NamedTuple):
    """One call of `apply`, as the previous step made it."""

    function: Callable[..., Any]
    array_types: tuple[tuple[int, tuple[int, ...], Any], ...]  # position, shape, dtype
    other_args: tuple[tuple[int, Any], ...]  # position and value
    plan: Plan | None  # None for a function that is run as it is
    positions: tuple[tuple[int, str | None], ...]  # of the plan's arguments
    is_foreign: bool  # whether a user's own function is part of it

    def matches(self, function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether this is the same call again: of the same function, numbers and namespaces, with
        arrays of the same shapes and dtypes. The arrays in a namespace are not compared."""
        if function is not self.function:
            return False
        for i, shape, dtype in self.array_types:
            if args[i].shape != shape or args[i].dtype != dtype:
                return False
        return all(args[i] is value for i, value in self.other_args)


def broadcast_shape(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of an operation's result for inputs of these shapes."""
    if name in REDUCTIONS:
        return shapes[0][:-1] if name.endswith("flat") else (*shapes[0][:-1], 1)
    depth = max(map(len, shapes), default=0)
    padded = [(1,) * (depth - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


class PlanCache:
    """The `apply` of one trainer's steps. Not thread-safe.

    A backend says how a program is compiled and where its results are allocated.
    """

    def __init__(self, base: Namespace, array_type: Any) -> None:
        """base: the unmodified namespace, for a user's own functions."""
        self.base, self.array_type = base, array_type
        self.calls: list[CachedCall] = []
        self.call_index = 0  # calls of this step so far
        self.plans: dict[Any, Plan | None] = {}
        self.destinations: list[Array] = []  # buffers for the results of the current call

    def compile(self, request: CompileRequest) -> Plan:
        """The plan of a program; UntraceableError if there is none."""
        raise NotImplementedError

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array for a result of this step, of any content."""
        raise NotImplementedError

    def restart(self) -> None:
        """Begin a step."""
        self.call_index = 0

    def pop_destination(self, shape: tuple[int, ...], dtype: Any) -> Array | None:
        """The buffer of the current call for a result of this shape and dtype, if it has one."""
        for i, buffer in enumerate(self.destinations):
            if buffer.shape == shape and buffer.dtype == dtype:
                return self.destinations.pop(i)
        return None

    def apply(
        self, function: Callable[..., Any], xp: Namespace, *args: Any, into: Sequence[Array] = ()
    ) -> Any:
        """function(xp, *args) by its plan; the results are written `into` buffers where given."""
        k = self.call_index
        self.call_index = k + 1
        if k < len(self.calls) and self.calls[k].matches(function, args):
            call = self.calls[k]
        else:
            call = self.new_call(function, args, into)
            self.calls[k:] = [call]
        plan = call.plan
        if plan is None:
            if call.is_foreign:  # the user may keep the arrays, and ours are written over
                args = tuple(x.copy() if isinstance(x, self.array_type) else x for x in args)
                return plain(function, self.base, *args, into=into)
            self.destinations = list(into)  # products and sums are written there at once
            try:
                return plain(function, xp, *args, into=into)
            finally:
                self.destinations = []
        values = select(args, call.positions)
        if into:
            return plan.run(*values, *into)
        values += [self.allocate(shape, dtype) for shape, dtype in plan.outputs]
        plan.run(*values)
        if len(plan.result_indices) == 1:
            return values[plan.result_indices[0]]
        return tuple([values[i] for i in plan.result_indices])

    def new_call(
        self, function: Callable[..., Any], args: tuple[Any, ...], into: Sequence[Array]
    ) -> CachedCall:
        is_foreign = not all_own((function, *args))
        plan = None if is_foreign else self.find_plan(function, args, into)
        is_array = [isinstance(x, self.array_type) for x in args]
        array_types = tuple((i, x.shape, x.dtype) for i, x in enumerate(args) if is_array[i])
        other_args = tuple((i, x) for i, x in enumerate(args) if not is_array[i])
        positions = array_positions(args)
        return CachedCall(function, array_types, other_args, plan, positions, is_foreign)

    def find_plan(
        self, function: Callable[..., Any], args: tuple[Any, ...], into: Sequence[Array]
    ) -> Plan | None:
        """The plan for such arguments; None for a function that cannot be traced, and for an
        argument that is passed twice and written over."""
        values = arrays(args)
        if any(sum(a is r for a in values) > 1 for r in into):
            return None
        aliases = tuple(next((j for j, a in enumerate(values) if a is r), -1) for r in into)
        array_types = tuple((a.shape, a.dtype.char) for a in values)
        key = (function, constants(args), array_types, aliases)
        if key not in self.plans:
            try:
                program = trace(function, *args)
                request = CompileRequest(program, values, into, aliases, title(function))
                self.plans[key] = self.compile(request)
            except UntraceableError:
                self.plans[key] = None
        return self.plans[key]


def is_own(function: Any) -> bool:
    """Whether a function, and every function that it calls, is part of this library: a user's own
    is called every time, as it is."""
    if isinstance(function, Layer):
        own = type(function).__module__.startswith("xpmlp.")
        return own and all_own([part for f in map(activation, function.activations) for part in f])
    if not isinstance(function, FunctionType):
        return False
    if not str(function.__globals__.get("__name__")).startswith("xpmlp."):
        return False
    return all_own([cell.cell_contents for cell in function.__closure__ or ()])


def all_own(args: Sequence[Any]) -> bool:
    """Whether every function and layer among these is part of this library."""
    return all(is_own(x) for x in args if callable(x) or isinstance(x, Layer))
