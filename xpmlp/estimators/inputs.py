"""Validation of the inputs of an estimator, with scikit-learn's messages."""

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

TRAINING_DTYPES = [np.float64, np.float32]  # any other becomes the first

SMALLEST_WEIGHT = 1e-30  # of the largest sample weights


def convert_input(X: Any) -> Any:
    """X as an array of a known namespace, if it can be converted.

    A cuDF frame becomes a CuPy array of its columns, CuPy's sparse matrix SciPy's, and an object
    with DLPack alone a NumPy or CuPy array.
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
def name_errors(name: str, value: Any) -> Iterator[None]:
    """Add the name of `value`, the first bad element and the number of them to errors."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = str(error)
        if match := re.match(".*contains (NaN|infinity)", message):
            message = f"{match[0]}: {describe_non_finite(value, name)}"
        elif "Complex" in message or "inconsistent" in message:
            subject = "X and y" if "inconsistent" in message else name
            message = f"{subject}: " + message.partition("\n")[0]
        elif not re.search(rf"\b{name}\b", message):
            message = f"{name}: {message}"
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from None


def describe_non_finite(value: Any, name: str) -> str:
    """A message with the first number that is not finite and how many there are."""
    try:
        if is_sparse(value):
            check_sparse_finite(value, name)
        else:
            check_finite(host_numbers(value, name), name)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{name} is finite")


def check_sparse_finite(value: Any, name: str) -> None:
    """ValueError naming the first NaN or infinity of a sparse array, and how many there are."""
    cells = value.tocsr().tocoo()
    bad = ~np.isfinite(cells.data)
    if bad.any():
        row, column, first = (part[bad][0] for part in (cells.row, cells.col, cells.data))
        raise not_finite_error(name, int(bad.sum()), float(first), f"row {row}, column {column}")


def to_real_numbers(value: Any, name: str) -> Any:
    """`value` with objects as real numbers; ValueError for what scikit-learn would convert to
    numbers: dates, durations, strings of digits, None and masked elements."""
    if value is None:
        raise ValueError(f"{name} must be given; got None")
    if is_sparse(value) or is_numeric_frame(value):
        return value
    try:
        numbers = host_numbers(value, name)
    except ValueError as error:
        prefix = "Complex data not supported: " if "complex" in str(error) else ""
        raise type(error)(f"{prefix}{error}") from None
    return value if is_frame(value) else numbers


def is_frame(value: Any) -> bool:
    return not isinstance(value, np.ndarray) and nw.dependencies.is_into_dataframe(value)


def is_finite_matrix(X: Any) -> bool:
    """Whether X is a NumPy matrix of finite floats, which needs no further validation."""
    if type(X) is not np.ndarray or X.dtype not in TRAINING_DTYPES:
        return False
    return X.ndim == 2 and 0 not in X.shape and all_finite(np, X)


def is_numeric_frame(value: Any) -> bool:
    """Whether `value` is a frame of numeric columns alone."""
    if not is_frame(value):
        return False
    dtypes = nw.from_native(value).schema.dtypes()
    return all(dtype.is_numeric() or dtype == nw.Boolean for dtype in dtypes)


def allowed_dtypes(X: Any) -> Any:
    """The dtypes that X may have in training: float32 alone for a frame of float32 columns."""
    if is_frame(X):
        dtypes = nw.from_native(X).schema.dtypes()
        if dtypes and all(dtype == nw.Float32 for dtype in dtypes):
            return np.float32
    return TRAINING_DTYPES


def read_rows(est: Any, X: Any) -> Any:
    """X (N, n_features) to predict: real numbers on the host, or an array on its own device."""
    if on_device(X):
        rows = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=False)
        return rows
    if is_finite_matrix(X):  # scikit-learn's checks take as long as a prediction of a few rows
        return validate_data(est, X, skip_check_array=True, reset=False)
    dtypes = allowed_dtypes(X)
    dtype = "numeric" if dtypes is TRAINING_DTYPES else dtypes
    X = to_real_numbers(X, "X")
    with name_errors("X", X):
        return validate_data(est, X, reset=False, accept_sparse="csr", dtype=dtype)


def read_rows_and_targets(est: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
    """X (N, n_features) to train on, floats as a NumPy or SciPy CSR array or on their own device,
    and y (N,) or (N, n_outputs) on the host.

    reset: whether the estimator learns the features' names and number from X, or compares them.
    """
    if on_device(X):
        x = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=reset)
    else:
        dtypes, X = allowed_dtypes(X), to_real_numbers(X, "X")
        with name_errors("X", X):
            x = validate_data(est, X, reset=reset, accept_sparse="csr", dtype=dtypes)
    return x, read_targets(est, y, x.shape[0])


def read_targets(est: Any, y: Any, count: int) -> Any:
    """y (N,) or (N, n_outputs) on the host: numbers, or labels of any kind."""
    y = to_host_array(y)
    if y is not None:  # scikit-learn has its own message for y=None
        y = to_real_numbers(y, "y") if is_regressor(est) else read_labels(y, "y")
    options = {"multi_output": True, "y_numeric": is_regressor(est)}
    with name_errors("y", y):
        _, y = check_X_y(np.zeros((count, 1)), y, estimator=est, **options)
        return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def read_labels(y: Any, name: str) -> Any:
    """One label per row, none missing, with objects other than strings converted; several labels
    per row unchanged."""
    y = remove_mask(y, name)
    if is_sparse(y):
        return y
    with name_errors(name, y):
        array = np.asarray(y, dtype=list_dtype(y))
    if array.ndim != 1:
        return y
    labels = plain_labels(array, name)
    return labels if labels.dtype.kind not in "OUT" or array.dtype.kind != "O" else y


@contextmanager
def name_errors_val() -> Iterator[None]:
    """Errors about X, y and sample_weight name X_val, y_val and sample_weight_val instead."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = re.sub(r"\b(X|y|sample_weight)\b", r"\1_val", str(error))
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(message if "_val" in message else f"X_val and y_val: {message}") from error


def to_host_array(value: Any) -> Any:
    """`value` on the host if it is an array; anything else unchanged."""
    value = convert_input(value)
    return to_host(value) if on_device(value) else value


def read_weight(value: Any, count: int, name: str = "sample_weight") -> np.ndarray | None:
    """Sample weights (N,) float64 of at least 0, or None."""
    if value is None:
        return None
    value = to_host_array(value)
    value = value if isinstance(value, Number) else to_real_numbers(value, name)
    with name_errors(name, value):
        weight: np.ndarray = _check_sample_weight(value, np.zeros((count, 1)), dtype=np.float64)
    if weight.min() < 0:
        row = int(weight.argmin())
        raise ValueError(
            f"Negative values in data passed to `{name}`: row {row} has {weight[row]:g}"
        )
    if not weight.any():
        raise ValueError(f"{name} must not be all zero")
    check_weight_range(weight, name)
    return weight


def check_weight_range(weight: np.ndarray, name: str) -> None:
    """ValueError where a weighted loss, or its sum over rows, would be beyond float32."""
    if not SMALLEST_WEIGHT <= weight.max() <= 1 / SMALLEST_WEIGHT:
        raise ValueError(
            f"{name} must have its largest in [{SMALLEST_WEIGHT:g}, {1 / SMALLEST_WEIGHT:g}]; "
            f"it is {weight.max():g}: divide them all by their mean"
        )
