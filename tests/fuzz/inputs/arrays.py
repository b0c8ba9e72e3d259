"""Good arguments, and what spoils them. Arguments have the names that `xpmlp.train` gives them."""

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


def spoilt(value: Any, dtype: Any = float, plain: np.ndarray = X) -> np.ndarray:
    """The plain array with a value in row 2 (and column 1)."""
    array = plain.astype(dtype)
    array[(2, 1)[: plain.ndim]] = value
    return array


def twice(first: float, second: float) -> np.ndarray:
    """X with two values that are none, of which the first stands in row 2, column 1."""
    array = spoilt(first)
    array[5, 0] = second
    return array


def objects(value: Any, plain: np.ndarray = X) -> np.ndarray:
    return spoilt(value, object, plain)


def masked(plain: np.ndarray) -> np.ma.MaskedArray:
    array = np.ma.masked_array(plain.copy(), mask=np.zeros(plain.shape, dtype=bool))
    array[(2, 1)[: plain.ndim]] = np.ma.masked
    return array


def of(package: str, name: str) -> Any:
    """A function of a package that not everyone has."""
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
    return pandas(spoilt(np.nan, plain=values)).astype("Float64")


def refused(
    row: str, argument: str, made: dict[str, tuple[Callable[[], Any], str]], **more: Any
) -> list[Case]:
    """Cases of an argument that must be refused: what is given, and what the error says."""
    return [
        Case(
            f"{argument}: {kind}",
            row,
            lambda make=make: {argument: make()},  # type: ignore[misc]
            lambda says=says: Refused(argument, says),  # type: ignore[misc]
            **more,
        )
        for kind, (make, says) in made.items()
    ]
