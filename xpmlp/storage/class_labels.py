"""Class labels as JSON, and back to the same array."""

import re
from typing import Any

import numpy as np

MAX_BYTES = 16 * 2**20  # of memory
# booleans, numbers, dates and durations with a unit; strings and bytes of a fixed width; objects
DTYPE = re.compile(r"[<>|]?(b1|[iu][1248]|f[248]|[mM]8(\[\d{0,9}[A-Za-z]{1,2}\])?|[US]\d{1,8}|O)")
STRING_DTYPE = re.compile(
    r"StringDType\(.{0,80}\)|\|T\d{1,3}"
)  # as different versions of NumPy write it


def labels_to_json(classes: np.ndarray) -> list[Any]:
    """Class labels as a JSON list: bytes as Latin-1 strings, dates as integers.

    Raises ValueError for labels that JSON cannot hold, and above MAX_BYTES.
    """
    kind, known = classes.dtype.kind, parse_dtype(classes.dtype.str, len(classes)) is not None
    if not known or (kind == "O" and not all(type(c) is int for c in classes)):
        raise ValueError(
            f"{len(classes)} class labels of dtype {classes.dtype} cannot be saved: use integers, "
            "floats, dates or shorter strings"
        )
    if kind == "S":
        return [label.decode("latin-1") for label in classes.tolist()]
    labels: list[Any] = (classes.astype(np.int64) if kind in "mM" else classes).tolist()
    return labels


def labels_from_json(labels: list[Any], dtype: str) -> np.ndarray:
    """The inverse of `labels_to_json`; ValueError for anything that it does not write."""
    kind = parse_dtype(dtype, len(labels))
    if kind is None or not all(isinstance(c, str | int | float) for c in labels):
        raise ValueError(f"it has class labels of dtype {dtype!r}")
    try:
        if kind.kind == "S":
            classes = np.array([label.encode("latin-1") for label in labels], dtype=kind)
        elif kind.kind in "mM":
            classes = np.array(labels, dtype=np.int64).view(kind)
        else:
            classes = np.array(labels, dtype=kind)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its class labels are not of dtype {dtype!r} ({error})") from None
    if labels_to_json(classes) != labels:  # a truncated string, a rounded number, NaN
        raise ValueError(f"its class labels are not of dtype {dtype!r}")
    return classes


def parse_dtype(text: str, count: int) -> np.dtype[Any] | None:
    """The dtype of `count` labels; None if labels cannot have it, or above MAX_BYTES."""
    if STRING_DTYPE.fullmatch(text):
        return np.dtypes.StringDType()
    if not DTYPE.fullmatch(text):
        return None
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError):  # a unit that NumPy does not have
        return None
    return dtype if count * dtype.itemsize <= MAX_BYTES else None
