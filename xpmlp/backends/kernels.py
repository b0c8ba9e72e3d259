"""A traced program as one CUDA kernel, and the `apply` of the steps on CuPy.

The kernel is written out from the program and compiled without contraction into fused
multiply-adds, so that it rounds where the operations one by one would round. A program that
takes sums or maxima over a row is one thread a row, which suits the few outputs of a loss.
"""

import re
from collections.abc import Iterator, Sequence
from math import isfinite, prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.backends.calls import Asked, Calls, Plan, reach
from xpmlp.backends.tracing import REDUCTIONS, TRUTHS, Program, UntraceableError, Value
from xpmlp.core.types import Array, Namespace

TYPES = {"float32": "float", "float64": "double", "uint32": "unsigned int"}
FORMS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "greater": "{} > {}", "less": "{} < {}", "greater_equal": "{} >= {}", "less_equal": "{} <= {}",
    "logical_and": "{} && {}", "logical_not": "!{}", "negative": "-{}", "abs": "fabs({})",
    "where": "{} ? {} : {}", "cast": "{}", "power": "pow({}, {})",
    "bitwise_and": "{} & {}", "bitwise_xor": "{} ^ {}", "right_shift": "{} >> {}",
    # fmax and fmin drop a NaN; the Array API hands it on
    "maximum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmax({0}, {1})",
    "minimum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmin({0}, {1})",
}  # fmt: skip
OPTIONS = ("--fmad=false",)
WIDEST = 64  # outputs in a row that one thread walks along


class Source:
    """Writes the body of a kernel: arguments a0, a1, ..., results r0, r1, ...

    Elementwise nothing is written before all is read: a result may lie where an argument does.
    """

    def __init__(self, program: Program, given: Sequence[Array]) -> None:
        self.program, self.first = program, len(given)
        dtype = str(given[0].dtype)
        if dtype not in TYPES:
            raise UntraceableError(f"its arguments are of {dtype}")
        self.shapes = [tuple(a.shape) for a in given]  # of every value, as the dtypes
        self.dtypes = [dtype] * len(given)
        for name, inputs in program.operations:
            known = [v.at for v in inputs if v.at >= 0]
            self.shapes.append(reach(name, [self.shapes[at] for at in known]))
            self.dtypes.append(self.result_dtype(name, [self.dtypes[at] for at in known]))
        self.names = [f"a{i}" for i in range(self.first)]
        self.names += [f"v{self.first + i}" for i in range(len(program.operations))]

    def result_dtype(self, name: str, given: Sequence[str]) -> str:
        if name in TRUTHS:
            return "bool"
        if name == "cast":
            return self.program.cast or self.dtypes[0]
        return next(dtype for dtype in given if dtype != "bool")

    def literal(self, number: float, kind: str) -> str:
        """A number in C: as exact as Python has it, then rounded to the kernel's type."""
        if not isfinite(number):
            return f"({kind})({'-' if number < 0 else ''}1.0 / 0.0)"
        return f"({kind})({number!r}{'u' if isinstance(number, int) else ''})"

    def line(self, index: int) -> str:
        """The declaration of what operation number `index` gives."""
        name, inputs = self.program.operations[index]
        own = self.dtypes[self.first + index]
        around = next((self.dtypes[v.at] for v in inputs if self.of_number(v)), own)
        kind = TYPES[around if around in TYPES else self.dtypes[0]]
        read = [self.names[v.at] if v.at >= 0 else self.literal(v.constant, kind) for v in inputs]
        form = FORMS.get(name, f"{name}({', '.join('{}' for _ in inputs)})").format(*read)
        if name == "cast":
            form = f"({TYPES[own]})({form})"
        return f"const {TYPES.get(own, own)} {self.names[self.first + index]} = {form};"

    def of_number(self, value: Value) -> bool:
        return value.at >= 0 and self.dtypes[value.at] != "bool"

    def elementwise(self, results: Sequence[Value]) -> str:
        lines = [self.line(i) for i in range(len(self.program.operations))]
        lines += [f"r{r} = {self.names[value.at]};" for r, value in enumerate(results)]
        return "\n".join(lines)


class RowSource(Source):
    """Writes the body for one row: `i` is the row, `j` goes along it, as often as sums ask."""

    def __init__(self, program: Program, given: Sequence[Array]) -> None:
        super().__init__(program, given)
        shapes = self.shapes[: self.first]
        depth = max(map(len, shapes))
        self.width = max(shape[-1] for shape in shapes if len(shape) == depth)
        self.rows = prod(np.broadcast_shapes(*(s[:-1] for s in shapes if len(s) > 1)))
        if self.width > WIDEST:
            raise UntraceableError(f"its rows have {self.width} columns")
        self.flat = [len(shape) == depth - 1 for shape in self.shapes]
        self.along = [len(s) == depth and s[-1] > 1 and self.width > 1 for s in self.shapes]
        self.level = [0] * self.first  # of every value: how many sums it waits for
        for at, (name, inputs) in enumerate(program.operations, self.first):
            known = [v.at for v in inputs if v.at >= 0]
            if any(self.flat[k] for k in known) and not all(self.flat[k] for k in known):
                raise UntraceableError("it mixes rows with and without their last axis")
            self.level.append(max(self.level[k] for k in known) + (name in REDUCTIONS))
            if name in REDUCTIONS:
                self.along[at] = False
        for at in range(self.first):
            self.names[at] = self.element(at)

    def element(self, at: int) -> str:
        """How an argument is read: a number of its own for every element, row or column, or one."""
        size, shape = prod(self.shapes[at]), self.shapes[at]
        if size == 1:
            return f"a{at}[0]"
        if self.along[at] and size == self.rows * self.width:
            return f"a{at}[i * {self.width} + j]"
        if self.along[at] and size == self.width:
            return f"a{at}[j]"
        if not self.along[at] and size == self.rows and shape[-1] == 1:
            return f"a{at}[i]"
        raise UntraceableError(f"it has an argument of shape {shape}")

    def needed(self, ends: Sequence[int]) -> list[int]:
        """The operations that change along the row and that these values are made of, in order."""
        found: set[int] = set()
        waiting = [at for at in ends if at >= self.first and self.along[at]]
        while waiting:
            at = waiting.pop()
            if at in found:
                continue
            found.add(at)
            inputs = self.program.operations[at - self.first].inputs
            waiting += [v.at for v in inputs if v.at >= self.first and self.along[v.at]]
        return sorted(found)

    def loop(self, ends: Sequence[int], body: Sequence[str]) -> Iterator[str]:
        yield f"for (int j = 0; j < {self.width}; ++j) {{"
        yield from (f"  {self.line(at - self.first)}" for at in self.needed(ends))
        yield from (f"  {line}" for line in body)
        yield "}"

    def sums(self, level: int) -> Iterator[str]:
        """The sums and maxima of a level, all in one walk along the row."""
        ends, body = [], []
        for at, (name, inputs) in enumerate(self.program.operations, self.first):
            if name not in REDUCTIONS or self.level[at] != level:
                continue
            of, total, kind = inputs[0].at, self.names[at], TYPES[self.dtypes[at]]
            ends.append(of)
            x = self.names[of]
            if name.startswith("sum"):
                yield f"{kind} {total} = 0;"
                body.append(f"{total} += {x};")
            else:
                yield f"{kind} {total} = {self.literal(-float('inf'), kind)};"
                body.append(f"{total} = ({x} != {x} || {x} > {total}) ? {x} : {total};")
        if ends:
            yield from self.loop(ends, body)

    def by_rows(self, results: Sequence[Value]) -> str:
        lines: list[str] = []
        for level in range(max(self.level) + 1):
            lines += self.sums(level)
            lines += [
                self.line(at - self.first)
                for at, (name, _) in enumerate(self.program.operations, self.first)
                if self.level[at] == level and not self.along[at] and name not in REDUCTIONS
            ]
        wide = {r: v.at for r, v in enumerate(results) if self.along[v.at]}
        body = [f"r{r}[i * {self.width} + j] = {self.names[at]};" for r, at in wide.items()]
        lines += self.loop(list(wide.values()), body) if wide else ()
        lines += [f"r{r}[i] = {self.names[v.at]};" for r, v in enumerate(results) if r not in wide]
        return "\n".join(lines)


class Kernels(Calls):
    """The namespace and the `apply` of one trainer's steps on CuPy."""

    def __init__(self, xp: Namespace, cupy: Any) -> None:
        """xp: CuPy's namespace, with our `matmul`; cupy: the module."""
        super().__init__(xp, cupy.ndarray)
        self.cupy = cupy
        self.products = cupy.ReductionKernel(
            "T x, T y", "T z", "x * y", "a + b", "z = a", "0", "xpmlp_vecdot"
        )
        own = {"matmul": self.matmul, "vecdot": self.vecdot, "sum": self.sum}
        self.xp: Namespace = SimpleNamespace(**vars(xp) | own)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.cupy.empty(shape, dtype=dtype)

    def matmul(self, a: Array, b: Array) -> Array:
        shape = (*a.shape[:-1], b.shape[-1])
        return self.base.matmul(a, b, out=self.wanted(shape, a.dtype))

    def vecdot(self, a: Array, b: Array) -> Array:
        # as a product of matrices, which no stream may record, in array_api_compat
        return self.products(a, b, axis=-1)

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        if axis != -2 or not keepdims:
            return self.base.sum(x, axis=axis, keepdims=keepdims)
        place = self.wanted((*x.shape[:-2], 1, x.shape[-1]), x.dtype)
        return self.cupy.sum(x, axis=-2, keepdims=True, out=place)

    def write(self, asked: Asked) -> Plan:
        program, values, into, aliases, name = asked
        if any(value.at < 0 for value in program.results):
            raise UntraceableError("it gives a constant")
        first = program.arguments
        for value, old in zip(program.results, aliases, strict=False):
            if value.at < first and value.at != old:
                raise UntraceableError("it gives an argument, which may be written over by then")
        wanted = list(program.results)
        if not into:  # equal results are one array, and an argument needs no kernel
            wanted = list(dict.fromkeys(v for v in wanted if v.at >= first))
        places = {value: first + r for r, value in enumerate(wanted)}
        found = tuple(places.get(value, value.at) for value in program.results)
        if not wanted:
            return Plan(lambda *arrays: None, (), found)
        by_rows = any(operation.name in REDUCTIONS for operation in program.operations)
        written: Any = (RowSource if by_rows else Source)(program, values)
        made = tuple((written.shapes[v.at], np.dtype(written.dtypes[v.at])) for v in wanted)
        whole = np.broadcast_shapes(*(a.shape for a in values))
        if not by_rows and any(shape != whole for shape, _ in made):
            raise UntraceableError("its results are of several shapes")
        if by_rows and into:
            raise UntraceableError("it takes a sum, and its results are written over arguments")
        raw = "raw " if by_rows else ""
        kernel = self.cupy.ElementwiseKernel(
            ", ".join(f"{raw}{a.dtype.name} a{i}" for i, a in enumerate(values)),
            ", ".join(f"{raw}{dtype.name} r{r}" for r, (_, dtype) in enumerate(made)),
            written.by_rows(wanted) if by_rows else written.elementwise(wanted),
            "xpmlp_" + re.sub(r"\W", "_", name),
            options=OPTIONS,
        )
        run = (lambda *arrays: kernel(*arrays, size=written.rows)) if by_rows else kernel
        return Plan(run, () if into else made, () if into else found)
