"""Products fused with an epilogue by cuBLASLt: bias and relu, relu's slope, db.

Each epilogue is first tested on small numbers: one that differs from the plain operations, or is
not supported for a shape, is not used.
"""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any, NamedTuple

from xpmlp.devices.gemm import WORKSPACE, Layout, Plan, layout, plan
from xpmlp.types import Array

MAX_ALIGNMENT = 256  # bytes; no kernel needs more
MASK_ALIGNMENT = 128  # relu's mask is bits, its leading dimension a multiple of that


class Epilogue(NamedTuple):
    """An operation that is fused with a product."""

    name: str  # of cuBLASLt's epilogues
    bias: bool  # whether it reads or writes a row of the result's width
    aux: bool  # whether it reads or writes relu's mask


BIAS = Epilogue("BIAS", True, False)
RELU_BIAS = Epilogue("RELU_BIAS", True, False)
RELU_AUX_BIAS = Epilogue("RELU_AUX_BIAS", True, True)
DRELU = Epilogue("DRELU", False, True)
BGRADA = Epilogue("BGRADA", True, False)
EPILOGUES = (BIAS, RELU_BIAS, RELU_AUX_BIAS, DRELU, BGRADA)


class Algorithm(NamedTuple):
    """How cuBLASLt computes a product of a shape."""

    plan: Plan
    descriptor: int
    layouts: tuple[int, int, int]  # of its a, b and c
    heuristic: Any  # holds the algorithm
    workspace: int  # bytes that it takes


class Epilogues:
    """A cuBLASLt handle with its algorithm for each shape, on the device that is current when it
    is created. Products are float32, of one network.

    precision: of the products, "full" or "tf32"; workspace: gives WORKSPACE bytes of memory for a
    stream's pointer. No algorithm is searched for while a stream captures. Thread-safe.
    """

    def __init__(self, precision: str, workspace: Callable[[int], Any]) -> None:
        import cupy
        from nvmath import CudaDataType
        from nvmath.bindings import cublas, cublasLt

        self.cupy, self.lt, self.workspace = cupy, cublasLt, workspace
        compute = cublas.ComputeType
        tf32 = precision == "tf32"
        self.compute = int(compute.COMPUTE_32F_FAST_TF32 if tf32 else compute.COMPUTE_32F)
        self.float32 = int(CudaDataType.CUDA_R_32F)
        self.one, self.zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        self.algorithms: dict[Any, Algorithm | None] = {}
        self.lock = RLock()  # a descriptor points at one product's bias and mask
        self.trusted: frozenset[Epilogue] | None = None  # None: not yet tested
        self.handle = 0

    def self_test(self, matmul: Callable[..., Array]) -> None:
        """Find out which epilogues equal the plain operations. matmul: without an epilogue."""
        with self.lock:
            if self.trusted is not None:
                return
            try:
                self.handle = self.lt.create()
                finalizer = weakref.finalize(self, release, self.lt, self.handle, self.algorithms)
                finalizer.atexit = False  # the driver may be unloaded, and the process frees all
                self.trusted = frozenset(EPILOGUES)
                self.trusted = frozenset(one for one in EPILOGUES if self.is_correct(one, matmul))
            except MemoryError:
                self.trusted = None  # there may be enough later
                raise
            except Exception:  # a missing library: the plain operations are used
                self.trusted = frozenset()

    def multiply(
        self, epilogue: Epilogue, a: Array, b: Array, out: Array, bias: Any = None, aux: Any = None
    ) -> bool:
        """Write a @ b with its epilogue to `out`; False where it is not supported, and nothing is
        done."""
        arrays = [x for x in (a, b, out, bias) if x is not None]
        if any(str(x.dtype) != "float32" or x.ndim != 2 or x.size == 0 for x in arrays):
            return False
        if epilogue not in (self.trusted or ()) or not (bias is None or bias.flags.c_contiguous):
            return False
        pointers = [0 if x is None else x.data.ptr for x in (a, b, out, bias, aux)]
        # the largest power of two that divides it, up to MAX_ALIGNMENT
        alignments = tuple(min(p & -p, MAX_ALIGNMENT) if p else MAX_ALIGNMENT for p in pointers)
        layouts, stream = tuple(map(layout, (a, b, out))), self.cupy.cuda.get_current_stream()
        key = (epilogue, layouts, alignments)
        with self.lock:
            if key not in self.algorithms:
                if stream.is_capturing():
                    return False
                self.algorithms[key] = self.find_algorithm(
                    epilogue, layouts, alignments, pointers[3:]
                )
            algorithm = self.algorithms[key]
            if algorithm is None:
                return False
            self.set_pointers(epilogue, algorithm.descriptor, pointers[3:])
            first, second = (b, a) if algorithm.plan.first == "b" else (a, b)
            one, zero = map(ctypes.addressof, (self.one, self.zero))
            of_a, of_b, of_c = algorithm.layouts
            place = out.data.ptr
            try:
                self.lt.matmul(
                    self.handle, algorithm.descriptor, one, first.data.ptr, of_a,
                    second.data.ptr, of_b, zero, place, of_c, place, of_c,
                    algorithm.heuristic.ptr, self.workspace(stream.ptr).ptr,
                    algorithm.workspace, stream.ptr,
                )  # fmt: skip
            except self.lt.cuBLASLtError:  # the heuristic's algorithm is not supported
                self.destroy(algorithm)
                self.algorithms[key] = None
                if stream.is_capturing():
                    raise
                return False
        return True

    # Algorithms

    def find_algorithm(
        self,
        epilogue: Epilogue,
        layouts: Sequence[Layout],
        alignments: Sequence[int],
        pointers: Sequence[int],
    ) -> Algorithm | None:
        """The algorithm for a product of such arrays; None where there is none."""
        p, lt = plan(*layouts), self.lt
        if p.first != "b" or p.batch != 1 or p.loops or any(p.copies):
            return None
        descriptor = lt.matmul_desc_create(self.compute, self.float32)
        rows_a, rows_b = (
            ((p.k, p.m) if p.transa else (p.m, p.k)),
            ((p.n, p.k) if p.transb else (p.k, p.n)),
        )
        matrices = tuple(
            lt.matrix_layout_create(self.float32, rows, columns, leading)
            for (rows, columns), leading in (
                (rows_a, p.lda), (rows_b, p.ldb), ((p.m, p.n), p.ldc)
            )
        )  # fmt: skip
        attribute = lt.MatmulDescAttribute
        self.set(descriptor, attribute.TRANSA, ctypes.c_int32(p.transa))
        self.set(descriptor, attribute.TRANSB, ctypes.c_int32(p.transb))
        self.set(descriptor, attribute.EPILOGUE, ctypes.c_uint32(int(lt.Epilogue[epilogue.name])))
        if epilogue.aux:
            leading = -(-p.m // MASK_ALIGNMENT) * MASK_ALIGNMENT
            self.set(descriptor, attribute.EPILOGUE_AUX_LD, ctypes.c_int64(leading))
        self.set_pointers(epilogue, descriptor, pointers)
        heuristic = lt.MatmulHeuristicResult(1)
        count = ctypes.c_int32(0)
        preference = self.preference(alignments)
        try:
            lt.matmul_algo_get_heuristic(
                self.handle, descriptor, *matrices, matrices[2], preference, 1, heuristic.ptr,
                ctypes.addressof(count),
            )  # fmt: skip
        except lt.cuBLASLtError:  # not supported
            count.value = 0
        finally:
            lt.matmul_preference_destroy(preference)
        workspace = int(heuristic.workspace_size)
        algorithm = Algorithm(p, descriptor, matrices, heuristic, workspace)
        if not count.value or int(heuristic.state):
            self.destroy(algorithm)
            return None
        return algorithm

    def destroy(self, algorithm: Algorithm) -> None:
        self.lt.matmul_desc_destroy(algorithm.descriptor)
        for each in algorithm.layouts:
            self.lt.matrix_layout_destroy(each)

    def preference(self, alignments: Sequence[int]) -> int:
        lt, of = self.lt, self.lt.MatmulPreferenceAttribute
        preference: int = lt.matmul_preference_create()
        a, b, out = alignments[:3]
        values = (
            (of.MAX_WORKSPACE_BYTES, ctypes.c_uint64(WORKSPACE)),
            (of.MIN_ALIGNMENT_A_BYTES, ctypes.c_uint32(b)),
            (of.MIN_ALIGNMENT_B_BYTES, ctypes.c_uint32(a)),
            (of.MIN_ALIGNMENT_C_BYTES, ctypes.c_uint32(out)),
            (of.MIN_ALIGNMENT_D_BYTES, ctypes.c_uint32(out)),
        )
        for name, value in values:
            lt.matmul_preference_set_attribute(
                preference, int(name), ctypes.addressof(value), ctypes.sizeof(value)
            )
        return preference

    def set(self, descriptor: int, name: Any, value: Any) -> None:
        self.lt.matmul_desc_set_attribute(
            descriptor, int(name), ctypes.addressof(value), ctypes.sizeof(value)
        )

    def set_pointers(self, epilogue: Epilogue, descriptor: int, pointers: Sequence[int]) -> None:
        attribute = self.lt.MatmulDescAttribute
        if epilogue.bias:
            self.set(descriptor, attribute.BIAS_POINTER, ctypes.c_void_p(pointers[0]))
        if epilogue.aux:
            self.set(descriptor, attribute.EPILOGUE_AUX_POINTER, ctypes.c_void_p(pointers[1]))

    # The test of an epilogue

    def is_correct(self, epilogue: Epilogue, matmul: Callable[..., Array]) -> bool:
        """Whether a product of small integers, exact in every precision, equals that of the plain
        operations; relu must propagate NaN."""
        cp = self.cupy
        ramp = cp.arange(64 * 64, dtype="float32")
        x, w = ((ramp * step % 7 - 3).reshape(64, 64) for step in (5, 3))
        bias = ramp[:64].reshape(1, 64) % 5 - 2
        if epilogue in (RELU_BIAS, RELU_AUX_BIAS):
            x[3, 5] = float("nan")
        out, row, mask = cp.empty((64, 64), "float32"), bias, None
        z = matmul(x, w) + bias
        expected = {BIAS: z, BGRADA: z - bias, DRELU: matmul(w, x) * (z > 0)}.get(epilogue)
        if expected is None:
            expected = cp.maximum(z, 0)
        try:
            if epilogue.aux:
                mask = cp.zeros(relu_mask_shape(out.shape), "uint8")
                done = self.multiply(RELU_AUX_BIAS, x, w, out, bias=bias, aux=mask)
            if epilogue is DRELU:
                done = done and self.multiply(DRELU, w, x, out, aux=mask)
            elif epilogue is BGRADA:
                row = cp.empty((1, 64), "float32")
                done = self.multiply(BGRADA, x, w, out, bias=row)
                done = done and bool((row == w.sum(axis=0, keepdims=True)).min())
            elif not epilogue.aux:
                done = self.multiply(epilogue, x, w, out, bias=bias)
        except self.lt.cuBLASLtError:
            return False
        equal = (out == expected) | (cp.isnan(out) & cp.isnan(expected))
        return done and bool(equal.min())


def relu_mask_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[-2], -(-shape[-1] // MASK_ALIGNMENT) * MASK_ALIGNMENT // 8


def release(lt: Any, handle: int, algorithms: dict[Any, Algorithm | None]) -> None:
    """Destroy a handle and its algorithms."""
    with suppress(Exception):  # after a device fault even this fails, and cannot be handled here
        for algorithm in filter(None, algorithms.values()):
            lt.matmul_desc_destroy(algorithm.descriptor)
            for matrix in algorithm.layouts:
                lt.matrix_layout_destroy(matrix)
        lt.destroy(handle)
