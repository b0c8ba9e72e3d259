"""NumPy made fast for a training step: the same calls, in buffers that are used again.

A step makes the same arrays in the same order every time, so the k-th array of a step is written
into the k-th buffer of the previous step; what leaves a step must be copied. Elementwise functions
run as their traced programs, written out as ufunc calls with an `out` array each.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.recording import numba_writer
from xpmlp.recording.guards import find_guard, run_guarded
from xpmlp.recording.plans import CompileRequest, Plan, PlanCache, broadcast_shape
from xpmlp.recording.tracing import Program, UntraceableError
from xpmlp.types import Array, Namespace

# ufuncs that are two to four times slower with a number than with a row
ROW_CONSTANTS = ("maximum", "minimum")
NUMPY_NAMES = {name: value for name, value in vars(np).items() if not name.startswith("__")}
MIN_OUTER = 16  # rows and columns from which matmul, without BLAS, is slow for an outer product


def where_into(condition: Array, x: Any, y: Any, out: Array) -> None:
    """np.where with an `out`."""
    if y is not out:
        np.copyto(out, y)
    np.copyto(out, x, where=condition)


def cast_into(x: Array, out: Array) -> None:
    np.copyto(out, x, casting="unsafe")


def product_function(a: Array, b: Array) -> Callable[..., Any]:
    """The fastest of NumPy's functions that multiply two matrices, or two stacks of them."""
    if a.ndim == 2 and b.ndim == 2:
        return np.dot
    is_outer = a.shape[-1] == 1 and min(a.shape[-2], b.shape[-1]) >= MIN_OUTER
    return np.multiply if is_outer else np.matmul


FUNCTIONS: dict[str, Callable[..., Any]] = {  # of operations that are no ufunc
    "where": where_into, "cast": cast_into, "sum": np.add.reduce, "max": np.maximum.reduce,
    "sum_flat": np.add.reduce, "max_flat": np.maximum.reduce,
}  # fmt: skip
# axis, dtype, out, keepdims: by position, which is faster
ARGUMENTS = {"sum": "({}, -1, None, {}, True)", "sum_flat": "({}, -1, None, {})"}
ARGUMENTS |= {"max": ARGUMENTS["sum"], "max_flat": ARGUMENTS["sum_flat"]}


class UfuncCompiler:
    """Writes a program out as Python: one ufunc call per line, with scratch arrays of its own."""

    def __init__(
        self, program: Program, arguments: Sequence[Array], aliases: Sequence[int]
    ) -> None:
        """aliases: for each buffer that a result is written into, which argument it is or -1;
        empty where the results are new arrays."""
        self.program, self.into_buffers = program, bool(aliases)
        self.aliases = aliases or (-1,) * len(program.results)
        self.outputs = [f"r{r}" for r in range(len(program.results))]
        self.dtype = next((a.dtype for a in arguments if a.ndim), arguments[0].dtype)
        self.types = [(a.shape, a.dtype) for a in arguments]  # of every value
        self.names = [f"a{i}" for i in range(len(arguments))]  # of every value
        self.bindings: dict[str, Any] = {}  # what the lines refer to, by name
        self.free_scratch: dict[Any, list[str]] = {}  # scratch arrays that are read no more
        self.lines: list[str] = []

    def constant(self, name: str, number: float, shape: tuple[int, ...]) -> str:
        """A number, or for `maximum` and `minimum` a row of it."""
        if name not in ROW_CONSTANTS or not shape:
            return repr(number) if np.isfinite(number) else self.bind(number)
        return self.bind(np.full((1,) * (len(shape) - 1) + shape[-1:], number, dtype=self.dtype))

    def bind(self, value: Any) -> str:
        name = f"k{len(self.bindings)}"
        self.bindings[name] = value
        return name

    def out_array(self, index: int, last_use: dict[int, int], i: int) -> str:
        """The `out` of operation i: a result's buffer if nothing there is read any more, else
        scratch."""
        array_type = self.types[index]
        name, inputs = self.program.operations[i]
        for r, value in enumerate(self.program.results):
            if value.at == index:
                old = self.aliases[r]
                # `where` writes before it reads, but for its third input if that is the buffer
                until = i - (name == "where" and inputs[2].at != old)
                if old < 0 or last_use.get(old, -1) <= until:
                    return f"r{r}"
        scratch = self.free_scratch.get(array_type)
        if scratch:
            return scratch.pop()
        return self.borrow_buffer(index, last_use, i) or self.bind(np.empty(*array_type))

    def borrow_buffer(self, index: int, last_use: dict[int, int], i: int) -> str | None:
        """The buffer of a result that is computed later, if its old value is read no more and the
        result of operation i no longer than until then."""
        results, operations = self.program.results, self.program.operations
        if index in {value.at for value in results}:
            return None
        first = index - i  # how many arguments there are
        for r, (value, old) in enumerate(zip(results, self.aliases, strict=True)):
            if old < 0 or value.at < first or f"r{r}" in self.names:
                continue
            computed = value.at - first
            until = computed - (operations[computed][0] == "where")  # it writes before it reads
            is_dead = last_use.get(old, -1) <= i - (operations[i][0] == "where")
            if is_dead and last_use.get(index, i) <= until and self.types[old] == self.types[index]:
                return f"r{r}"
        return None

    def plan(self) -> Plan:
        program, first = self.program, len(self.names)
        last_use = {v.at: i for i, o in enumerate(program.operations) for v in o.inputs}
        result_indices = {value.at for value in program.results}
        for i, (name, inputs) in enumerate(program.operations):
            shape = broadcast_shape(name, [self.types[v.at][0] for v in inputs if v.at >= 0])
            self.types.append((shape, np.dtype(program.dtypes[i])))
            operands = [
                self.names[v.at] if v.at >= 0 else self.constant(name, v.constant, shape)
                for v in inputs
            ]
            for v in {v.at for v in inputs if v.at >= first} - result_indices:
                if last_use[v] == i and self.names[v][0] == "k" and name != "where":
                    self.free_scratch.setdefault(self.types[v], []).append(self.names[v])
            self.names.append(self.out_array(first + i, last_use, i))
            self.bindings[name] = FUNCTIONS.get(name) or getattr(np, name)
            form = ARGUMENTS.get(name, f"({'{}, ' * len(operands)}out={{}})")
            self.lines.append(name + form.format(*operands, self.names[-1]))
        for value, output, old in zip(program.results, self.outputs, self.aliases, strict=True):
            if value.at < 0:
                raise UntraceableError("a result is a constant")
            if self.into_buffers and value.at < first and value.at != old:
                raise UntraceableError("a result is an argument, which may be overwritten by then")
            if self.into_buffers and self.names[value.at] not in (output, f"a{old}"):
                self.lines.append(f"{output}[...] = {self.names[value.at]}")
        outputs = self.outputs if self.into_buffers else [n for n in self.names if n[0] == "r"]
        types = [self.types[self.names.index(name)] for name in outputs if name in self.names]
        parameters = [*self.names[:first], *outputs]
        results = () if self.into_buffers else program.results
        indices = tuple(parameters.index(self.names[v.at]) for v in results)
        return Plan(self.function(parameters), tuple(types), indices)

    def function(self, parameters: Sequence[str]) -> Callable[..., None]:
        body = "\n    ".join(self.lines or ["pass"])
        exec(f"def run({', '.join(parameters)}):\n    {body}", self.bindings)
        run: Callable[..., None] = self.bindings["run"]
        return run


class NumpyBackend(PlanCache):
    """The namespace and the `apply` of one trainer's steps on NumPy. Not thread-safe."""

    def __init__(self, steps: int | None = 0) -> None:
        """steps: how many are planned; with many of them small calls are compiled too, and with
        None nothing is."""
        super().__init__(np, np.ndarray)
        self.steps = steps
        self.buffers: list[np.ndarray] = []
        self.buffer_index = 0  # buffers of this step so far
        self.ones: dict[Any, np.ndarray] = {}
        self.scratch_size = 0  # elements of the plans' scratch arrays
        own = {"matmul": self.matmul, "vecdot": self.vecdot, "sum": self.sum, "__name__": "numpy"}
        own["__array_namespace_info__"] = np.__array_namespace_info__
        self.xp: Namespace = SimpleNamespace(**NUMPY_NAMES | own)

    def restart(self) -> None:
        """Begin a step: its buffers may be written again."""
        super().restart()
        self.buffer_index = 0

    def compile(self, request: CompileRequest) -> Plan:
        program, arguments, _, aliases, _ = request
        compiled = None if self.steps is None else numba_writer.compile_plan(request, self.steps)
        if compiled is not None:
            return compiled
        plan, guard = self.ufunc_plan(program, arguments, aliases), find_guard(program, aliases)
        if guard is None:
            return plan
        unguarded = self.ufunc_plan(guard.unguarded, arguments, aliases)
        return Plan(run_guarded(guard.condition, unguarded.run, plan.run), (), ())

    def ufunc_plan(
        self, program: Program, arguments: Sequence[Array], aliases: Sequence[int]
    ) -> Plan:
        compiler = UfuncCompiler(program, arguments, aliases)
        plan = compiler.plan()
        bound = compiler.bindings.values()
        self.scratch_size += sum(value.size for value in bound if hasattr(value, "size"))
        return plan

    @property
    def size(self) -> int:
        """Elements of all its arrays."""
        return self.scratch_size + sum(a.size for a in (*self.buffers, *self.ones.values()))

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The next buffer of this step, with whatever the previous step left in it."""
        destination: np.ndarray | None = self.pop_destination(shape, dtype)
        if destination is not None:
            return destination
        k = self.buffer_index
        self.buffer_index = k + 1
        if k < len(self.buffers):
            buffer = self.buffers[k]
            if buffer.shape == shape and buffer.dtype == dtype:
                return buffer
            whole = (buffer if buffer.base is None else buffer.base).reshape(-1)
            if whole.size >= prod(shape) and buffer.dtype == dtype:  # the last batch has fewer rows
                self.buffers[k] = whole[: prod(shape)].reshape(shape)
                return self.buffers[k]
        self.buffers[k:] = [np.empty(shape, dtype=dtype)]
        return self.buffers[k]

    def matmul(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype or a.dtype.kind != "f":
            return np.matmul(a, b)
        if a.ndim < 2 or a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
            return np.matmul(a, b)
        return product_function(a, b)(a, b, self.allocate((*a.shape[:-1], b.shape[-1]), a.dtype))

    def vecdot(self, a: Array, b: Array) -> Array:
        return np.vecdot(a, b, out=self.allocate(a.shape[:-1], a.dtype))

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        """np.sum; over the rows of matrices as a product with ones, which is faster."""
        if axis != -2 or not keepdims or x.dtype.kind != "f":
            return np.sum(x, axis=axis, keepdims=keepdims)
        key = (*x.shape[:-1], x.dtype.char)
        ones = self.ones.get(key)
        if ones is None:
            ones = self.ones[key] = np.ones((*x.shape[:-2], 1, x.shape[-2]), dtype=x.dtype)
        return self.matmul(ones, x)
