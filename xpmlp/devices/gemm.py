"""The GEMM of `xp.matmul` on CuPy: planned from the strides, computed by cuBLAS.

CuPy refuses its own cuBLAS calls while a stream is captured (cupy#6290), so a captured training
step needs this one. The first half is integer code on shapes and strides, the second calls cuBLAS.

cuBLAS matrices are in column-major order, so the rows of a C-order matrix are to it the columns of
the transpose. For such an `out` it computes out^T = b^T a^T, with b as its first operand.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import product
from math import prod
from threading import RLock
from typing import Any, Literal, NamedTuple

from xpmlp.types import Array

WORKSPACE = 32 << 20  # bytes; what NVIDIA advises on Hopper


class Layout(NamedTuple):
    """How an array lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class Axis(NamedTuple):
    """A leading axis, along which the matrices of all three arrays follow one another."""

    extent: int
    steps: tuple[int, int, int]  # elements, one per array; 0 where it is broadcast


class Plan(NamedTuple):
    """The arguments of a cuBLAS product: its a and b are the operands passed first and second."""

    first: Literal["a", "b"]  # which operand of a @ b is cuBLAS's a
    transa: bool
    transb: bool
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    stride_a: int
    stride_b: int
    stride_c: int
    batch: int
    loops: tuple[Axis, ...]  # leading axes that no single call can cover: one call per entry
    copies: tuple[bool, bool]  # whether a and b of a @ b are first copied to C order

    def starts(self) -> Iterator[tuple[int, int, int]]:
        """The offsets of cuBLAS's a, b and c at every call, in elements."""
        steps = [axis.steps for axis in self.loops]
        for at in product(*(range(axis.extent) for axis in self.loops)):
            pairs = list(zip(at, steps, strict=True))
            i, j, k = (sum(index * step[side] for index, step in pairs) for side in range(3))
            yield i, j, k


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a @ b by the Array API's rules; ValueError naming both shapes.

    >>> product_shape((7, 2, 3), (3, 4))
    (7, 2, 4)
    """
    if not a or not b:
        raise ValueError(f"matmul takes arrays of at least one axis; the shapes are {a} and {b}")
    if a[-1] != b[-min(2, len(b))]:
        raise ValueError(f"matmul: {a} and {b} do not align: the inner axes must be equal")
    depth = max(len(a), len(b), 2) - 2
    padded = ((1,) * (depth - len(shape[:-2])) + shape[:-2] for shape in (a, b))
    pairs = list(zip(*padded, strict=True))
    if any(p != q and 1 not in {p, q} for p, q in pairs):
        raise ValueError(f"matmul: the leading axes of {a} and {b} do not broadcast")
    columns = b[-1:] if len(b) > 1 else ()
    return (*(q if p == 1 else p for p, q in pairs), *a[-2:-1], *columns)


def contiguous(shape: tuple[int, ...]) -> Layout:
    """The layout of a fresh array."""
    return Layout(shape, tuple(prod(shape[axis + 1 :]) for axis in range(len(shape))))


def matrix_order(matrix: Layout) -> tuple[bool, int] | None:
    """(whether it is in row-major order, the leading dimension) of a 2-D layout; None if cuBLAS
    supports neither order.

    An axis of extent 1 may have any stride: nothing is ever read along it.
    """
    (rows, columns), (down, across) = matrix
    if rows == 0 or columns == 0:
        return True, max(1, columns)
    if (across == 1 or columns == 1) and (rows == 1 or down >= columns):
        return True, columns if rows == 1 else down
    if (down == 1 or rows == 1) and across >= rows:
        return False, across
    return None


def readable(operand: Layout) -> bool:
    """Whether cuBLAS reads the operand as it is; else it is copied first."""
    shape, strides = ((1, 1, *numbers) for numbers in operand)  # a 1-D operand is one row
    forward = all(n <= 1 or s >= 0 for n, s in zip(shape[:-2], strides[:-2], strict=True))
    return forward and matrix_order(Layout(shape[-2:], strides[-2:])) is not None


def writable(out: Layout) -> bool:
    """Whether cuBLAS writes `out` as it is: in a supported order, and no element twice."""
    last = 0  # the last element along the axes so far
    for stride, extent in sorted(zip(out.strides, out.shape, strict=True)):
        if extent > 1:
            if stride <= last:
                return False
            last += stride * (extent - 1)
    return readable(out)


def with_matrix_axes(a: Layout, b: Layout, out: Layout) -> tuple[Layout, Layout, Layout]:
    """The same with axes of extent 1 where a 1-D operand lacks its row or column axis."""
    if len(b.shape) == 1:
        b = Layout((*b.shape, 1), (*b.strides, 1))
        out = Layout((*out.shape, 1), (*out.strides, 1))
    if len(a.shape) == 1:
        a = Layout((1, *a.shape), (1, *a.strides))
        out = Layout((*out.shape[:-1], 1, out.shape[-1]), (*out.strides[:-1], 1, out.strides[-1]))
    return a, b, out


def step_along(array: Layout, axis: int) -> int:
    """The stride of a leading axis, counted from the end; 0 where the array is broadcast."""
    own = len(array.shape) >= -axis and array.shape[axis] != 1
    return array.strides[axis] if own else 0


def leading_axes(a: Layout, b: Layout, out: Layout) -> list[Axis]:
    """The leading axes, outermost first: none of extent 1, and joined where the strides allow."""
    axes: list[Axis] = []
    for at in range(-len(out.shape), -2):
        if (extent := out.shape[at]) == 1:
            continue
        i, j, k = (step_along(x, at) for x in (a, b, out))
        if axes and axes[-1].steps == (extent * i, extent * j, extent * k):
            axes[-1] = Axis(axes[-1].extent * extent, (i, j, k))
        else:
            axes.append(Axis(extent, (i, j, k)))
    return axes


def as_one_matrix(matrix: Layout, count: int, step: int) -> Layout | None:
    """`count` of these matrices, `step` apart, as one tall matrix; None where there are gaps."""
    (rows, columns), (down, across) = matrix
    if rows == 1:
        down = step
    tall = Layout((count * rows, columns), (down, across))
    return tall if step == rows * down and matrix_order(tall) else None


def plan(a: Layout, b: Layout, out: Layout) -> Plan:
    """How cuBLAS computes out = a @ b; the shapes must fit, and `out` must be `writable`.

    Leading axes along which b is broadcast become rows of a where the strides allow; the longest
    of the others is the batch, and any that remain are looped over.

    >>> images, weights = contiguous((2, 5, 3)), contiguous((3, 4))
    >>> chosen = plan(images, weights, contiguous((2, 5, 4)))
    >>> chosen.first, chosen.m, chosen.n, chosen.k, chosen.batch
    ('b', 4, 10, 3, 1)
    """
    copies = (not readable(a), not readable(b))
    a, b = (contiguous(x.shape) if copy else x for x, copy in zip((a, b), copies, strict=True))
    a, b, out = with_matrix_axes(a, b, out)
    axes = leading_axes(a, b, out)
    a, b, out = (Layout(x.shape[-2:], x.strides[-2:]) for x in (a, b, out))
    while axes and axes[-1].steps[1] == 0:
        extent, steps = axes[-1]
        tall_a, tall_out = as_one_matrix(a, extent, steps[0]), as_one_matrix(out, extent, steps[2])
        if tall_a is None or tall_out is None:
            break
        a, out, axes = tall_a, tall_out, axes[:-1]
    of_a, of_b, of_out = matrix_order(a), matrix_order(b), matrix_order(out)
    if of_a is None or of_b is None or of_out is None:
        raise ValueError(f"cuBLAS cannot write a matrix of layout {out}: copy it afterwards")
    by_rows, (m, n), k = of_out[0], out.shape, a.shape[1]
    if by_rows:  # out^T = b^T a^T
        of_a, of_b, m, n = of_b, of_a, n, m
        axes = [Axis(extent, (j, i, l)) for extent, (i, j, l) in axes]
    longest = max(range(len(axes)), key=lambda at: axes[at].extent, default=0)
    batch = axes.pop(longest) if axes else Axis(1, (0, 0, 0))
    transposed = (of_a[0] != by_rows, of_b[0] != by_rows)
    leading = (of_a[1], of_b[1], of_out[1])
    sizes = (*transposed, m, n, k, *leading, *batch.steps, batch.extent)
    return Plan("b" if by_rows else "a", *sizes, tuple(axes), copies)


class Kind(NamedTuple):
    """cuBLAS's types for a dtype."""

    data: int  # a cudaDataType
    compute: int  # a cublasComputeType_t
    alpha: Any  # 1, in host memory and in the compute type
    beta: Any  # 0, likewise


def kinds(compute: Any, data: Any, precision: str) -> dict[str, Kind]:
    """By dtype name, from nvmath's enumerations of compute types and data types."""
    single = ctypes.c_float(1.0), ctypes.c_float(0.0)
    double = ctypes.c_double(1.0), ctypes.c_double(0.0)
    full = int(compute.COMPUTE_32F)
    fast = int(compute.COMPUTE_32F_FAST_TF32) if precision == "tf32" else full
    return {
        "float16": Kind(int(data.CUDA_R_16F), full, *single),
        "bfloat16": Kind(int(data.CUDA_R_16BF), full, *single),
        "float32": Kind(int(data.CUDA_R_32F), fast, *single),
        "float64": Kind(int(data.CUDA_R_64F), int(compute.COMPUTE_64F), *double),
    }


def layout(array: Array) -> Layout:
    size = array.dtype.itemsize
    return Layout(array.shape, tuple(stride // size for stride in array.strides))


def release(destroy: Callable[[int], None], handle: int, workspaces: dict[int, Any]) -> None:
    """Destroy a handle, and only then free its workspaces."""
    with suppress(Exception):  # after a device fault even this fails, and cannot be handled here
        destroy(handle)
    workspaces.clear()


class Gemm:
    """A cuBLAS handle with its workspaces, on the device that is current when it is made.

    precision: of float32 products, "full" or "tf32". It uses CuPy's current stream, with 32 MiB of
    workspace per stream: two streams sharing one would overwrite each other's partial sums.
    Thread-safe. A graph that captured its products needs it to stay open.
    """

    def __init__(self, precision: Literal["full", "tf32"] = "full") -> None:
        if precision not in {"full", "tf32"}:
            raise ValueError(f"precision is 'full' or 'tf32', not {precision!r}")
        import cupy
        from nvmath import CudaDataType
        from nvmath.bindings import cublas

        self._cupy, self._cublas = cupy, cublas
        self._kinds_by_name = kinds(cublas.ComputeType, CudaDataType, precision)
        self._kinds: dict[Any, Kind | None] = {}  # by dtype, as its name is slow to compute
        self._operations = int(cublas.Operation.N), int(cublas.Operation.T)
        self._algorithm = int(cublas.GemmAlgo.DFALT)
        self._plan = lru_cache(1024)(plan)
        self._workspaces: dict[int, Any] = {}  # by stream
        self._stream: int | None = None
        self._lock = RLock()  # a handle has one stream, and another thread may use another
        self._handle: int = cublas.create()
        self._finalizer = weakref.finalize(
            self, release, cublas.destroy, self._handle, self._workspaces
        )
        self._finalizer.atexit = (
            False  # the driver may be unloaded by then, and the process frees all
        )
        cublas.set_pointer_mode(self._handle, int(cublas.PointerMode.HOST))

    def close(self) -> None:
        """Destroy the handle; a later product raises cuBLASError."""
        self._finalizer()
        self._handle, self._stream = 0, None

    def forget(self, stream: int) -> None:
        """Release the workspace of a stream that is no longer used, given its pointer."""
        with self._lock:
            self._workspaces.pop(stream, None)
            if self._stream == stream:
                self._stream = None

    def matmul(self, a: Array, b: Array, /, out: Array | None = None) -> Array:
        """a @ b by the Array API's rules, into `out` where given; other dtypes by CuPy's own."""
        kind = self._kind(a, b, out)
        if kind is None:
            return self._cupy.matmul(a, b, out=out)
        shape = product_shape(a.shape, b.shape)
        if out is not None and out.shape != shape:
            raise ValueError(f"matmul: out has shape {out.shape}, the product {shape}")
        direct = out is not None and self._direct(out, a, b)
        target: Array = out if direct else self._cupy.empty(shape, dtype=a.dtype)
        if a.shape[-1] == 0:
            target.fill(0)
        elif 0 not in shape:
            self._multiply(kind, a, b, target)
        if out is None or direct:
            return target
        out[...] = target
        return out

    def _kind(self, a: Array, b: Array, out: Array | None) -> Kind | None:
        """cuBLAS's types for these arrays' common dtype; None if it does not support them."""
        arrays = (a, b) if out is None else (a, b, out)
        if not all(isinstance(x, self._cupy.ndarray) and x.dtype == a.dtype for x in arrays):
            return None
        if a.dtype not in self._kinds:
            self._kinds[a.dtype] = self._kinds_by_name.get(a.dtype.name)
        return self._kinds[a.dtype]

    def _direct(self, out: Array, *operands: Array) -> bool:
        """Whether the product can be written to `out` directly, while the operands are read."""
        shared = any(self._cupy.may_share_memory(out, operand) for operand in operands)
        return not shared and writable(layout(out))

    def _multiply(self, kind: Kind, a: Array, b: Array, out: Array) -> None:
        p = self._plan(layout(a), layout(b), layout(out))
        a = self._cupy.ascontiguousarray(a) if p.copies[0] else a
        b = self._cupy.ascontiguousarray(b) if p.copies[1] else b
        first, second = (b, a) if p.first == "b" else (a, b)
        alpha, beta = ctypes.addressof(kind.alpha), ctypes.addressof(kind.beta)
        op, data, size = self._operations, kind.data, out.dtype.itemsize
        head = (self._handle, op[p.transa], op[p.transb], p.m, p.n, p.k, alpha)
        tail = (kind.compute, self._algorithm)
        with self._lock:
            self._bind_stream()
            for i, j, l in p.starts():
                of_a = (first.data.ptr + i * size, data, p.lda)
                of_b = (second.data.ptr + j * size, data, p.ldb)
                of_c = (out.data.ptr + l * size, data, p.ldc)
                if p.batch == 1:
                    self._cublas.gemm_ex(*head, *of_a, *of_b, beta, *of_c, *tail)
                else:
                    operands = (*of_a, p.stride_a, *of_b, p.stride_b, beta, *of_c, p.stride_c)
                    self._cublas.gemm_strided_batched_ex(*head, *operands, p.batch, *tail)

    def workspace(self, stream: int) -> Any:
        """The workspace of that stream's products, WORKSPACE bytes."""
        with self._lock:
            if stream not in self._workspaces:
                # never from a trainer's pool, which ends with the trainer
                self._workspaces[stream] = self._cupy.get_default_memory_pool().malloc(WORKSPACE)
            return self._workspaces[stream]

    def _bind_stream(self) -> None:
        """Set the handle's stream to CuPy's current one, with that stream's workspace."""
        stream = self._cupy.cuda.get_current_stream().ptr
        if stream == self._stream:
            return
        workspace = self.workspace(stream)
        self._stream = None  # unknown, should one of the two calls fail
        self._cublas.set_stream(self._handle, stream)
        # afterwards, because set_stream resets the workspace to cuBLAS's own
        self._cublas.set_workspace(self._handle, workspace.ptr, WORKSPACE)
        self._stream = stream
