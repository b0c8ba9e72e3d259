"""What users hand to an estimator, checked in scikit-learn's words and made plain."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import check_X_y, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from xpmlp.devices.namespace import is_array, to_host
from xpmlp.training.checks import (
    all_finite,
    check_finite,
    host_numbers,
    not_finite_error,
    numbers,
    remove_mask,
)
from xpmlp.training.labels import list_dtype, plain_labels

TRAINED = [np.float64, np.float32]  # what a network is trained in; anything else becomes the first

SMALLEST = 1e-30  # of the largest sample weights


def incoming(X: Any) -> Any:
    """X as something with a namespace, where it has none of its own but could.

    A cuDF frame becomes the CuPy array of its columns, CuPy's sparse matrix SciPy's, and what
    only speaks DLPack NumPy's or CuPy's array.
    """
    package = type(X).__module__.partition(".")[0]
    if package == "cudf":
        return X.to_cupy()
    if package == "cupyx":
        return X.get()
    if hasattr(X, "__dlpack__") and not hasattr(X, "__array__") and not is_array(X):
        from importlib import import_module

        on_cpu = X.__dlpack_device__()[0] == 1
        return import_module("numpy" if on_cpu else "cupy").from_dlpack(X)
    return X


def on_device(X: Any) -> bool:
    """Whether X is an array of a namespace other than NumPy's."""
    return is_array(X) and not isinstance(X, np.ndarray | np.generic)


def is_sparse(value: Any) -> bool:
    return hasattr(value, "toarray") and hasattr(value, "nnz")


@contextmanager
def named(name: str, value: Any) -> Iterator[None]:
    """scikit-learn's errors about `value` with its name, the first bad place and the count."""
    try:
        yield
    except (ValueError, TypeError) as error:
        said = str(error)
        if known := re.match(".*contains (NaN|infinity)", said):
            said = f"{known[0]}: {first_gap(value, name)}"
        elif "Complex" in said or "inconsistent" in said:
            said = f"{'X and y' if 'inconsistent' in said else name}: " + said.partition("\n")[0]
        elif not re.search(rf"\b{name}\b", said):
            said = f"{name}: {said}"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(said) from None


def first_gap(value: Any, name: str) -> str:
    """Where the first number is that is not finite, and how many there are."""
    try:
        if is_sparse(value):
            check_sparse(value, name)
        else:
            check_finite(host_numbers(value, name), name)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{name} is finite")


def check_sparse(value: Any, name: str) -> None:
    """ValueError naming the first NaN or infinity of a sparse array, and how many there are."""
    cells = value.tocsr().tocoo()
    bad = ~np.isfinite(cells.data)
    if bad.any():
        row, column, first = (part[bad][0] for part in (cells.row, cells.col, cells.data))
        raise not_finite_error(name, int(bad.sum()), float(first), f"row {row}, column {column}")


def real(value: Any, name: str) -> Any:
    """`value` with real numbers for objects; ValueError for what scikit-learn would take for
    numbers: dates, durations, texts of digits, None and what a mask hides."""
    if value is None:
        raise ValueError(f"{name} must be given; got None")
    if is_sparse(value) or has_numbers(value):
        return value
    try:
        found = host_numbers(value, name)
    except ValueError as error:
        known = "Complex data not supported: " if "complex" in str(error) else ""
        raise type(error)(f"{known}{error}") from None
    return value if is_frame(value) else found


def is_frame(value: Any) -> bool:
    return not isinstance(value, np.ndarray) and nw.dependencies.is_into_dataframe(value)


def is_plain(X: Any) -> bool:
    """Whether X is a matrix of finite floats, in which no check could find anything."""
    matrix = type(X) is np.ndarray and X.dtype in TRAINED and X.ndim == 2 and 0 not in X.shape
    return matrix and all_finite(np, X)


def has_numbers(value: Any) -> bool:
    """Whether `value` is a frame whose every column has a numeric dtype."""
    if not is_frame(value):
        return False
    types = nw.from_native(value).schema.dtypes()
    return all(one.is_numeric() or one == nw.Boolean for one in types)


def float_types(X: Any) -> Any:
    """The dtypes that X may have in training: a frame of float32 columns stays one."""
    if is_frame(X):
        types = nw.from_native(X).schema.dtypes()
        return np.float32 if types and all(one == nw.Float32 for one in types) else TRAINED
    return TRAINED


def read_rows(est: Any, X: Any) -> Any:
    """X (N, n_features) to predict: on the host as real numbers, or where it lies on a device."""
    if on_device(X):
        rows = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=False)
        return rows
    if is_plain(X):  # scikit-learn's checks take as long as a prediction of a few rows
        return validate_data(est, X, skip_check_array=True, reset=False)
    types = float_types(X)
    wanted = "numeric" if types is TRAINED else types
    X = real(X, "X")
    with named("X", X):
        return validate_data(est, X, reset=False, accept_sparse="csr", dtype=wanted)


def read_both(est: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
    """X (N, n_features) to train on, NumPy's or SciPy's CSR array of floats or where it lies on a
    device, and y (N,) or (N, n_outputs) on the host.

    reset: whether the estimator learns the features' names and number from X, or compares.
    """
    if on_device(X):
        x = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=reset)
    else:
        types, X = float_types(X), real(X, "X")
        with named("X", X):
            x = validate_data(est, X, reset=reset, accept_sparse="csr", dtype=types)
    return x, read_targets(est, y, x.shape[0])


def read_targets(est: Any, y: Any, count: int) -> Any:
    """y (N,) or (N, n_outputs) on the host: numbers, or labels of any kind."""
    y = host(y)
    if y is not None:  # scikit-learn has words of its own for y=None
        y = real(y, "y") if is_regressor(est) else read_labels(y, "y")
    asked = {"multi_output": True, "y_numeric": is_regressor(est)}
    with named("y", y):
        _, y = check_X_y(np.zeros((count, 1)), y, estimator=est, **asked)
        return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def read_labels(y: Any, name: str) -> Any:
    """One label per row without a missing one, objects that are no texts as what they are;
    several labels per row as they come."""
    y = remove_mask(y, name)
    if is_sparse(y):
        return y
    with named(name, y):
        array = np.asarray(y, dtype=list_dtype(y))
    if array.ndim != 1:
        return y
    found = plain_labels(array, name)
    return found if found.dtype.kind not in "OUT" or array.dtype.kind != "O" else y


@contextmanager
def named_val() -> Iterator[None]:
    """Errors about X, y and sample_weight name X_val, y_val and sample_weight_val."""
    try:
        yield
    except (ValueError, TypeError) as error:
        told = re.sub(r"\b(X|y|sample_weight)\b", r"\1_val", str(error))
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(told if "_val" in told else f"X_val and y_val: {told}") from error


def host(value: Any) -> Any:
    """`value` on the host, where it is an array; anything else as it is."""
    value = incoming(value)
    return to_host(value) if on_device(value) else value


def read_weight(value: Any, count: int, name: str = "sample_weight") -> np.ndarray | None:
    """Sample weights (N,) float64 of at least 0, or None where none are given."""
    if value is None:
        return None
    value = host(value)
    value = value if isinstance(value, Number) else real(value, name)
    with named(name, value):
        weight: np.ndarray = _check_sample_weight(value, np.zeros((count, 1)), dtype=np.float64)
    if weight.min() < 0:
        row = int(weight.argmin())
        raise ValueError(
            f"Negative values in data passed to `{name}`: row {row} has {weight[row]:g}"
        )
    if not weight.any():
        raise ValueError(f"{name} must not be all zero")
    check_sizes(weight, name)
    return weight


def check_sizes(weight: np.ndarray, name: str) -> None:
    """ValueError where a loss that is weighed so, or a sum over rows, would leave float32."""
    if not SMALLEST <= weight.max() <= 1 / SMALLEST:
        raise ValueError(
            f"{name} must have its largest in [{SMALLEST:g}, {1 / SMALLEST:g}]; it is "
            f"{weight.max():g}: divide them all by their mean"
        )
