"""cuBLAS beneath NVIDIA's bindings, and CuPy's matmul, computed by NumPy."""

import ctypes
import inspect
import sys
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from support.standin.card import Launch, card
from support.standin.graphs import spread

DATA = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16)}
COMPUTE_TF32, COMPUTE_64F = 77, 70
VERSION = 130100


class Handle:
    def __init__(self) -> None:
        self.stream = 0
        self.workspace: tuple[int, int] | None = None


handles: dict[int, Handle] = {}


def create() -> int:
    number = card.new()
    handles[number] = Handle()
    return number


def destroy(handle: int) -> None:
    card.forbid_while_capturing("a cuBLAS handle is destroyed")
    handles.pop(handle)


def set_stream(handle: int, stream_id: int) -> None:
    handles[handle].stream, handles[handle].workspace = stream_id, None


def set_workspace(handle: int, workspace: int, workspace_size_in_bytes: int) -> None:
    handles[handle].workspace = (workspace, workspace_size_in_bytes)


def matrix(start: int, dtype: np.dtype, rows: int, columns: int, leading: int) -> np.ndarray:
    """A column-major matrix with leading dimension `leading`."""
    count = max(1, leading * (columns - 1) + rows)
    memory = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(start)
    steps = (dtype.itemsize, leading * dtype.itemsize)
    return np.ndarray((rows, columns), dtype, memory, strides=steps)


def scalar(start: int, compute: int) -> float:
    kind = ctypes.c_double if compute == COMPUTE_64F else ctypes.c_float
    return kind.from_address(start).value


def to_tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to ten bits of mantissa, as tensor cores read float32."""
    words = np.ascontiguousarray(x).view(np.uint32)
    return ((words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def multiplied(a: np.ndarray, b: np.ndarray, compute: int) -> np.ndarray:
    if a.dtype == np.float16:
        a, b = a.astype(np.float32), b.astype(np.float32)
    if compute == COMPUTE_TF32:
        a, b = to_tf32(a), to_tf32(b)
    with np.errstate(all="ignore"):
        return a @ b


class Operand:
    """One of the matrices of a batched product."""

    def __init__(
        self, start: int, data: int, rows: int, columns: int, leading: int, stride: int = 0,
        batch: int = 1,
    ) -> None:  # fmt: skip
        assert leading >= max(1, rows), f"leading dimension {leading} of {rows} rows"
        self.start, self.dtype, self.stride = start, DATA[data], stride * DATA[data].itemsize
        self.shape, self.leading = (rows, columns), leading
        size = (leading * (columns - 1) + rows) * self.dtype.itemsize
        self.ranges = spread(start, size, self.stride, batch)

    def at(self, k: int) -> np.ndarray:
        return matrix(self.start + k * self.stride, self.dtype, *self.shape, self.leading)


def gemm_strided_batched_ex(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
    a: int, atype: int, lda: int, stride_a: int, b: int, btype: int, ldb: int, stride_b: int,
    beta: int, c: int, ctype: int, ldc: int, stride_c: int, batch_count: int,
    compute_type: int, algo: int,
) -> None:  # fmt: skip
    used = handles[handle]
    assert used.workspace, "the product has no workspace of its own"
    assert min(m, n, k, batch_count) >= 1
    assert (scalar(alpha, compute_type), scalar(beta, compute_type)) == (1, 0)
    of_a, of_b = ((k, m) if transa else (m, k)), ((n, k) if transb else (k, n))
    first = Operand(a, atype, *of_a, lda, stride_a, batch_count)
    second = Operand(b, btype, *of_b, ldb, stride_b, batch_count)
    out = Operand(c, ctype, m, n, ldc, stride_c, batch_count)

    def work() -> None:
        for i in range(batch_count):
            x, y = first.at(i), second.at(i)
            out.at(i)[...] = np.nan  # it is not read and must not overlap an operand
            out.at(i)[...] = multiplied(x.T if transa else x, y.T if transb else y, compute_type)

    start, size = used.workspace
    reads, writes = [*first.ranges, *second.ranges], [*out.ranges, (start, start + size)]
    card.touch([*reads, *writes])
    name = f"product {m} x {n} x {k}"
    captured = card.is_capturing(used.stream)
    card.launches.append(Launch(name, batch_count, 0, used.stream, captured))
    card.submit(used.stream, "kernel", name, work, reads, writes)


def gemm_ex(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
    a: int, atype: int, lda: int, b: int, btype: int, ldb: int,
    beta: int, c: int, ctype: int, ldc: int, compute_type: int, algo: int,
) -> None:  # fmt: skip
    of_a, of_b, of_c = (a, atype, lda, 0), (b, btype, ldb, 0), (c, ctype, ldc, 0)
    gemm_strided_batched_ex(
        handle, transa, transb, m, n, k, alpha, *of_a, *of_b, beta, *of_c, 1, compute_type, algo
    )


def set_pointer_mode(handle: int, mode: int) -> None:
    assert mode == 0, "scalars lie on the host"


def get_version(handle: int) -> int:
    return VERSION


FUNCTIONS = (
    create, destroy, set_stream, set_workspace, set_pointer_mode, get_version, gemm_ex,
    gemm_strided_batched_ex,
)  # fmt: skip
calls: deque[tuple[str, SimpleNamespace]] = deque(maxlen=10_000)


def matmul(a: Any, b: Any, out: Any = None, **unused: Any) -> Any:
    """CuPy's matmul, which no stream may capture (cupy#6290)."""
    import cupy

    if card.is_capturing(cupy.cuda.get_current_stream().ptr):
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    with np.errstate(all="ignore"):
        product = cupy.asarray(np.matmul(a.get(), b.get()))
    if out is None:
        return product
    out[...] = product
    return out


class NodeHandle(int):
    """The index of a node in its graph, as a driver handle."""

    graph: int


def handle(graph: Any, at: int) -> NodeHandle:
    node = NodeHandle(at)
    node.graph = int(graph)
    return node


def nodes(graph: Any, count: int = 0) -> tuple[int, list[NodeHandle], int]:
    size = len(card.graphs[int(graph)])
    return 0, [handle(graph, at) for at in range(min(size, count))], size


def edges(
    graph: Any, count: int = 0
) -> tuple[int, list[NodeHandle], list[NodeHandle], list[Any], int]:
    pairs = [
        (before, at)
        for at, node in enumerate(card.graphs[int(graph)])
        for before in sorted(node.after)
    ]
    first, second = ([handle(graph, pair[side]) for pair in pairs[:count]] for side in (0, 1))
    return 0, first, second, [None] * len(first), len(pairs)


def node_kind(node: NodeHandle) -> tuple[int, Any]:
    kind = card.graphs[node.graph][node].kind
    return 0, SimpleNamespace(name=f"CU_GRAPH_NODE_TYPE_{kind.upper()}")


def replace(bindings: Any, module: Any) -> None:
    """Replace NVIDIA's bindings by the FUNCTIONS of a module, and log their calls."""

    def logged(name: str, parameters: list[str]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append((name, SimpleNamespace(**dict(zip(parameters, arguments, strict=True)))))
            return getattr(module, name)(*arguments)  # as a test may have replaced it

        return call

    for function in module.FUNCTIONS:
        parameters = list(inspect.signature(function).parameters)
        expected = list(inspect.signature(getattr(bindings, function.__name__)).parameters)
        assert parameters == expected, function
        setattr(bindings, function.__name__, logged(function.__name__, parameters))


def install() -> None:
    """Replace the bindings' functions and CuPy's matmul by those of this module."""
    import cupy
    from cuda.bindings import driver

    driver.cuGraphGetNodes, driver.cuGraphNodeGetType = nodes, node_kind
    driver.cuGraphGetEdges = edges
    cupy.matmul = matmul
    cupy.ndarray.__matmul__ = matmul
    try:
        from nvmath.bindings import cublas, cublasLt
    except ModuleNotFoundError:  # in a process where it must be missing
        return
    from support.standin import epilogues

    replace(cublas, sys.modules[__name__])
    replace(cublasLt, epilogues)
