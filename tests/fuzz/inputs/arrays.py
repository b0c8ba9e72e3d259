"""Good arguments, and ways to spoil them. Arguments are named as in `xpmlp.train`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from fuzz.inputs.case import Case, Refused

N = 12
X = (np.arange(3.0 * N).reshape(N, 3) * 7 % 11 - 5) / 4
Y = np.sin(X).sum(axis=1).round(6)
LABELS = np.arange(N) % 2
ONES = np.ones(N)
WHOLE = (X * 4).astype(np.int64)
BOTH, PREDICT = ("fit", "predict"), ("predict",)
AT = "row 2, column 1"


def insert(value: Any, dtype: Any = float, plain: np.ndarray = X) -> np.ndarray:
    """The plain array with a value in row 2 (and column 1)."""
    array = plain.astype(dtype)
    array[(2, 1)[: plain.ndim]] = value
    return array


def insert_two(first: float, second: float) -> np.ndarray:
    """X with two bad values, the first in row 2, column 1."""
    array = insert(first)
    array[5, 0] = second
    return array


def objects(value: Any, plain: np.ndarray = X) -> np.ndarray:
    return insert(value, object, plain)


def masked(plain: np.ndarray) -> np.ma.MaskedArray:
    array = np.ma.masked_array(plain.copy(), mask=np.zeros(plain.shape, dtype=bool))
    array[(2, 1)[: plain.ndim]] = np.ma.masked
    return array


def of(package: str, name: str) -> Any:
    """A function of an optional package."""
    return getattr(import_module(package), name)


def pandas(values: Any) -> Any:
    return of("pandas", "DataFrame")(values, columns=["a", "b", "c"])


def polars(values: Any) -> Any:
    return of("polars", "DataFrame")(values, schema=["a", "b", "c"], orient="row")


def strict(values: Any, device: str = "CPU_DEVICE") -> Any:
    xp = import_module("array_api_strict")
    return xp.asarray(np.array(values), device=xp.Device(device))


def tensor(values: Any) -> Any:
    return of("torch", "asarray")(np.array(values))


def with_mask(values: np.ndarray) -> Any:
    """A frame of a nullable dtype with a missing cell."""
    return pandas(insert(np.nan, plain=values)).astype("Float64")


def refused(
    row: str, argument: str, inputs: dict[str, tuple[Callable[[], Any], str]], **options: Any
) -> list[Case]:
    """Cases of an argument that must be refused: how to make it, and the pattern of the message."""
    return [
        Case(
            f"{argument}: {kind}",
            row,
            lambda make=make: {argument: make()},  # type: ignore[misc]
            lambda says=says: Refused(argument, says),  # type: ignore[misc]
            **options,
        )
        for kind, (make, says) in inputs.items()
    ]
