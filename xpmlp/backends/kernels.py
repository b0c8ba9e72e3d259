"""A traced program as one CUDA kernel, and the `apply` of the steps on CuPy.

The kernel is written out from the program and compiled without contraction into fused
multiply-adds, so that it rounds where the operations one by one would round.
"""

import re
from collections.abc import Sequence
from math import isfinite
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.backends.calls import Calls, Plan
from xpmlp.backends.tracing import TRUTHS, Program, UntraceableError, Value
from xpmlp.core.types import Array, Namespace

FORMS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "greater": "{} > {}", "less": "{} < {}", "greater_equal": "{} >= {}", "less_equal": "{} <= {}",
    "logical_and": "{} && {}", "logical_not": "!{}", "negative": "-{}", "abs": "fabs({})",
    "where": "{} ? {} : {}", "cast": "T({})", "power": "pow({}, {})",
    # fmax and fmin drop a NaN; the Array API hands it on
    "maximum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmax({0}, {1})",
    "minimum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmin({0}, {1})",
}  # fmt: skip
OPTIONS = ("--fmad=false",)


def literal(number: float) -> str:
    """A number in C: as exact as Python has it, then rounded to the kernel's type."""
    if isfinite(number):
        return f"T({number!r})"
    return "T(-1.0 / 0.0)" if number < 0 else "T(1.0 / 0.0)"


def source(program: Program, results: Sequence[Value]) -> str:
    """The body of the kernel: arguments a0, a1, ..., results r0, r1, ...

    Nothing is written before all is read: a result may lie where an argument does.
    """
    names = [f"a{i}" for i in range(program.arguments)]
    lines = []
    for name, inputs in program.operations:
        read = [names[v.at] if v.at >= 0 else literal(v.constant) for v in inputs]
        form = FORMS.get(name, f"{name}({', '.join('{}' for _ in inputs)})")
        kind = "bool" if name in TRUTHS else "T"
        names.append(f"v{len(names)}")
        lines.append(f"const {kind} {names[-1]} = {form.format(*read)};")
    lines += [f"r{r} = {names[value.at]};" for r, value in enumerate(results)]
    return "\n".join(lines)


class Kernels(Calls):
    """The namespace and the `apply` of one trainer's steps on CuPy."""

    def __init__(self, xp: Namespace, cupy: Any) -> None:
        """xp: CuPy's namespace, with our `matmul`; cupy: the module."""
        super().__init__(xp, cupy.ndarray)
        self.cupy = cupy
        own = {"matmul": self.matmul, "sum": self.sum}
        self.xp: Namespace = SimpleNamespace(**vars(xp) | own)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.cupy.empty(shape, dtype=dtype)

    def matmul(self, a: Array, b: Array) -> Array:
        shape = (*a.shape[:-1], b.shape[-1])
        return self.base.matmul(a, b, out=self.wanted(shape, a.dtype))

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        if axis != -2 or not keepdims:
            return self.base.sum(x, axis=axis, keepdims=keepdims)
        place = self.wanted((*x.shape[:-2], 1, x.shape[-1]), x.dtype)
        return self.cupy.sum(x, axis=-2, keepdims=True, out=place)

    def write(
        self,
        program: Program,
        values: Sequence[Array],
        into: Sequence[Array],
        aliases: Sequence[int],
        name: str,
    ) -> Plan:
        if any(value.at < 0 for value in program.results):
            raise UntraceableError("it gives a constant")
        shape = np.broadcast_shapes(*(a.shape for a in values))
        wanted = [v for v in program.results if into or v.at >= program.arguments]
        distinct = list(dict.fromkeys(wanted)) if not into else wanted
        if any(reach(program, value, values) != shape for value in distinct):
            raise UntraceableError("its results are of several shapes")
        first = program.arguments
        places = {value: first + r for r, value in enumerate(distinct)}
        found = tuple(places.get(value, value.at) for value in program.results)
        if not distinct:
            return Plan(lambda *arrays: None, (), found)
        kernel = self.cupy.ElementwiseKernel(
            ", ".join(f"T a{i}" for i in range(program.arguments)),
            ", ".join(f"T r{r}" for r in range(len(distinct))),
            source(program, distinct),
            "xpmlp_" + re.sub(r"\W", "_", name),
            options=OPTIONS,
        )
        made = tuple((shape, values[0].dtype) for _ in distinct)
        return Plan(kernel, () if into else made, () if into else found)


def reach(program: Program, value: Value, given: Sequence[Array]) -> tuple[int, ...]:
    """The shape of a value of the program."""
    if value.at < program.arguments:
        return tuple(given[value.at].shape)
    inputs = program.operations[value.at - program.arguments].inputs
    return np.broadcast_shapes(*(reach(program, v, given) for v in inputs if v.at >= 0))
