"""The namespace and the `apply` of the steps on CuPy: each small function one kernel.

A kernel is generated from the traced program and compiled without contraction into fused
multiply-adds, so that it rounds where the operations one by one would round. A program that
takes sums or maxima over a row has one thread per row, which suits the few outputs of a loss.

Work that no later operation of a step needs runs on other streams, products are fused with their
epilogues where cuBLASLt can, and a step's accounts are one kernel: the environment variable
XPMLP_WITHOUT names which of FEATURES to disable, for a comparison.
"""

import os
import re
from collections.abc import Callable, Container, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.apply import is_account
from xpmlp.devices.branches import Branches
from xpmlp.network import activated, gradients
from xpmlp.random import factors
from xpmlp.recording.accounts import Accounts, PendingCall
from xpmlp.recording.codegen import RowSource, Source, output_values
from xpmlp.recording.fused_products import FusedProducts, Product
from xpmlp.recording.plans import CompileRequest, Plan, PlanCache, all_own
from xpmlp.recording.tracing import REDUCTIONS, UntraceableError
from xpmlp.step import weighted
from xpmlp.types import Array, Namespace

OPTIONS = ("--fmad=false",)
VARIABLE = "XPMLP_WITHOUT"
FEATURES = ("branches", "epilogues", "accounts", "kernels")
CONCURRENT = (weighted, gradients)  # only the end of the gradient needs their results
THREADS = 256
MIN_BLOCK_SUM = 16 * THREADS  # elements that a block sums
MAX_BLOCKS = 1024  # per row
LONG_COLUMN, COLUMN_PARTS = 1024, 16  # columns of that length are summed in parts

# A row is summed by many blocks, each a partial sum, and those by another call.
# CuPy's reductions have one block per row, and a parameter buffer is one row.
VECDOT = """
extern "C" __global__ void xpmlp_vecdot(
    const {T} *x, const {T} *y, {T} *z, const long long n, const long long step, const int pieces
) {{
  __shared__ {T} sums[{threads}];
  const long long row = blockIdx.x / pieces;
  {T} sum = 0;
  for (long long k = blockIdx.x % pieces * {threads} + threadIdx.x; k < n; k += pieces * {threads})
    sum += x[row * n + k] * y[row * step + k];
  sums[threadIdx.x] = sum;
  for (int half = {threads} / 2; half > 0; half /= 2) {{
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }}
  if (threadIdx.x == 0) z[blockIdx.x] = sums[0];
}}
"""
TYPES = {"float32": "float", "float64": "double"}


def disabled() -> frozenset[str]:
    """The features that XPMLP_WITHOUT names; ValueError for an unknown one."""
    features = frozenset(filter(None, os.environ.get(VARIABLE, "").replace(" ", "").split(",")))
    if unknown := sorted(features - {*FEATURES}):
        raise ValueError(f"{VARIABLE} knows {', '.join(FEATURES)}; got {', '.join(unknown)}")
    return features


class LazyMask:
    """A dropout mask that is drawn by the kernel that first multiplies by it."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args  # of `factors`
        self.array: Array | None = None


def activated_with_mask(
    xp: Namespace, f: Callable[..., Array], product: Array, bias: Array, *mask_args: Any
) -> tuple[Array, ...]:
    """The results of `activated` with the mask that `factors` draws, and that mask."""
    mask = factors(xp, *mask_args)
    return *activated(xp, f, product, bias, mask), mask


class CudaBackend(PlanCache):
    """The namespace and the `apply` of one trainer's steps on CuPy."""

    def __init__(self, xp: Namespace, cupy: Any, without: Container[str] = ()) -> None:
        """xp: CuPy's namespace, with our `matmul`; cupy: the module; without: of FEATURES."""
        super().__init__(xp, cupy.ndarray)
        self.cupy, self.without = cupy, without
        self.vecdots: dict[Any, Any] = {}  # by dtype
        self.constants: dict[Any, Array] = {}
        self.accounts = Accounts(cupy.ndarray)
        self.in_function = False  # whether a function is running
        self.branches = None if "branches" in without else Branches(cupy.cuda)
        self.fused = None if "epilogues" in without else FusedProducts(xp.epilogues, xp)
        own = {"matmul": self.matmul, "vecdot": self.vecdot, "sum": self.sum}
        self.xp: Namespace = SimpleNamespace(**vars(xp) | own | {"arange": self.arange})

    def restart(self) -> None:
        self.accounts.calls.clear()  # of a failed step
        super().restart()
        if self.fused is not None:
            self.fused.restart()
        if self.branches is not None:
            self.branches.restart()

    def join(self) -> None:
        if self.branches is not None:
            self.branches.join()

    def close(self) -> None:
        """Release its streams, and arrays that are in a graph's memory pool."""
        self.constants.clear()
        self.restart()
        if self.branches is not None:
            self.branches.close(self.base.forget)

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.cupy.empty(shape, dtype=dtype)

    # The namespace

    def matmul(self, a: Array, b: Array) -> Any:
        out = self.pop_destination((*a.shape[:-1], b.shape[-1]), a.dtype)
        if out is None and self.fused is not None and not self.in_function:
            return Product(a, b)
        return self.base.matmul(a, b, out=out)

    def arange(self, count: int, *, dtype: Any, device: Any) -> Array:
        """0, 1, ..., which is created once."""
        key = (count, str(dtype))
        if key not in self.constants:
            self.constants[key] = self.base.arange(count, dtype=dtype, device=device)
        return self.constants[key]

    def vecdot(self, a: Array, b: Array) -> Array:
        a, b = (self.cupy.ascontiguousarray(x) for x in (a, b))
        if str(a.dtype) not in TYPES or a.dtype != b.dtype or a.shape[-b.ndim :] != b.shape:
            return self.cupy.sum(a * b, axis=-1)
        n = a.shape[-1]
        pieces = max(1, min(MAX_BLOCKS, n // MIN_BLOCK_SUM))
        lead = a.shape[:-1]
        if pieces == 1:
            return self.partial_sums(a, b, self.cupy.empty(lead, dtype=a.dtype), n, 1)
        sums = self.cupy.empty((*lead, pieces), dtype=a.dtype)
        self.partial_sums(a, b, sums, n, pieces)
        ones = self.ones(pieces, a.dtype)
        return self.partial_sums(sums, ones, self.cupy.empty(lead, dtype=a.dtype), pieces, 1)

    def partial_sums(self, x: Array, y: Array, z: Array, n: int, pieces: int) -> Array:
        """z, the sums of x * y over `pieces` parts of every row of n elements."""
        kernel = self.vecdots.get(x.dtype)
        if kernel is None:
            text = VECDOT.format(T=TYPES[str(x.dtype)], threads=THREADS)
            kernel = self.cupy.RawKernel(text, "xpmlp_vecdot", options=OPTIONS)
            self.vecdots[x.dtype] = kernel
        step = np.int64(n if y.ndim == x.ndim > 1 else 0)
        if z.size and n:
            kernel((z.size,), (THREADS,), (x, y, z, np.int64(n), step, np.int32(pieces)))
        else:
            z.fill(0)
        return z

    def ones(self, count: int, dtype: Any) -> Array:
        key = (count, str(dtype), "ones")
        if key not in self.constants:
            self.constants[key] = self.cupy.ones(count, dtype=dtype)
        return self.constants[key]

    def sum(self, x: Array, *, axis: Any = None, keepdims: bool = False) -> Array:
        if axis != -2 or not keepdims:
            return self.base.sum(x, axis=axis, keepdims=keepdims)
        out = self.pop_destination((*x.shape[:-2], 1, x.shape[-1]), x.dtype)
        rows = x.shape[-2]
        if rows >= LONG_COLUMN and rows % COLUMN_PARTS == 0:  # CuPy's block sums whole columns
            parts = x.reshape(*x.shape[:-2], COLUMN_PARTS, rows // COLUMN_PARTS, x.shape[-1])
            x = self.cupy.sum(parts, axis=-2)
        return self.cupy.sum(x, axis=-2, keepdims=True, out=out)

    def compile(self, request: CompileRequest) -> Plan:
        if "kernels" in self.without:
            raise UntraceableError("kernels are disabled")
        program, arguments, into, _, name = request
        outputs, result_indices = output_values(request)
        if not outputs:
            return Plan(lambda *arrays: None, (), result_indices)
        by_rows = any(operation.name in REDUCTIONS for operation in program.operations)
        source: Any = (RowSource if by_rows else Source)(program, arguments)
        types = tuple((source.shapes[v.at], np.dtype(source.dtypes[v.at])) for v in outputs)
        shape = np.broadcast_shapes(*(a.shape for a in arguments))
        scalars = {r for r, (own, _) in enumerate(types) if into and own == (1,) != shape}
        if not by_rows and any(types[r][0] != shape for r in {*range(len(types))} - scalars):
            raise UntraceableError("its results are of several shapes")
        if by_rows and into:
            raise UntraceableError("it reduces, and its results are written over arguments")
        raw = "raw " if by_rows else ""
        kernel = self.cupy.ElementwiseKernel(
            ", ".join(f"{raw}{a.dtype.name} a{i}" for i, a in enumerate(arguments)),
            ", ".join(
                f"{'raw ' if by_rows or r in scalars else ''}{dtype.name} r{r}"
                for r, (_, dtype) in enumerate(types)
            ),
            source.by_rows(outputs) if by_rows else source.elementwise(outputs, scalars),
            "xpmlp_" + re.sub(r"\W", "_", name),
            options=OPTIONS,
        )
        run = (lambda *arrays: kernel(*arrays, size=source.rows)) if by_rows else kernel
        return Plan(run, () if into else types, () if into else result_indices)

    # The apply

    def apply(
        self, function: Callable[..., Any], xp: Namespace, *args: Any, into: Sequence[Array] = ()
    ) -> Any:
        if function is factors:
            return LazyMask(args)
        if is_account(function) and "accounts" not in self.without and all_own(args):
            call = PendingCall(function, args, into)
            if not self.accounts.can_join(call):
                self.flush()
            self.accounts.calls.append(call)
            return None
        self.flush()
        if self.branches is not None and function in CONCURRENT:
            with self.branches.fork(*args):
                return self.run(function, xp, args, into)
        return self.run(function, xp, args, into)

    def run(
        self, function: Callable[..., Any], xp: Namespace, args: Any, into: Sequence[Array]
    ) -> Any:
        if self.fused is not None:
            results = self.fused.apply(function, args, into)
            if results is not None:
                return results
        self.in_function = True
        try:
            if function is activated and isinstance(args[-1], LazyMask):
                f, product, bias, mask = args
                args = (f, self.materialize(product), bias, *mask.args)
                *results, mask.array = super().apply(activated_with_mask, xp, *args)
                return tuple(results)
            return super().apply(function, xp, *map(self.materialize, args), into=into)
        finally:
            self.in_function = False

    def materialize(self, value: Any) -> Any:
        """An argument of a step's function; if it is lazy, its array, computed on first use."""
        if isinstance(value, Product):
            if value.array is None:
                value.array = self.base.matmul(value.a, value.b)
            return value.array
        if isinstance(value, LazyMask):
            if value.array is None:
                value.array = super().apply(factors, self.xp, *value.args)
            return value.array
        return value

    def flush(self) -> None:
        """Run the queued accounts as one kernel."""
        if self.accounts.calls:
            function, args, into = self.accounts.join()
            super().apply(function, self.xp, *args, into=into)
