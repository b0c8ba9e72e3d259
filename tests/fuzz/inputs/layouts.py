"""Any order, stride, byte order and width of real numbers, which must be read correctly."""

import decimal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.inputs.arrays import BOTH, LABELS, WHOLE, N, X, Y, of, pandas, polars, strict, tensor
from fuzz.inputs.case import Case, Same


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.ones([2 * n for n in array.shape], dtype=array.dtype)
    every = (slice(None, None, 2),) * array.ndim
    wide[every] = array
    return wide[every]


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, one byte off alignment."""
    memory = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


def mapped(array: np.ndarray) -> np.ndarray:
    """The array in a memory-mapped file that is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "array.npy", array)
        return np.load(Path(folder) / "array.npy", mmap_mode="r")


def decimals(array: np.ndarray) -> np.ndarray:
    return np.array([[decimal.Decimal(str(item)) for item in row] for row in array], dtype=object)


LAYOUTS: dict[str, tuple[Callable[[], Any], np.ndarray]] = {  # the argument, and its plain copy
    "Fortran order": (lambda: np.asfortranarray(X), X),
    "strided": (lambda: strided(X), X),
    "reversed": (lambda: X[::-1, ::-1].copy()[::-1, ::-1], X),
    "a transposed array": (lambda: X.T.copy().T, X),
    "unaligned": (lambda: unaligned(X), X),
    "read-only": (lambda: read_only(X), X),
    "memory-mapped": (lambda: mapped(X), X),
    "big-endian": (lambda: X.astype(">f8"), X),
    "big-endian float32": (lambda: X.astype(">f4"), X.astype("f4")),
    "big-endian integers": (lambda: WHOLE.astype(">i4"), WHOLE.astype("f8")),
    "int64": (lambda: WHOLE, WHOLE.astype("f8")),
    "int8": (lambda: WHOLE.astype("i1"), WHOLE.astype("f8")),
    "uint64": (lambda: abs(WHOLE).astype("u8"), abs(WHOLE).astype("f8")),
    "bool": (lambda: X > 0, (X > 0).astype("f8")),
    "float16": (lambda: np.asfortranarray(X.astype("f2")), X.astype("f2")),
    "long double": (lambda: X.astype(np.longdouble), X),
    "numeric objects": (lambda: X.astype(object), X),
    "decimals": (lambda: decimals(X), X),
    "lists": (X.tolist, X),
    "tuples": (lambda: tuple(map(tuple, X)), X),
    "a list of arrays": (lambda: list(X), X),
    "a mask without a true": (lambda: np.ma.masked_array(X, np.zeros(X.shape, bool)), X),
    "a subclass": (lambda: X.view(type("Own", (np.ndarray,), {})), X),
    "a memoryview": (lambda: memoryview(X), X),
    "a frame": (lambda: pandas(X), X),
    "a frame of mixed widths": (lambda: pandas(WHOLE).astype({"a": "i2", "b": "f4"}), WHOLE * 1.0),
    "a nullable frame": (lambda: pandas(X).astype("Float64"), X),
    "a nullable frame of integers": (lambda: pandas(WHOLE).astype("Int32"), WHOLE * 1.0),
    "a nullable frame of booleans": (lambda: pandas(X > 0).astype("boolean"), (X > 0) * 1.0),
    "a Polars frame": (lambda: polars(X), X),
    "subnormal numbers": (lambda: np.asfortranarray(X * 5e-324 * 64), X * 5e-324 * 64),
    "a strict array": (lambda: strict(X), X),
}
LAYOUTS_OF_Y: dict[str, tuple[Callable[[], Any], np.ndarray]] = {
    "strided": (lambda: strided(Y), Y),
    "reversed": (lambda: Y[::-1].copy()[::-1], Y),
    "read-only": (lambda: read_only(Y), Y),
    "memory-mapped": (lambda: mapped(Y), Y),
    "big-endian": (lambda: Y.astype(">f8"), Y),
    "numeric objects": (lambda: Y.astype(object), Y),
    "a list": (Y.tolist, Y),
    "int8": (lambda: WHOLE[:, 0].astype("i1"), WHOLE[:, 0] * 1.0),
    "bool": (lambda: Y > 0, (Y > 0) * 1.0),
    "a nullable series": (lambda: of("pandas", "Series")(Y).astype("Float64"), Y),
    "a tensor": (lambda: tensor(Y), Y),
}


def accepted(argument: str, inputs: dict[str, tuple[Callable[[], Any], np.ndarray]], **more: Any):
    return [
        Case(
            f"{argument}: {kind}",
            "layouts",
            lambda make=make: {argument: make()},  # type: ignore[misc]
            lambda plain=plain: Same({argument: plain}),  # type: ignore[misc]
            **more,
        )
        for kind, (make, plain) in inputs.items()
    ]


CASES = [
    *accepted("X", LAYOUTS, calls=BOTH),
    *accepted("y", LAYOUTS_OF_Y),
    *accepted(
        "sample_weight",
        {
            "integers": (lambda: np.arange(N), np.arange(1.0 * N)),
            "big-endian": (lambda: np.arange(N).astype(">f4"), np.arange(1.0 * N)),
            "strided": (lambda: strided(np.arange(1.0 * N)), np.arange(1.0 * N)),
        },
    ),
    *accepted(
        "y",
        {
            "labels big-endian": (lambda: LABELS.astype(">i2"), LABELS),
            "labels strided": (lambda: strided(LABELS), LABELS),
            "labels as a list": (LABELS.tolist, LABELS),
            "labels as objects": (lambda: LABELS.astype(object), LABELS),
            "labels in a nullable series": (
                lambda: of("pandas", "Series")(LABELS).astype("Int64"),
                LABELS,
            ),
        },
        task="labels",
    ),
]
