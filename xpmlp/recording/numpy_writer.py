"""NumPy made fast for a training step: the same calls, in buffers that are used again.

A step makes the same arrays in the same order every time, so the k-th array of a step is written
where the k-th of the step before lay; what leaves a step must be copied. Elementwise functions
run as their traced programs, written out as ufunc calls that each have a place for the result.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.recording import numba_writer
from xpmlp.recording.guards import choosing, guarded
from xpmlp.recording.plans import Asked, Calls, Plan, reach
from xpmlp.recording.tracing import Program, UntraceableError
from xpmlp.types import Array, Namespace

ROWS = ("maximum", "minimum")  # NumPy is two to four times slower with a number than with a row
NAMES = {name: value for name, value in vars(np).items() if not name.startswith("__")}
WIDE = 16  # rows and columns of an outer product that matmul, without BLAS, is slow for


def chosen(condition: Array, one: Any, other: Any, out: Array) -> None:
    """np.where with a place for its result."""
    if other is not out:
        np.copyto(out, other)
    np.copyto(out, one, where=condition)


def cast(truths: Array, out: Array) -> None:
    np.copyto(out, truths, casting="unsafe")


def product(a: Array, b: Array) -> Callable[..., Any]:
    """The fastest of NumPy's ways to multiply two matrices, or two stacks of them."""
    if a.ndim == 2 and b.ndim == 2:
        return np.dot
    outer = a.shape[-1] == 1 and min(a.shape[-2], b.shape[-1]) >= WIDE
    return np.multiply if outer else np.matmul


SPECIAL: dict[str, Callable[..., Any]] = {
    "where": chosen, "cast": cast, "sum": np.add.reduce, "max": np.maximum.reduce,
    "sum_flat": np.add.reduce, "max_flat": np.maximum.reduce,
}  # fmt: skip
# axis, dtype, out, keepdims: by position, which is faster
LINES = {"sum": "({}, -1, None, {}, True)", "sum_flat": "({}, -1, None, {})"}
LINES |= {"max": LINES["sum"], "max_flat": LINES["sum_flat"]}


class Writer:
    """Writes a program out as Python: one ufunc call a line, with scratch arrays of its own."""

    def __init__(self, program: Program, given: Sequence[Array], aliases: Sequence[int]) -> None:
        """aliases: of each buffer that a result is written into, which argument it is or -1;
        empty where the results are new arrays."""
        self.program, self.whole = program, bool(aliases)
        self.aliases = aliases or (-1,) * len(program.results)
        self.places = [f"r{r}" for r in range(len(program.results))]
        self.dtype = next((a.dtype for a in given if a.ndim), given[0].dtype)
        self.types = [(a.shape, a.dtype) for a in given]  # of every value
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
        name, inputs = self.program.operations[i]
        for r, value in enumerate(self.program.results):
            if value.at == index:
                old = self.aliases[r]
                # which writes before it reads, but for what lies there as its other value
                until = i - (name == "where" and inputs[2].at != old)
                if old < 0 or last.get(old, -1) <= until:
                    return f"r{r}"
        pool = self.free.get(kind)
        if pool:
            return pool.pop()
        return self.lent(index, last, i) or self.keep(np.empty(*kind))

    def lent(self, index: int, last: dict[int, int], i: int) -> str | None:
        """The place of a result that is made later, if what lies there is needed no more and the
        result of operation i no longer than until then."""
        results, operations = self.program.results, self.program.operations
        if index in {value.at for value in results}:
            return None
        first = index - i  # how many arguments there are
        for r, (value, old) in enumerate(zip(results, self.aliases, strict=True)):
            if old < 0 or value.at < first or f"r{r}" in self.names:
                continue
            made = value.at - first
            until = made - (operations[made][0] == "where")  # which writes before it reads
            dead = last.get(old, -1) <= i - (operations[i][0] == "where")
            if dead and last.get(index, i) <= until and self.types[old] == self.types[index]:
                return f"r{r}"
        return None

    def plan(self) -> Plan:
        program, first = self.program, len(self.names)
        last = {v.at: i for i, o in enumerate(program.operations) for v in o.inputs}
        ends = {value.at for value in program.results}
        for i, (name, inputs) in enumerate(program.operations):
            shape = reach(name, [self.types[v.at][0] for v in inputs if v.at >= 0])
            self.types.append((shape, np.dtype(program.dtypes[i])))
            read = [
                self.names[v.at] if v.at >= 0 else self.constant(name, v.constant, shape)
                for v in inputs
            ]
            for v in {v.at for v in inputs if v.at >= first} - ends:
                if last[v] == i and self.names[v][0] == "k" and name != "where":
                    self.free.setdefault(self.types[v], []).append(self.names[v])
            self.names.append(self.place(first + i, last, i))
            self.known[name] = SPECIAL.get(name) or getattr(np, name)
            form = LINES.get(name, f"({'{}, ' * len(read)}out={{}})")
            self.lines.append(name + form.format(*read, self.names[-1]))
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
        results = () if self.whole else program.results
        found = tuple(order.index(self.names[v.at]) for v in results)
        return Plan(self.function(order), tuple(made), found)

    def function(self, parameters: Sequence[str]) -> Callable[..., None]:
        body = "\n    ".join(self.lines or ["pass"])
        exec(f"def run({', '.join(parameters)}):\n    {body}", self.known)
        found: Callable[..., None] = self.known["run"]
        return found


class Workspace(Calls):
    """The namespace and the `apply` of one trainer's steps. Not for two threads."""

    def __init__(self, steps: int | None = 0) -> None:
        """steps: how many are planned; with many of them small calls are compiled too, and with
        None nothing is."""
        super().__init__(np, np.ndarray)
        self.steps = steps
        self.buffers: list[np.ndarray] = []
        self.made = 0  # arrays of this step so far
        self.ones: dict[Any, np.ndarray] = {}
        self.scratch = 0  # numbers that the plans write in between
        own = {"matmul": self.matmul, "vecdot": self.vecdot, "sum": self.sum, "__name__": "numpy"}
        own["__array_namespace_info__"] = np.__array_namespace_info__
        self.xp: Namespace = SimpleNamespace(**NAMES | own)

    def restart(self) -> None:
        """Begin a step: its buffers may be written again."""
        super().restart()
        self.made = 0

    def write(self, asked: Asked) -> Plan:
        program, values, _, aliases, _ = asked
        fast = None if self.steps is None else numba_writer.plan(asked, self.steps)
        if fast is not None:
            return fast
        plan, guard = self.written(program, values, aliases), guarded(program, aliases)
        if guard is None:
            return plan
        moving = self.written(guard.moving, values, aliases)
        return Plan(choosing(guard.at, moving.run, plan.run), (), ())

    def written(self, *asked: Any) -> Plan:
        writer = Writer(*asked)
        plan = writer.plan()
        self.scratch += sum(value.size for value in writer.known.values() if hasattr(value, "size"))
        return plan

    @property
    def numbers(self) -> int:
        """How many it holds."""
        return self.scratch + sum(a.size for a in (*self.buffers, *self.ones.values()))

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The next array of this step, with whatever the step before left in it."""
        place: np.ndarray | None = self.wanted(shape, dtype)
        if place is not None:
            return place
        k = self.made
        self.made = k + 1
        if k < len(self.buffers):
            found = self.buffers[k]
            if found.shape == shape and found.dtype == dtype:
                return found
            whole = (found if found.base is None else found.base).reshape(-1)
            if whole.size >= prod(shape) and found.dtype == dtype:  # as the last batch, of few rows
                self.buffers[k] = whole[: prod(shape)].reshape(shape)
                return self.buffers[k]
        self.buffers[k:] = [np.empty(shape, dtype=dtype)]
        return self.buffers[k]

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype or a.dtype.kind != "f":
            return np.matmul(a, b)
        if a.ndim < 2 or a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
            return np.matmul(a, b)
        return product(a, b)(a, b, self.buffer((*a.shape[:-1], b.shape[-1]), a.dtype))

    def vecdot(self, a: Array, b: Array) -> Array:
        return np.vecdot(a, b, out=self.buffer(a.shape[:-1], a.dtype))

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        """np.sum; over the rows of matrices as a product with ones, which is faster."""
        if axis != -2 or not keepdims or x.dtype.kind != "f":
            return np.sum(x, axis=axis, keepdims=keepdims)
        key = (*x.shape[:-1], x.dtype.char)
        ones = self.ones.get(key)
        if ones is None:
            ones = self.ones[key] = np.ones((*x.shape[:-2], 1, x.shape[-2]), dtype=x.dtype)
        return self.matmul(ones, x)
