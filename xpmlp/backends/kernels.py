"""A traced program as one CUDA kernel, and the `apply` of the steps on CuPy.

The kernel is written out from the program and compiled without contraction into fused
multiply-adds, so that it rounds where the operations one by one would round. A program that
takes sums or maxima over a row is one thread a row, which suits the few outputs of a loss.
"""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.backends.calls import Asked, Calls, Plan
from xpmlp.backends.sources import RowSource, Source, placed
from xpmlp.backends.tracing import REDUCTIONS, UntraceableError
from xpmlp.core.types import Array, Namespace

OPTIONS = ("--fmad=false",)


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
        program, values, into, _, name = asked
        wanted, found = placed(asked)
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
