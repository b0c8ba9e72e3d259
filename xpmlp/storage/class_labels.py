"""Class labels as JSON, and back to the same array."""

import re
from typing import Any

import numpy as np

LIMIT = 16 * 2**20  # bytes of memory
# booleans, numbers, dates and spans in a unit; texts and bytes of a fixed width; others
WRITTEN = re.compile(r"[<>|]?(b1|[iu][1248]|f[248]|[mM]8(\[\d{0,9}[A-Za-z]{1,2}\])?|[US]\d{1,8}|O)")
STRINGS = re.compile(
    r"StringDType\(.{0,80}\)|\|T\d{1,3}"
)  # as different versions of NumPy write it


def listed(classes: np.ndarray) -> list[Any]:
    """Class labels as JSON has them: bytes as Latin-1 text, dates as their whole numbers.

    Raises ValueError for labels that JSON cannot hold, and for ones beyond LIMIT.
    """
    kind, known = classes.dtype.kind, dtype_of(classes.dtype.str, len(classes)) is not None
    if not known or (kind == "O" and not all(type(c) is int for c in classes)):
        raise ValueError(
            f"{len(classes)} class labels of dtype {classes.dtype} cannot be saved: take whole "
            "numbers, floats, dates or shorter texts"
        )
    if kind == "S":
        return [label.decode("latin-1") for label in classes.tolist()]
    found: list[Any] = (classes.astype(np.int64) if kind in "mM" else classes).tolist()
    return found


def unlisted(labels: list[Any], dtype: str) -> np.ndarray:
    """What `listed` was given; ValueError for anything else."""
    kind = dtype_of(dtype, len(labels))
    if kind is None or not all(isinstance(c, str | int | float) for c in labels):
        raise ValueError(f"it has class labels of dtype {dtype!r}")
    try:
        if kind.kind == "S":
            found = np.array([label.encode("latin-1") for label in labels], dtype=kind)
        elif kind.kind in "mM":
            found = np.array(labels, dtype=np.int64).view(kind)
        else:
            found = np.array(labels, dtype=kind)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its class labels are not of dtype {dtype!r} ({error})") from None
    if listed(found) != labels:  # a text cut off, a number rounded, NaN
        raise ValueError(f"its class labels are not of dtype {dtype!r}")
    return found


def dtype_of(written: str, count: int) -> np.dtype[Any] | None:
    """The dtype of `count` labels; None for one that labels cannot have, or that is too wide."""
    if STRINGS.fullmatch(written):
        return np.dtypes.StringDType()
    if not WRITTEN.fullmatch(written):
        return None
    try:
        found = np.dtype(written)
    except (TypeError, ValueError):  # a unit that NumPy does not know
        return None
    return found if count * found.itemsize <= LIMIT else None
