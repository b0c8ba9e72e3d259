"""What users hand to an estimator, checked in scikit-learn's words and made plain."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import check_consistent_length, check_X_y, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from xpmlp.backends.namespace import is_array, to_host
from xpmlp.fit.checks import counted, numbers

TRAINED = [np.float64, np.float32]  # what a network is trained in; anything else becomes the first


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


def given(value: Any, name: str) -> Any:
    """`value`; ValueError for None, and for a masked array whose mask would be overlooked."""
    if value is None:
        raise ValueError(f"{name} must be given; got None")
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        count = int(np.ma.getmaskarray(value).sum())
        raise ValueError(f"{name} has {counted(count, 'masked value')}: fill or drop them")
    return value


def on_device(X: Any) -> bool:
    """Whether X is an array of a namespace other than NumPy's."""
    return is_array(X) and not isinstance(X, np.ndarray | np.generic)


def float_types(X: Any) -> Any:
    """The dtypes that X may have in training: a frame of float32 columns stays one."""
    if nw.dependencies.is_into_dataframe(X):
        types = nw.from_native(X).schema.dtypes()
        return np.float32 if types and all(one == nw.Float32 for one in types) else TRAINED
    return TRAINED


def read_rows(est: Any, X: Any) -> Any:
    """X (N, n_features) to predict: on the host as real numbers, or where it lies on a device."""
    if on_device(X):
        rows = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=False)
        return rows
    types = float_types(X)
    wanted = "numeric" if types is TRAINED else types
    return validate_data(est, given(X, "X"), reset=False, accept_sparse="csr", dtype=wanted)


def read_both(est: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
    """X (N, n_features) to train on, NumPy's or SciPy's CSR array of floats or where it lies on a
    device, and y (N,) or (N, n_outputs) on the host.

    reset: whether the estimator learns the features' names and number from X, or compares.
    """
    y = host(y)
    if y is not None:  # scikit-learn has words of its own for y=None
        given(y, "y")
    asked = {"multi_output": True, "y_numeric": is_regressor(est)}
    if on_device(X):
        x = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=reset)
        check_consistent_length(x, y)
        _, y = check_X_y(np.zeros((x.shape[0], 1)), y, estimator=est, **asked)
    else:
        types = float_types(X)
        x, y = validate_data(
            est, given(X, "X"), y, reset=reset, accept_sparse="csr", dtype=types, **asked
        )
    return x, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


@contextmanager
def named_val() -> Iterator[None]:
    """Errors about X, y and sample_weight name X_val, y_val and sample_weight_val."""
    try:
        yield
    except ValueError as error:
        told = re.sub(r"\b(X|y|sample_weight)\b", r"\1_val", str(error))
        told = told.replace("Sample weights", "sample_weight_val")
        raise ValueError(told if "_val" in told else f"X_val and y_val: {told}") from error


def host(value: Any) -> Any:
    """`value` on the host, where it is an array; anything else as it is."""
    value = incoming(value)
    return to_host(value) if on_device(value) else value


def read_weight(value: Any, count: int) -> np.ndarray | None:
    """Sample weights (N,) float64 of at least 0, or None where none are given."""
    if value is None:
        return None
    weight: np.ndarray = _check_sample_weight(
        given(host(value), "sample_weight"),
        np.zeros((count, 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weight.any():
        raise ValueError("sample_weight must not be all zero")
    return weight
