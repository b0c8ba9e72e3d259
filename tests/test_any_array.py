"""Arrays of any shape, dtype, layout and scale: a named error, or the bits of a plain copy."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip("sklearn")

from fuzz.inputs.case import ERRORS, names
from fuzz.inputs.layouts import read_only, strided, unaligned

from xpmlp import MLPClassifier, MLPRegressor, train

NAMED = ("X", "y", "learning_rate", "learning rate")
REAL = ("f2", "f4", "f8", ">f2", ">f4", ">f8", "g", "i1", "i4", ">i8", "u1", ">u2", "u8", "?", "O")
NOT_REAL = ("c8", ">c16", "M8[s]", "m8[D]", "S3", "U3")
SCALES = (5e-324, 1e-310, 1e-40, 1e-30, 1e-5, 1.0, 1e4, 1e30, 1e38, 1e300)
LAYOUTS = {
    "C order": lambda array: array,
    "Fortran order": np.asfortranarray,
    "strided": lambda array: array if array.dtype.kind in "OMmSU" else strided(array),
    "reversed": lambda array: array[::-1].copy()[::-1],
    "transposed": lambda array: array.T.copy().T,
    "unaligned": lambda array: array if array.dtype.hasobject else unaligned(array),
    "read-only": read_only,
    "every second row": lambda array: np.repeat(array, 2, axis=0)[::2],
}


def random_array(shape, dtype, scale, seed, special):
    """Random values of that shape and dtype, one of them `special` (NaN or infinity) if given."""
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        values = np.asarray(rng.normal(size=shape) * scale)
        if np.dtype(dtype).kind in "iu?":
            values = np.asarray(rng.integers(0, 100, size=shape))
        if special is not None and values.size and values.dtype.kind == "f":
            values.flat[values.size // 2] = special
        return np.asarray(values, dtype=dtype)


@st.composite
def arrays(draw, shapes):
    """An array, and its plain copy: C-contiguous, in native byte order."""
    dtype = draw(st.sampled_from((*REAL, *REAL, *NOT_REAL)))
    special = draw(st.sampled_from((None, None, None, np.nan, np.inf)))
    scale, seed = draw(st.sampled_from(SCALES)), draw(st.integers(0, 9))
    array = random_array(draw(shapes), dtype, scale, seed, special)
    layout = draw(st.sampled_from(sorted(LAYOUTS))) if array.ndim else "C order"
    plain = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return LAYOUTS[layout](array), plain


SHAPES = st.one_of(
    st.tuples(st.just(6), st.integers(1, 3)),
    st.tuples(st.just(6), st.integers(1, 3)),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)
SHAPES_OF_Y = st.one_of(st.just((6,)), st.just((6,)), st.just((6, 1)), SHAPES)


def core(X, y):
    width = X.shape[1] if X.ndim == 2 and X.shape[1] else 1
    model = train(f"{width}-3-1", X, y, epochs=2, batch_size=4)
    return [model.flat, model.predict(X)]


def estimator(kind, X, y):
    est = kind(hidden_layer_sizes=(3,), max_iter=2, batch_size=4, random_state=0).fit(X, y)
    return [*est.coefs_, *est.intercepts_, est.predict(X), np.asarray(est.score(X, y))]


CALLS = {
    "train": core,
    "MLPRegressor": lambda X, y: estimator(MLPRegressor, X, y),
    "MLPClassifier": lambda X, y: estimator(MLPClassifier, X, y),
}


def outcome(call, X, y):
    """The error's type (its message may name the dtype), or the bits of a finite result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about few rows, few epochs and clipped batches
            parts = call(X, y)
    except ERRORS as error:
        return type(error).__name__ if names(str(error), NAMED) else f"nothing named: {error!r}"
    assert all(part.dtype.kind not in "f" or np.isfinite(part).all() for part in parts)
    return [(part.dtype.str, part.shape, part.tobytes()) for part in parts]


def check_equal_to_plain_copy(call, X, y):
    before = X[0].tobytes(), y[0].tobytes()
    actual = outcome(CALLS[call], X[0], y[0])
    assert not str(actual).startswith("nothing named")
    assert actual == outcome(CALLS[call], X[1], y[1])
    assert (X[0].tobytes(), y[0].tobytes()) == before  # the caller's arrays are not modified


@pytest.mark.parametrize("call", CALLS)
@given(X=arrays(SHAPES), y=arrays(SHAPES_OF_Y))
def test_any_array_equals_its_copy_or_raises_a_named_error(call, X, y):
    check_equal_to_plain_copy(call, X, y)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@settings(max_examples=1500)
@given(X=arrays(SHAPES), y=arrays(SHAPES_OF_Y))
def test_many_more_arrays_equal_their_copies_or_raise_named_errors(call, X, y):
    check_equal_to_plain_copy(call, X, y)
