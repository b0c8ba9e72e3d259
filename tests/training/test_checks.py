"""Any input gives either the right result or one clear error that names the argument."""

import datetime
import decimal

import numpy as np
import pytest

from xpmlp import ShapeError, Spec, train
from xpmlp.devices.namespace import to_host
from xpmlp.training.checks import check_fits, describe_index, host_numbers, numbers

ROWS = np.arange(24.0).reshape(8, 3) / 10
TARGET = np.arange(8.0)


def with_value(value, row=2, column=1, dtype=float):
    X = ROWS.astype(dtype)
    X[row, column] = value
    return X


def sparse(rows):
    return pytest.importorskip("scipy.sparse").csr_array(rows)


def sparse_matrix(rows):
    return pytest.importorskip("scipy.sparse").coo_matrix(rows)


def frame(values):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(values, columns=["a", "b", "c"])


def tensor(values):
    return pytest.importorskip("torch").asarray(values)


def strict(values):
    return pytest.importorskip("array_api_strict").asarray(values)


MASKED = np.ma.masked_array(ROWS, mask=ROWS > 2)
AT = r"row 2, column 1"

# X, the type of the error, and a part of its message
BAD_X = {
    "None": (lambda: None, ValueError, "^X .*None"),
    "NaN": (lambda: with_value(np.nan), ValueError, f"^X has 1 value .*NaN at {AT}"),
    "two NaN": (
        lambda: with_value([np.nan] * 3, 2, slice(None)),
        ValueError,
        "^X has 3 values .*NaN at row 2, column 0",
    ),
    "infinity": (lambda: with_value(np.inf), ValueError, f"^X .*infinity at {AT}"),
    "minus infinity": (lambda: with_value(-np.inf), ValueError, f"^X .*infinity at {AT}"),
    "float32 NaN": (lambda: with_value(np.nan, dtype="f4"), ValueError, f"^X .*NaN at {AT}"),
    "float16 NaN": (lambda: with_value(np.nan, dtype="f2"), ValueError, f"^X .*NaN at {AT}"),
    "big-endian NaN": (lambda: with_value(np.nan, dtype=">f8"), ValueError, f"^X .*NaN at {AT}"),
    "complex": (lambda: ROWS + 1j, ValueError, "^X must hold real numbers; .*complex128"),
    "datetime": (lambda: ROWS.astype("M8[s]"), ValueError, "^X .*datetime64"),
    "timedelta": (lambda: ROWS.astype("m8[s]"), ValueError, "^X .*timedelta64"),
    "strings": (lambda: ROWS.astype(str), ValueError, "^X must hold real numbers"),
    "bytes": (lambda: ROWS.astype("S4"), ValueError, "^X must hold real numbers"),
    "one word": (lambda: "rows", ValueError, "^X must hold real numbers"),
    "records": (lambda: np.zeros(8, dtype=[("a", "f8")]), ValueError, "^X must hold real"),
    "ragged lists": (lambda: [[1.0, 2.0, 3.0], [1.0]], ValueError, "^X must be a rectangular"),
    "a masked value": (lambda: MASKED, ValueError, "^X has 3 masked values"),
    "masked rows in a list": (lambda: list(MASKED), ValueError, "^X has 3 masked values"),
    "sparse": (lambda: sparse(ROWS), TypeError, r"^X is a sparse .*X\.toarray\(\)"),
    "a sparse matrix": (lambda: sparse_matrix(ROWS), TypeError, r"X\.toarray\(\)"),
    "1-D": (lambda: ROWS[:, 0], ValueError, r"^X must be 2-D; got 1-D .*X\.reshape\(-1, 1\)"),
    "3-D": (lambda: ROWS[None], ValueError, "^X must be 2-D; got 3-D"),
    "0-D": (lambda: 3.0, ValueError, "^X must be 2-D; got 0-D"),
    "no rows": (lambda: ROWS[:0], ValueError, r"^X is empty.*\(0, 3\)"),
    "no columns": (lambda: ROWS[:, :0], ValueError, r"^X is empty.*\(8, 0\)"),
    "an empty list": (lambda: [], ValueError, "^X "),
    "objects with a string": (
        lambda: with_value("1.5", dtype=object),
        ValueError,
        f"^X must hold real numbers; {AT} has '1.5'",
    ),
    "objects with None": (lambda: with_value(None, dtype=object), ValueError, f"^X .*{AT}.*None"),
    "objects with a complex": (lambda: with_value(1j, dtype=object), ValueError, f"^X .*{AT}"),
    "objects with NaN": (lambda: with_value(np.nan, dtype=object), ValueError, f"^X .*NaN at {AT}"),
    "objects with a date": (
        lambda: with_value(datetime.date(2026, 1, 1), dtype=object),
        ValueError,
        f"^X .*{AT}",
    ),
    "an int beyond float64": (lambda: with_value(10**400, dtype=object), ValueError, f"^X .*{AT}"),
    "a long double beyond float64": (
        lambda: with_value(np.longdouble("1e400"), dtype=np.longdouble),
        ValueError,
        f"^X .*{AT}",
    ),
    "too many columns": (lambda: ROWS[:, [0, 1, 2, 0]], ShapeError, "X has 4 columns"),
    "too few columns": (lambda: ROWS[:, :2], ShapeError, "X has 2 columns"),
    "more rows than y": (lambda: np.vstack([ROWS, ROWS]), ValueError, "^X has 16 rows .* 8"),
    "a frame with a word": (
        lambda: frame(with_value("x", dtype=object)),
        ValueError,
        f"^X .*{AT} has 'x'",
    ),
    "a frame with a gap": (lambda: frame(with_value(np.nan)), ValueError, f"^X .*NaN at {AT}"),
    "a nullable gap": (
        lambda: frame(with_value(np.nan)).convert_dtypes(),
        ValueError,
        f"^X .*{AT}",
    ),
    "a tensor with NaN": (lambda: tensor(with_value(np.nan)), ValueError, f"^X .*NaN at {AT}"),
    "a complex tensor": (lambda: tensor(ROWS + 1j), ValueError, "^X must hold real numbers"),
    "a 1-D tensor": (lambda: tensor(ROWS[:, 0]), ValueError, "^X must be 2-D; got 1-D"),
    "a strict NaN": (lambda: strict(with_value(np.nan)), ValueError, f"^X .*NaN at {AT}"),
    "a function": (lambda: len, ValueError, "^X must hold real numbers|^X must be"),
    "a dict": (lambda: {"a": [1.0]}, ValueError, "^X "),
    "a set": (lambda: {1.0, 2.0}, ValueError, "^X "),
    "a generator": (lambda: (row for row in ROWS), ValueError, "^X "),
}


@pytest.mark.parametrize("kind", BAD_X)
def test_invalid_rows_raise_with_their_name(kind):
    make, error, message = BAD_X[kind]
    with pytest.raises(error, match=message):
        train("3-2-1", make(), TARGET, epochs=1)


@pytest.mark.parametrize("kind", [kind for kind in BAD_X if kind != "None"])
def test_bad_held_out_rows_are_named(kind):
    make, error, message = BAD_X[kind]
    with pytest.raises(error, match=message.replace("X", "X_val")):
        train("3-2-1", ROWS, TARGET, epochs=1, X_val=make(), y_val=TARGET)


@pytest.mark.parametrize("kind", [kind for kind in BAD_X if kind != "more rows than y"])
def test_bad_rows_to_predict_are_named(kind):
    make, error, message = BAD_X[kind]
    model = train("3-2-1", ROWS, TARGET, epochs=1)
    with pytest.raises(error, match=message):
        model.predict(make())


TOO_LARGE = with_value(1e39)


@pytest.mark.parametrize("at", ["numpy", "strict", "torch"])
@pytest.mark.parametrize("name", ["X", "y"])
def test_numbers_beyond_float32_raise_if_dtype_is_float32(name, at):
    make = {"numpy": np.asarray, "strict": strict, "torch": tensor}[at]
    y = np.array([0, 0, 1e39, 0, 0, 0, 0, 0])[:, None]
    arguments = {"X": make(ROWS), "y": make(TARGET[:, None])} | (
        {"X": make(TOO_LARGE)} if name == "X" else {"y": make(y)}
    )
    with pytest.raises(ValueError, match=f"^{name} exceeds float32 at row 2.*float64"):
        train("3-2-1", **arguments, dtype="float32", epochs=1)


def test_numbers_beyond_float32_train_in_float64():
    model = train("3-2-1", TOO_LARGE / 1e30, TARGET, epochs=1)
    assert np.isfinite(model.flat).all()


BAD_Y = {
    "None": (lambda: None, ValueError, "^y .*None"),
    "NaN": (lambda: np.where(TARGET == 2, np.nan, TARGET), ValueError, "^y .*NaN at row 2"),
    "infinity": (
        lambda: np.where(TARGET == 2, np.inf, TARGET),
        ValueError,
        "^y .*infinity at row 2",
    ),
    "complex": (lambda: TARGET + 1j, ValueError, "^y must hold real"),
    "strings": (lambda: TARGET.astype(str), ValueError, "^y must hold real"),
    "dates": (lambda: TARGET.astype("M8[s]"), ValueError, "^y must hold real"),
    "objects": (
        lambda: np.array([1, 2, 3, 4, 5, 6, 7, "x"], dtype=object),
        ValueError,
        "^y .*row 7",
    ),
    "3-D": (lambda: TARGET[:, None, None], ValueError, "^y must be 1-D or 2-D"),
    "0-D": (lambda: 1.0, ValueError, "^y must be 1-D or 2-D"),
    "empty": (lambda: [], ValueError, "^y "),
    "short": (lambda: TARGET[:5], ValueError, "X has 8 rows but y has 5"),
    "wide": (lambda: np.zeros((8, 2)), ShapeError, "y|target"),
    "sparse": (lambda: sparse(TARGET[:, None]), TypeError, r"^y is a sparse"),
    "masked": (lambda: np.ma.masked_array(TARGET, TARGET > 6), ValueError, "^y has 1 masked"),
    "a tensor with NaN": (
        lambda: tensor(np.where(TARGET == 2, np.nan, TARGET)),
        ValueError,
        "^y .*NaN at row 2",
    ),
}


@pytest.mark.parametrize("kind", BAD_Y)
def test_bad_targets_are_named(kind):
    make, error, message = BAD_Y[kind]
    with pytest.raises(error, match=message):
        train("3-2-1", ROWS, make(), epochs=1)


@pytest.mark.parametrize("kind", [kind for kind in BAD_Y if kind != "None"])
def test_bad_held_out_targets_are_named(kind):
    make, error, message = BAD_Y[kind]
    message = (
        message.replace("X has", "X_val has")
        .replace("^y ", "^y_val ")
        .replace("but y ", "but y_val ")
    )
    with pytest.raises(error, match=message):
        train("3-2-1", ROWS, TARGET, epochs=1, X_val=ROWS, y_val=make())


ONES = np.ones(8)
BAD_WEIGHT = {
    "negative": (lambda: np.where(TARGET == 3, -1.0, 1.0), "at least 0; row 3 has -1"),
    "NaN": (lambda: np.where(TARGET == 3, np.nan, 1.0), "NaN at row 3"),
    "infinity": (lambda: np.where(TARGET == 3, np.inf, 1.0), "infinity at row 3"),
    "short": (lambda: ONES[:4], "4 entries for 8 rows"),
    "all zero": (lambda: 0 * ONES, "all zero"),
    "a column": (lambda: ONES[:, None], "must be 1-D"),
    "a number": (lambda: 1.0, "must be 1-D"),
    "a word": (lambda: "balanced", "real numbers"),
    "strings": (lambda: ["a"] * 8, "real numbers"),
    "complex": (lambda: ONES + 1j, "real numbers"),
    "empty": (lambda: [], "empty"),
    "None among them": (lambda: [None] * 8, "real numbers"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHT)
@pytest.mark.parametrize("name", ["sample_weight", "sample_weight_val"])
def test_bad_sample_weights_are_named(kind, name):
    make, message = BAD_WEIGHT[kind]
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        train("3-2-1", ROWS, TARGET, epochs=1, X_val=ROWS, y_val=TARGET, **{name: make()})


def test_val_weights_without_a_validation_set_raise():
    with pytest.raises(ValueError, match="sample_weight_val is given without X_val and y_val"):
        train("3-2-1", ROWS, TARGET, epochs=1, sample_weight_val=ONES)


def test_class_weights_that_remove_all_rows_raise():
    with pytest.raises(ValueError, match=r"^sample_weight times class_weight must not be all zero"):
        train("3-2-2", ROWS, TARGET > 3, loss="cross_entropy", class_weight={False: 0, True: 0})


def test_unsortable_labels_raise():
    with pytest.raises(ValueError, match=r"^y must hold labels that can be sorted"):
        train("3-2-2", ROWS, [object() for _ in ROWS], loss="cross_entropy")


def test_x_val_without_y_val_raises():
    with pytest.raises(ValueError, match="y_val is missing"):
        train("3-1", ROWS, TARGET, X_val=ROWS)
    with pytest.raises(ValueError, match="X_val is missing"):
        train("3-1", ROWS, TARGET, y_val=TARGET)


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


def strided(X):
    wide = np.full((2 * len(X), 3 * X.shape[1]), np.nan)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def decimals(X):
    return np.array([[decimal.Decimal(str(item)) for item in row] for row in X], dtype=object)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "big-endian": lambda X: X.astype(">f8"),
    "numeric objects": lambda X: X.astype(object),
    "decimals": decimals,
    "lists": lambda X: X.tolist(),
    "tuples": lambda X: tuple(map(tuple, X)),
    "a list of rows": list,
    "an unmasked masked array": np.ma.masked_array,
    "a matrix of a subclass": lambda X: X.view(type("Own", (np.ndarray,), {})),
    "a pandas frame": frame,
    "a nullable pandas frame": lambda X: frame(X).astype("Float64"),
    "a polars frame": lambda X: pytest.importorskip("polars").DataFrame(X),
    "a memoryview": memoryview,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_bits_of_the_plain_array(layout, rng):
    X = np.ascontiguousarray(rng.normal(size=(20, 3)).round(3))
    y = np.sin(X).sum(axis=1)
    expected = train("3-5-1", X, y, epochs=3, X_val=X, y_val=y)
    rows = LAYOUTS[layout](X)
    actual = train("3-5-1", rows, y, epochs=3, X_val=rows, y_val=y)
    assert actual.flat.tobytes() == expected.flat.tobytes()
    assert actual.history["val_loss"] == expected.history["val_loss"]
    assert np.asarray(expected.predict(rows)).tobytes() == expected.predict(X).tobytes()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "uint64", ">i4", "float16"])
def test_narrower_dtypes_equal_their_float_copy(dtype, rng):
    X = rng.integers(0, 2, size=(20, 3)).astype(dtype)
    y = np.arange(20) % 5
    float_dtype = "float32" if dtype == "float16" else "float64"
    expected = train("3-5-1", X.astype(float_dtype), y.astype(float_dtype), epochs=3)
    actual = train("3-5-1", X, y.astype("int32"), epochs=3)
    assert actual.flat.dtype == float_dtype
    assert actual.flat.tobytes() == expected.flat.tobytes()


def test_memory_mapped_rows(tmp_path, rng):
    X = rng.normal(size=(20, 3))
    y = X.sum(axis=1)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    actual = train("3-5-1", mapped, y, epochs=3)
    assert actual.flat.tobytes() == train("3-5-1", X, y, epochs=3).flat.tobytes()


def test_a_returned_prediction_may_be_modified(rng):
    X = rng.normal(size=(20, 3))
    model = train("3-5-1", X, X[:, 0], epochs=1)
    first = model.predict(X)
    first[...] = 0
    assert (model.predict(X) != 0).any()


def test_errors_name_row_and_column():
    assert describe_index((4, 3), 5) == "row 1, column 2"
    assert describe_index((4,), 3) == "row 3"
    assert describe_index((2, 2, 2), 7) == "row 1, column 1, axis 2 1"


def test_arrays_keep_their_place(place):
    array = place.xp.asarray([[1.0, 2.0]], device=place.device)
    assert type(numbers(array, "X", (2,))) is type(array)
    assert (to_host(numbers(array, "X", (2,))) == [[1, 2]]).all()
    assert host_numbers([1, 2], "y").dtype.kind == "i"


def test_only_wider_dtypes_can_exceed_float32():
    check_fits(np.array([3e38]), "float32", "X")
    check_fits(np.array([1e300]), "float64", "X")
    check_fits(np.array([3e38], dtype="f4"), "float32", "X")
    with pytest.raises(ValueError, match=r"^X exceeds float32 at row 1 \(-1e\+39\)"):
        check_fits(np.array([0, -1e39]), "float32", "X")


def test_an_unreadable_network_raises():
    for wrong in (None, 5, "", "3", "3-x-1", [], "3-0-1", "3--1"):
        with pytest.raises(ValueError, match=r"network|layer|size"):
            train(wrong, ROWS, TARGET)
    with pytest.raises(ValueError, match="dropout"):
        train(Spec.parse("3-2-1", dropout=1.0), ROWS, TARGET)
