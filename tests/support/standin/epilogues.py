"""cuBLASLt beneath NVIDIA's bindings, computed by NumPy: products with a bias, relu or sum."""

import ctypes
from dataclasses import dataclass, field

import numpy as np

from support.standin.card import Launch, card
from support.standin.products import DATA, Operand, multiplied, scalar

NOT_SUPPORTED = 15
ALIGNMENT = 16  # of operands, in bytes


@dataclass
class Settings:
    """Behaviour in which versions of cuBLASLt differ, for tests to change."""

    refused: set[str] = field(default_factory=set)  # epilogues that no algorithm supports
    drops_nan: bool = False  # whether relu turns NaN into 0


@dataclass
class Description:
    compute: int
    values: dict[str, int] = field(default_factory=dict)


settings = Settings()
handles: set[int] = set()
descriptions: dict[int, Description] = {}
layouts: dict[int, tuple[int, int, int, int]] = {}  # data type, rows, columns, leading dimension
preferences: dict[int, dict[str, int]] = {}


def create() -> int:
    number = card.new()
    handles.add(number)
    return number


def destroy(light_handle: int) -> None:
    handles.remove(light_handle)


def matmul_desc_create(compute_type: int, scale_type: int) -> int:
    number = card.new()
    descriptions[number] = Description(compute_type)
    return number


def matmul_desc_destroy(matmul_desc: int) -> None:
    descriptions.pop(matmul_desc)


def read(buf: int, size: int) -> int:
    return int.from_bytes(ctypes.string_at(buf, size), "little")


def matmul_desc_set_attribute(matmul_desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
    from nvmath.bindings import cublasLt as lt

    kind = np.dtype(lt.get_matmul_desc_attribute_dtype(attr))
    assert size_in_bytes == kind.itemsize, f"attribute {attr} has {kind.itemsize} bytes"
    name = lt.MatmulDescAttribute(attr).name
    descriptions[matmul_desc].values[name] = read(buf, size_in_bytes)


def matrix_layout_create(type: int, rows: int, cols: int, ld: int) -> int:
    number = card.new()
    layouts[number] = (type, rows, cols, ld)
    return number


def matrix_layout_destroy(mat_layout: int) -> None:
    layouts.pop(mat_layout)


def matmul_preference_create() -> int:
    number = card.new()
    preferences[number] = {}
    return number


def matmul_preference_destroy(pref: int) -> None:
    preferences.pop(pref)


def matmul_preference_set_attribute(pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
    from nvmath.bindings import cublasLt as lt

    kind = np.dtype(lt.get_matmul_preference_attribute_dtype(attr))
    assert size_in_bytes == kind.itemsize
    preferences[pref][lt.MatmulPreferenceAttribute(attr).name] = read(buf, size_in_bytes)


def epilogue(description: Description) -> str:
    from nvmath.bindings import cublasLt as lt

    return lt.Epilogue(description.values["EPILOGUE"]).name


def matmul_algo_get_heuristic(
    light_handle: int, operation_desc: int, adesc: int, bdesc: int, cdesc: int, ddesc: int,
    preference: int, requested_algo_count: int, heuristic_results_array: int,
    return_algo_count: int,
) -> None:  # fmt: skip
    from nvmath.bindings import cublasLt as lt

    assert light_handle in handles
    card.forbid_while_capturing("cuBLASLt is asked for an algorithm")
    limits = preferences[preference]
    unaligned = any(limits.get(f"MIN_ALIGNMENT_{side}_BYTES", 256) < ALIGNMENT for side in "ABCD")
    if epilogue(descriptions[operation_desc]) in settings.refused or unaligned:
        # its __init__ asks the library for the message
        raise lt.cuBLASLtError.__new__(lt.cuBLASLtError, NOT_SUPPORTED)
    ctypes.memset(heuristic_results_array, 0, lt.matmul_heuristic_result_dtype.itemsize)
    ctypes.c_int32.from_address(return_algo_count).value = 1


def signs(start: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """The bits of relu's signs, column by column, as bytes (columns, leading / 8)."""
    assert leading % 128 == 0, "the leading dimension of the signs is a multiple of 128"
    assert leading >= rows
    size = columns * leading // 8
    flat = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start))
    return flat.reshape(columns, leading // 8)


def matmul(
    light_handle: int, compute_desc: int, alpha: int, a: int, adesc: int, b: int, bdesc: int,
    beta: int, c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int,
    workspace_size_in_bytes: int, stream: int,
) -> None:  # fmt: skip
    assert light_handle in handles
    description = descriptions[compute_desc]
    values, compute = dict(description.values), description.compute
    assert (scalar(alpha, compute), scalar(beta, compute)) == (1, 0)
    assert c == d
    assert algo
    transa, transb = values["TRANSA"], values["TRANSB"]
    first, second, out = (
        Operand(start, *layouts[layout]) for start, layout in ((a, adesc), (b, bdesc), (d, ddesc))
    )
    m, n = out.shape
    kind, size = epilogue(description), DATA[layouts[ddesc][0]].itemsize
    reads, writes = [*first.ranges, *second.ranges], list(out.ranges)
    if workspace_size_in_bytes:
        writes.append((workspace, workspace + workspace_size_in_bytes))
    if "BIAS" in kind or "BGRAD" in kind:
        bias = values["BIAS_POINTER"]
        end = bias + m * size
        (writes if "BGRAD" in kind else reads).append((bias, end))
    if "AUX" in kind or kind == "DRELU":
        assert values["EPILOGUE_AUX_POINTER"] % 16 == 0
        leading = values["EPILOGUE_AUX_LD"]
        place = (values["EPILOGUE_AUX_POINTER"], m, n, leading)
        (reads if kind == "DRELU" else writes).append((place[0], place[0] + n * leading // 8))

    def work() -> None:
        x, y, z = (operand.at(0) for operand in (first, second, out))
        x, y = x.T if transa else x, y.T if transb else y
        result = multiplied(x, y, compute)
        if "BIAS" in kind:
            row = np.ctypeslib.as_array((ctypes.c_float * m).from_address(bias))
            result = result + row[:, None]
        if "AUX" in kind:
            bits = np.zeros((n, leading), bool)
            bits[:, :m] = (result > 0).T
            signs(*place)[...] = np.packbits(bits, axis=1, bitorder="little")
        if kind.startswith("RELU"):
            result = np.fmax(result, 0) if settings.drops_nan else np.maximum(result, 0)
        if kind == "DRELU":
            bits = np.unpackbits(signs(*place), axis=1, bitorder="little")[:, :m]
            result = result * bits.T
        if kind == "BGRADA":
            row = np.ctypeslib.as_array((ctypes.c_float * m).from_address(bias))
            row[...] = x.sum(axis=1)
        z[...] = result

    card.touch([*reads, *writes])
    name = f"product {m} x {n} x {second.shape[1] if transb else second.shape[0]}, {kind}"
    card.launches.append(Launch(name, 1, 0, stream, card.is_capturing(stream)))
    card.submit(stream, "kernel", name, work, reads, writes)


FUNCTIONS = (
    create, destroy, matmul_desc_create, matmul_desc_destroy, matmul_desc_set_attribute,
    matrix_layout_create, matrix_layout_destroy, matmul_preference_create,
    matmul_preference_destroy, matmul_preference_set_attribute, matmul_algo_get_heuristic, matmul,
)  # fmt: skip
