"""What users hand to an estimator, checked in scikit-learn's words and made plain."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import check_array, check_consistent_length, check_X_y, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from xpmlp.backends.namespace import is_array, to_host
from xpmlp.core.types import Array
from xpmlp.fit.checks import counted, numbers

PLAIN: dict[str, Any] = {"accept_sparse": "csr", "dtype": [np.float64, np.float32]}


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


def read_rows(est: Any, X: Any, *, reset: bool = False) -> Any:
    """X (N, n_features) as NumPy's or SciPy's CSR array of floats, or where it lies on a device.

    reset: whether the estimator learns the features' names and number from it, or compares.
    """
    if on_device(X):
        rows = numbers(X, "X", (2,))
        validate_data(est, X, skip_check_array=True, reset=reset)
        return rows
    return validate_data(est, given(X, "X"), reset=reset, **PLAIN)


def read_both(est: Any, X: Any, y: Any, *, reset: bool, suffix: str = "") -> tuple[Any, np.ndarray]:
    """X as `read_rows` gives it, and y (N,) or (N, n_outputs) on the host."""
    name, y = "X" + suffix, host(y)
    if y is not None or suffix:  # scikit-learn has words of its own for y=None
        given(y, "y" + suffix)
    numeric = {"multi_output": True, "y_numeric": is_regressor(est)}
    if not (on_device(X) or suffix):
        x, y = validate_data(est, given(X, name), y, reset=reset, **numeric, **PLAIN)
    else:
        if on_device(X):
            x = numbers(X, name, (2,))
        else:
            x = check_array(given(X, name), input_name=name, estimator=est, **PLAIN)
        validate_data(est, X, skip_check_array=True, reset=reset)
        check_consistent_length(x, y)
        _, y = check_X_y(np.zeros((x.shape[0], 1)), y, estimator=est, **numeric)
    y = y.toarray() if hasattr(y, "toarray") else y
    return x, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def host(value: Any) -> Any:
    """`value` on the host, where it is an array; anything else as it is."""
    value = incoming(value)
    return to_host(value) if on_device(value) else value


def read_weight(value: Any, count: int, name: str = "sample_weight") -> np.ndarray | None:
    """Sample weights (N,) float64 of at least 0, or None where none are given."""
    if value is None:
        return None
    weight: np.ndarray = _check_sample_weight(
        given(host(value), name),
        np.zeros((count, 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weight.any():
        raise ValueError(f"{name} must not be all zero")
    return weight


def per_batch(xp: Any, weight: Array, real: int) -> tuple[Array, Array]:
    """scikit-learn's row weights: normalised within each batch, which shares out alpha too.

    A batch whose rows all weigh 0 teaches nothing.
    """
    total = xp.sum(weight, axis=-1, keepdims=True)
    total = xp.where(total > 0, total, xp.full_like(total, float("inf")))
    return weight / total, 1 / total


def per_row(mean: float) -> Callable[..., Any]:
    """Row weights that are the same in every batch, so that the gradient is unbiased.

    mean: of the weights of all rows. Alpha is shared out likewise.
    """

    def weigh(xp: Any, weight: Array, real: int) -> tuple[Array, float]:
        return weight / (mean * real), 1 / (mean * real)

    return weigh
