"""NumPy made fast for a training step: the same calls, in buffers that are used again.

A step makes the same arrays in the same order every time, so the k-th array of a step is written
where the k-th of the step before lay; what leaves a step must be copied. Elementwise functions
run as their traced programs, written out as ufunc calls that each have a place for the result.
"""

from collections.abc import Callable, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from xpmlp.backends import compiled
from xpmlp.backends.tracing import (
    TRUTHS,
    Program,
    UntraceableError,
    arrays,
    constants,
    number,
    trace,
)
from xpmlp.core.apply import plain
from xpmlp.core.names import title
from xpmlp.core.types import Array, Namespace

ROWS = ("maximum", "minimum")  # NumPy is two to four times slower with a number than with a row


def chosen(condition: Array, one: Any, other: Any, out: Array) -> None:
    """np.where with a place for its result."""
    np.copyto(out, other)
    np.copyto(out, one, where=condition)


def cast(truths: Array, out: Array) -> None:
    np.copyto(out, truths, casting="unsafe")


SPECIAL: dict[str, Callable[..., Any]] = {"where": chosen, "cast": cast}


class Plan(NamedTuple):
    """A program written out for arguments of given shapes."""

    run: Callable[..., None]  # of the arguments, then of the places of the results
    made: tuple[tuple[tuple[int, ...], Any], ...]  # shape and dtype of each place
    results: tuple[int, ...]  # where each result is among arguments and places


class Writer:
    """Writes a program out as Python: one ufunc call a line, with scratch arrays of its own."""

    def __init__(self, program: Program, given: Sequence[Array], aliases: Sequence[int]) -> None:
        """aliases: of each buffer that a result is written into, which argument it is or -1;
        empty where the results are new arrays."""
        self.program, self.whole = program, bool(aliases)
        self.aliases = aliases or (-1,) * len(program.results)
        self.places = [f"r{r}" for r in range(len(program.results))]
        self.dtype = next((a.dtype for a in given if a.ndim), given[0].dtype)
        self.types = [(a.shape, self.dtype) for a in given]  # of every value
        self.names = [f"a{i}" for i in range(len(given))]  # of every value
        self.known: dict[str, Any] = {}  # what the lines refer to
        self.free: dict[Any, list[str]] = {}  # scratch arrays that nothing needs any more
        self.lines: list[str] = []

    def constant(self, name: str, number: float, like: tuple[int, ...]) -> str:
        """A number, or for `maximum` and `minimum` a row of it."""
        if name not in ROWS or not like:
            return repr(number) if np.isfinite(number) else self.keep(number)
        return self.keep(np.full((1,) * (len(like) - 1) + like[-1:], number, dtype=self.dtype))

    def keep(self, value: Any) -> str:
        name = f"k{len(self.known)}"
        self.known[name] = value
        return name

    def place(self, index: int, last: dict[int, int], i: int) -> str:
        """Where the result of operation i goes: a result's place if nothing there is needed
        any more, else scratch."""
        kind = self.types[index]
        until = i - (self.program.operations[i].name == "where")  # which writes before it reads
        for r, value in enumerate(self.program.results):
            if value.at == index:
                old = self.aliases[r]
                if old < 0 or last.get(old, -1) <= until:
                    return f"r{r}"
        pool = self.free.get(kind)
        return pool.pop() if pool else self.keep(np.empty(*kind))

    def plan(self) -> Plan:
        program, first = self.program, len(self.names)
        last = {v.at: i for i, o in enumerate(program.operations) for v in o.inputs}
        ends = {value.at for value in program.results}
        for i, (name, inputs) in enumerate(program.operations):
            shape = np.broadcast_shapes(*(self.types[v.at][0] for v in inputs if v.at >= 0))
            self.types.append((shape, np.dtype(bool) if name in TRUTHS else self.dtype))
            read = [
                self.names[v.at] if v.at >= 0 else self.constant(name, v.constant, shape)
                for v in inputs
            ]
            for v in {v.at for v in inputs if v.at >= first} - ends:
                if last[v] == i and self.names[v][0] == "k" and name != "where":
                    self.free.setdefault(self.types[v], []).append(self.names[v])
            self.names.append(self.place(first + i, last, i))
            self.known[name] = SPECIAL.get(name) or getattr(np, name)
            self.lines.append(f"{name}({', '.join(read)}, out={self.names[-1]})")
        for value, place, old in zip(program.results, self.places, self.aliases, strict=True):
            if value.at < 0:
                raise UntraceableError("it gives a constant")
            if self.whole and value.at < first and value.at != old:
                raise UntraceableError("it gives an argument, which may be written over by then")
            if self.whole and self.names[value.at] not in (place, f"a{old}"):
                self.lines.append(f"{place}[...] = {self.names[value.at]}")
        wanted = self.places if self.whole else [n for n in self.names if n[0] == "r"]
        made = [self.types[self.names.index(name)] for name in wanted if name in self.names]
        order = [*self.names[:first], *wanted]
        found = tuple(order.index(self.names[v.at]) for v in program.results) * (not self.whole)
        return Plan(self.function(order), tuple(made), found)

    def function(self, parameters: Sequence[str]) -> Callable[..., None]:
        body = "\n    ".join(self.lines or ["pass"])
        exec(f"def run({', '.join(parameters)}):\n    {body}", self.known)
        found: Callable[..., None] = self.known["run"]
        return found


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


def picked(given: tuple[Any, ...]) -> tuple[tuple[int, str | None], ...]:
    """Where `tracing.arrays` finds the arrays among what a function is given."""
    found: list[tuple[int, str | None]] = []
    for i, one in enumerate(given):
        if isinstance(one, SimpleNamespace):
            held = vars(one)
            found += [(i, name) for name in sorted(held) if not number(held[name])]
        elif not (number(one) or callable(one)):
            found.append((i, None))
    return tuple(found)


class Workspace:
    """The namespace and the `apply` of one trainer's steps. Not for two threads."""

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []
        self.calls: list[Call] = []
        self.made = self.called = 0  # arrays and calls of this step so far
        self.plans: dict[Any, Plan | None] = {}
        self.ones: dict[Any, np.ndarray] = {}
        names = {name: getattr(np, name) for name in dir(np) if not name.startswith("__")}
        own = {"matmul": self.matmul, "sum": self.sum, "__name__": "numpy"}
        own["__array_namespace_info__"] = np.__array_namespace_info__
        self.xp: Namespace = SimpleNamespace(**names | own)

    def restart(self) -> None:
        """Begin a step: its buffers may be written again."""
        self.made = self.called = 0

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The next array of this step, with whatever the step before left in it."""
        k = self.made
        self.made = k + 1
        if k < len(self.buffers):
            found = self.buffers[k]
            if found.shape == shape and found.dtype == dtype:
                return found
        self.buffers[k:] = [np.empty(shape, dtype=dtype)]
        return self.buffers[k]

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype or a.dtype.kind != "f":
            return np.matmul(a, b)
        if a.ndim == 2 and b.ndim == 2:
            return np.dot(a, b, self.buffer((a.shape[0], b.shape[1]), a.dtype))
        if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
            return np.matmul(a, b)
        return np.matmul(a, b, self.buffer((*a.shape[:-1], b.shape[-1]), a.dtype))

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        """np.sum; over the rows of a matrix as a product with ones, which is faster."""
        if axis != -2 or not keepdims or x.ndim != 2 or x.dtype.kind != "f":
            return np.sum(x, axis=axis, keepdims=keepdims)
        key = (x.shape[0], x.dtype.char)
        ones = self.ones.get(key)
        if ones is None:
            ones = self.ones[key] = np.ones((1, x.shape[0]), dtype=x.dtype)
        return np.dot(ones, x, self.buffer((1, x.shape[1]), x.dtype))

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
                given = tuple(one.copy() if isinstance(one, np.ndarray) else one for one in given)
            return plain(function, np if call.yours else xp, *given, into=into)
        values = [given[i] if name is None else getattr(given[i], name) for i, name in call.pick]
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
        yours = not all(ours(one) for one in (function, *given) if callable(one))
        plan = None if yours else self.planned(function, given, into)
        is_array = [isinstance(one, np.ndarray) for one in given]
        kinds = tuple((i, one.shape, one.dtype) for i, one in enumerate(given) if is_array[i])
        others = tuple((i, one) for i, one in enumerate(given) if not is_array[i])
        return Call(function, kinds, others, plan, picked(given), yours)

    def planned(
        self, function: Callable[..., Any], given: tuple[Any, ...], into: Sequence[Array]
    ) -> Plan | None:
        """The plan for such arguments; None for a function that is not elementwise, and for
        arguments of several dtypes or one that stands twice and is written over."""
        values = arrays(given)
        twice = any(sum(a is r for a in values) > 1 for r in into)
        if twice or len({a.dtype for a in (*values, *into)}) > 1:
            return None
        aliases = tuple(next((j for j, a in enumerate(values) if a is r), -1) for r in into)
        kinds = tuple((a.shape, a.dtype.char) for a in values)
        key = (function, constants(given), kinds, aliases)
        if key not in self.plans:
            try:
                program, run = trace(function, *given), None
                if into and compiled.suits(values, into):
                    run = compiled.loop(program, values, into, aliases, title(function))
                plan = Writer(program, values, aliases).plan() if run is None else Plan(run, (), ())
                self.plans[key] = plan
            except UntraceableError:
                self.plans[key] = None
        return self.plans[key]


def ours(function: Any) -> bool:
    """Whether a function, and all that it calls on, is of this library: a user's own is called
    every time, as it is."""
    if not isinstance(function, FunctionType):
        return False
    if not function.__globals__["__name__"].startswith("xpmlp."):
        return False
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    return all(ours(one) for one in held if callable(one))
