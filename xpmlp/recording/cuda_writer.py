"""The namespace and the `apply` of the steps on CuPy: each small function one kernel.

A kernel is written out from the traced program and compiled without contraction into fused
multiply-adds, so that it rounds where the operations one by one would round. A program that
takes sums or maxima over a row is one thread a row, which suits the few outputs of a loss.

What a step need not wait for runs beside it, products are made with what follows them where
cuBLASLt can, and a step's accounts are one kernel: the environment variable XPMLP_WITHOUT names
which of FEATURES to leave out, for a comparison.
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
from xpmlp.recording.codegen import RowSource, Source, placed
from xpmlp.recording.fused_products import FusedProducts, Product
from xpmlp.recording.plans import Asked, Calls, Plan, all_ours
from xpmlp.recording.tracing import REDUCTIONS, UntraceableError
from xpmlp.step import weighted
from xpmlp.types import Array, Namespace

OPTIONS = ("--fmad=false",)
VARIABLE = "XPMLP_WITHOUT"
FEATURES = ("branches", "epilogues", "accounts", "kernels")
CONCURRENT = (weighted, gradients)  # nothing but the end of the gradient waits for them
THREADS = 256
PIECE = 16 * THREADS  # numbers that a block sums up, at least
MOST = 1024  # blocks for a row
LONG, PARTS = 1024, 16  # rows that are summed in so many parts

# A row of numbers is summed by many blocks, each a partial sum: the sum of those is another call.
# A reduction of CuPy's is one block a row, and a parameter buffer is one row.
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
    """The speeds that XPMLP_WITHOUT names; ValueError for an unknown one."""
    found = frozenset(filter(None, os.environ.get(VARIABLE, "").replace(" ", "").split(",")))
    if unknown := sorted(found - {*FEATURES}):
        raise ValueError(f"{VARIABLE} knows {', '.join(FEATURES)}; got {', '.join(unknown)}")
    return found


class LazyMask:
    """A dropout mask that is drawn by the kernel that first multiplies by it."""

    def __init__(self, given: tuple[Any, ...]) -> None:
        self.given = given  # of `factors`
        self.array: Array | None = None


def activated_with_mask(
    xp: Namespace, f: Callable[..., Array], product: Array, bias: Array, *of_mask: Any
) -> tuple[Array, ...]:
    """`activated` with the mask that `factors` draws, and that mask."""
    mask = factors(xp, *of_mask)
    return *activated(xp, f, product, bias, mask), mask


class Kernels(Calls):
    """The namespace and the `apply` of one trainer's steps on CuPy."""

    def __init__(self, xp: Namespace, cupy: Any, without: Container[str] = ()) -> None:
        """xp: CuPy's namespace, with our `matmul`; cupy: the module; without: of FEATURES."""
        super().__init__(xp, cupy.ndarray)
        self.cupy, self.without = cupy, without
        self.vecdots: dict[Any, Any] = {}  # by dtype
        self.constants: dict[Any, Array] = {}
        self.accounts = Accounts(cupy.ndarray)
        self.in_function = False  # whether a function of the step's is run
        self.branches = None if "branches" in without else Branches(cupy.cuda)
        self.fused = None if "epilogues" in without else FusedProducts(xp.epilogues, xp)
        own = {"matmul": self.matmul, "vecdot": self.vecdot, "sum": self.sum}
        self.xp: Namespace = SimpleNamespace(**vars(xp) | own | {"arange": self.arange})

    def restart(self) -> None:
        self.accounts.calls.clear()  # of a step that failed
        super().restart()
        if self.fused is not None:
            self.fused.restart()
        if self.branches is not None:
            self.branches.restart()

    def join(self) -> None:
        if self.branches is not None:
            self.branches.join()

    def close(self) -> None:
        """Let go of the streams that it made, and of arrays that lie in a graph's memory."""
        self.constants.clear()
        self.restart()
        if self.branches is not None:
            self.branches.close(self.base.forget)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.cupy.empty(shape, dtype=dtype)

    # The namespace

    def matmul(self, a: Array, b: Array) -> Any:
        place = self.wanted((*a.shape[:-1], b.shape[-1]), a.dtype)
        if place is None and self.fused is not None and not self.in_function:
            return Product(a, b)
        return self.base.matmul(a, b, out=place)

    def arange(self, count: int, *, dtype: Any, device: Any) -> Array:
        """0, 1, ..., which is made once."""
        key = (count, str(dtype))
        if key not in self.constants:
            self.constants[key] = self.base.arange(count, dtype=dtype, device=device)
        return self.constants[key]

    def vecdot(self, a: Array, b: Array) -> Array:
        a, b = (self.cupy.ascontiguousarray(x) for x in (a, b))
        if str(a.dtype) not in TYPES or a.dtype != b.dtype or a.shape[-b.ndim :] != b.shape:
            return self.cupy.sum(a * b, axis=-1)
        n = a.shape[-1]
        pieces = max(1, min(MOST, n // PIECE))
        lead = a.shape[:-1]
        if pieces == 1:
            return self.summed(a, b, self.cupy.empty(lead, dtype=a.dtype), n, 1)
        partial = self.cupy.empty((*lead, pieces), dtype=a.dtype)
        self.summed(a, b, partial, n, pieces)
        ones = self.ones(pieces, a.dtype)
        return self.summed(partial, ones, self.cupy.empty(lead, dtype=a.dtype), pieces, 1)

    def summed(self, x: Array, y: Array, z: Array, n: int, pieces: int) -> Array:
        """z, the sums of x * y over `pieces` parts of every row of n numbers."""
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
        place = self.wanted((*x.shape[:-2], 1, x.shape[-1]), x.dtype)
        rows = x.shape[-2]
        if rows >= LONG and rows % PARTS == 0:  # a block sums a few columns, whatever the rows
            parts = x.reshape(*x.shape[:-2], PARTS, rows // PARTS, x.shape[-1])
            x = self.cupy.sum(parts, axis=-2)
        return self.cupy.sum(x, axis=-2, keepdims=True, out=place)

    def write(self, asked: Asked) -> Plan:
        if "kernels" in self.without:
            raise UntraceableError("kernels are left out")
        program, values, into, _, name = asked
        wanted, found = placed(asked)
        if not wanted:
            return Plan(lambda *arrays: None, (), found)
        by_rows = any(operation.name in REDUCTIONS for operation in program.operations)
        written: Any = (RowSource if by_rows else Source)(program, values)
        made = tuple((written.shapes[v.at], np.dtype(written.dtypes[v.at])) for v in wanted)
        whole = np.broadcast_shapes(*(a.shape for a in values))
        single = {r for r, (shape, _) in enumerate(made) if into and shape == (1,) != whole}
        if not by_rows and any(made[r][0] != whole for r in {*range(len(made))} - single):
            raise UntraceableError("its results are of several shapes")
        if by_rows and into:
            raise UntraceableError("it takes a sum, and its results are written over arguments")
        raw = "raw " if by_rows else ""
        kernel = self.cupy.ElementwiseKernel(
            ", ".join(f"{raw}{a.dtype.name} a{i}" for i, a in enumerate(values)),
            ", ".join(
                f"{'raw ' if by_rows or r in single else ''}{dtype.name} r{r}"
                for r, (_, dtype) in enumerate(made)
            ),
            written.by_rows(wanted) if by_rows else written.elementwise(wanted, single),
            "xpmlp_" + re.sub(r"\W", "_", name),
            options=OPTIONS,
        )
        run = (lambda *arrays: kernel(*arrays, size=written.rows)) if by_rows else kernel
        return Plan(run, () if into else made, () if into else found)

    # The apply

    def apply(
        self, function: Callable[..., Any], xp: Namespace, *given: Any, into: Sequence[Array] = ()
    ) -> Any:
        if function is factors:
            return LazyMask(given)
        if is_account(function) and "accounts" not in self.without and all_ours(given):
            call = PendingCall(function, given, into)
            if not self.accounts.can_join(call):
                self.flush()
            self.accounts.calls.append(call)
            return None
        self.flush()
        if self.branches is not None and function in CONCURRENT:
            with self.branches.fork(*given):
                return self.run(function, xp, given, into)
        return self.run(function, xp, given, into)

    def run(
        self, function: Callable[..., Any], xp: Namespace, given: Any, into: Sequence[Array]
    ) -> Any:
        if self.fused is not None:
            found = self.fused.apply(function, given, into)
            if found is not None:
                return found
        self.in_function = True
        try:
            if function is activated and isinstance(given[-1], LazyMask):
                f, product, bias, mask = given
                given = (f, self.materialized(product), bias, *mask.given)
                *found, mask.array = super().apply(activated_with_mask, xp, *given)
                return tuple(found)
            return super().apply(function, xp, *map(self.materialized, given), into=into)
        finally:
            self.in_function = False

    def materialized(self, one: Any) -> Any:
        """What a step's function is given, made if it was put off."""
        if isinstance(one, Product):
            if one.array is None:
                one.array = self.base.matmul(one.a, one.b)
            return one.array
        if isinstance(one, LazyMask):
            if one.array is None:
                one.array = super().apply(factors, self.xp, *one.given)
            return one.array
        return one

    def flush(self) -> None:
        """Run the accounts that are held back, as one kernel."""
        if self.accounts.calls:
            function, given, into = self.accounts.joined()
            super().apply(function, self.xp, *given, into=into)
