"""Labels of every kind, and predictions with the type of y."""

import numpy as np
import pytest

from xpmlp import ShapeError, Spec, train
from xpmlp.losses import loss
from xpmlp.training.labels import decode, find_classes, sample_weights, targets

SIDE = np.arange(40) % 2
THIRD = np.arange(40) % 3


@pytest.fixture
def separable(rng):
    """Separable rows of two and three classes."""
    X = rng.normal(scale=0.1, size=(40, 3))
    return {2: X + np.eye(3)[SIDE], 3: X + np.eye(3)[THIRD]}


def learned(X, y, name, n_out, epochs=60):
    """Train long enough, by default, for linearly separable rows."""
    return train(f"3-16-{n_out}", X, y, loss=name, learning_rate=0.02, epochs=epochs)


TWO = {
    "0 and 1": SIDE,
    "int8": SIDE.astype(np.int8),
    "uint64": SIDE.astype(np.uint64),
    "big-endian": SIDE.astype(">i4"),
    "-1 and 1": 2 * SIDE - 1,
    "7 and 300": np.array([7, 300])[SIDE],
    "bools": SIDE == 1,
    "floats": SIDE.astype(float),
    "float32": SIDE.astype(np.float32),
    "1.5 and 2.5": np.array([1.5, 2.5])[SIDE],
    "strings": np.array(["no", "yes"])[SIDE],
    "accents": np.array(["né", "été"])[SIDE],
    "bytes": np.array([b"no", b"yes"])[SIDE],
    "object strings": np.array(["no", "yes"], dtype=object)[SIDE],
    "object ints": np.array([0, 1], dtype=object)[SIDE],
    "object bools": np.array([False, True], dtype=object)[SIDE],
    "a list of strings": np.array(["no", "yes"])[SIDE].tolist(),
    "a list of ints": SIDE.tolist(),
    "numpy strings": np.array(["no", "yes"], dtype=np.dtypes.StringDType())[SIDE],
    "a column": SIDE[:, None],
    "a column of strings": np.array(["no", "yes"])[SIDE][:, None],
    "dates": np.array(["2026-01-01", "2026-02-01"], dtype="M8[D]")[SIDE],
}


@pytest.mark.parametrize("kind", TWO)
@pytest.mark.parametrize(("name", "n_out"), [("binary_cross_entropy", 1), ("cross_entropy", 2)])
def test_two_classes_of_any_kind(kind, name, n_out, separable):
    y = TWO[kind]
    labels = np.asarray(y).ravel()
    model = learned(separable[2], y, name, n_out=n_out)
    assert model.classes_.tolist() == sorted(set(labels.tolist()))
    predicted = model.predict(separable[2])
    assert predicted.tolist() == labels.tolist()
    probability = model.predict_proba(separable[2])
    assert probability.shape == (40, 2)
    assert np.allclose(probability.sum(axis=1), 1, rtol=1e-12)  # rounding of one sum
    assert (model.classes_[probability.argmax(axis=1)] == predicted).all()


THREE = {
    "ints": THIRD,
    "not from 0": THIRD * 10 - 5,
    "strings": np.array(["low", "high", "mid"])[THIRD],
    "object strings": np.array(["low", "high", "mid"], dtype=object)[THIRD],
    "floats": THIRD + 0.5,
}


@pytest.mark.parametrize("kind", THREE)
def test_three_classes_of_any_kind(kind, separable):
    y = THREE[kind]
    model = learned(separable[3], y, "cross_entropy", n_out=3)
    assert model.classes_.tolist() == sorted(set(y.tolist()))
    assert model.predict(separable[3]).tolist() == y.tolist()
    probability = model.predict_proba(separable[3])
    assert (model.classes_[probability.argmax(axis=1)] == model.predict(separable[3])).all()


@pytest.mark.parametrize(
    "values", [["no", "yes"], [0, 1], [False, True], [0.5, 1.5]], ids=lambda v: type(v[0]).__name__
)
@pytest.mark.parametrize("dtype", [None, "category", "nullable"])
def test_a_pandas_series_trains_as_its_values(values, dtype, separable):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([values[i] for i in SIDE], index=np.arange(40)[::-1])
    if dtype is not None:
        series = series.convert_dtypes() if dtype == "nullable" else series.astype(dtype)
    model = learned(separable[2], series, "cross_entropy", n_out=2)
    assert model.classes_.tolist() == values
    assert model.predict(separable[2]).tolist() == [values[i] for i in SIDE]
    expected = learned(separable[2], np.array([values[i] for i in SIDE]), "cross_entropy", n_out=2)
    assert (expected.flat == model.flat).all()


def test_a_polars_series_trains_as_its_values(separable):
    polars = pytest.importorskip("polars")
    series = polars.Series(["no" if i else "yes" for i in SIDE])
    model = learned(separable[2], series, "cross_entropy", n_out=2)
    assert model.predict(separable[2]).tolist() == series.to_list()


def test_one_hot_rows_and_labels_learn_the_same(separable):
    X = separable[3]
    labels = train("3-8-3", X, THIRD, loss="cross_entropy", epochs=5)
    for dtype in (float, int, bool):
        hot = train("3-8-3", X, np.eye(3, dtype=dtype)[THIRD], loss="cross_entropy", epochs=5)
        assert (hot.flat == labels.flat).all()
        assert hot.classes_ is None
        assert np.array_equal(hot.predict(X), labels.predict_proba(X))


def test_probabilities_as_targets(rng):
    X = np.zeros((50, 1))
    X[0] = 1e-9  # constant rows would give a warning
    target = np.array([0.1, 0.2, 0.7])
    model = train(
        "1-3",
        X,
        np.tile(target, (50, 1)),
        loss="cross_entropy",
        learning_rate=0.1,
        epochs=300,
        batch_size=50,
    )
    assert np.allclose(
        model.predict(X)[0], target, atol=1e-4
    )  # 300 steps of adam have a smaller error
    two = train(
        "1-1",
        X,
        np.full(50, 0.3),
        loss="binary_cross_entropy",
        learning_rate=0.1,
        epochs=300,
        batch_size=50,
    )
    assert two.classes_ is None
    assert two.predict(X).shape == (50,)
    assert np.allclose(two.predict(X), 0.3, atol=1e-4)


def test_binary_probabilities_predict_labels_above_one_half(separable):
    model = learned(separable[2], np.array(["no", "yes"])[SIDE], "binary_cross_entropy", 1)
    positive = model.predict_proba(separable[2])[:, 1]
    assert ((positive > 0.5) == (model.predict(separable[2]) == "yes")).all()


@pytest.mark.parametrize("dtype", [int, float, bool])
def test_several_binary_labels_at_once(dtype, rng):
    X = rng.normal(size=(60, 3))
    y = (X > 0).astype(dtype)
    model = train("3-16-3", X, y, loss="binary_cross_entropy", learning_rate=0.02, epochs=80)
    assert model.classes_ is None
    probability = model.predict_proba(X)
    assert probability.shape == (60, 3)
    assert ((probability > 0.5) == (y > 0)).mean() > 0.95
    assert (model.predict(X) == probability).all()


def test_a_single_class_has_the_labels_zero_and_one(separable):
    for value in (0, 1):
        y = np.full(40, value)
        with pytest.warns(UserWarning, match="y has a single class"):
            model = train(
                "3-1", separable[2], y, loss="binary_cross_entropy", epochs=100, learning_rate=0.1
            )
        assert model.classes_.tolist() == [0, 1]
        assert (model.predict(separable[2]) == value).all()
    only = find_classes(np.array([True, True]), loss("binary_cross_entropy"))
    assert only.tolist() == [False, True]


def test_predictions_keep_the_shape_of_y(rng):
    X = rng.normal(size=(8, 2))
    assert train("2-1", X, np.zeros(8), epochs=1).predict(X).shape == (8,)
    assert train("2-1", X, np.zeros((8, 1)), epochs=1).predict(X).shape == (8, 1)
    assert train("2-3", X, np.zeros((8, 3)), epochs=1).predict(X).shape == (8, 3)
    several = train("2-3", X, np.zeros(8), loss="quantile:0.1,0.5,0.9", epochs=1)
    assert several.predict(X).shape == (8, 3)


def test_validation_labels_may_lack_classes_but_not_add_one(separable):
    X, y = separable[3], np.array(["a", "b", "c"])[THIRD]
    model = train("3-3", X, y, loss="cross_entropy", epochs=2, X_val=X[:2], y_val=y[:2])
    assert len(model.history["val_loss"]) == 2
    for unknown_labels in (["a", "d"], np.array(["a", "a very long one"]), [0, 1]):
        with pytest.raises(ValueError, match=r"^y_val has the label .*not a class: a, b, c"):
            train("3-3", X, y, loss="cross_entropy", X_val=X[:2], y_val=unknown_labels)


def missing_labels():
    pandas = pytest.importorskip("pandas")
    return {
        "None": [None, "b"] * 20,
        "NaN": [float("nan"), 1.0] * 20,
        "None in a list of strings": [None, "b"] * 20,
        "NaN in a list of strings": [float("nan"), "b"] * 20,
        "NaN among strings": np.array([np.nan, "b"] * 20, dtype=object),
        "a string series": pandas.Series([None, "b"] * 20),
        "a nullable string series": pandas.Series([None, "b"] * 20, dtype="string"),
        "a nullable int series": pandas.Series([None, 1] * 20, dtype="Int64"),
        "a category": pandas.Series([None, "b"] * 20, dtype="category"),
        "an object series with NA": pandas.Series([pandas.NA, "b"] * 20, dtype=object),
        "NaT": np.array(["NaT", "2026-01-01"] * 20, dtype="M8[D]"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "None",
        "NaN",
        "None in a list of strings",
        "NaN in a list of strings",
        "NaN among strings",
        "a string series",
        "a nullable string series",
        "a nullable int series",
        "a category",
        "an object series with NA",
        "NaT",
    ],
)
@pytest.mark.parametrize(
    ("sizes", "name"), [("3-2", "cross_entropy"), ("3-1", "binary_cross_entropy")]
)
def test_a_missing_label_is_an_error(kind, sizes, name, separable):
    with pytest.raises(ValueError, match=r"^y has .*row 0"):
        train(sizes, separable[2], missing_labels()[kind], loss=name)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 40, r"^y has 1 class.*distinguishes 2"),
        (["a", "b", "c", "d"] * 10, r"^y has 4 classes.*distinguishes 2"),
        ([["a"], ["b"]] * 20 + [["c"]], r"y"),
        (["a", 1] * 20, r"^y mixes strings"),
        (None, r"^y .*None"),
        (["a", "b"], r"^X has 40 rows but y has 2"),
        (np.full((40, 2), 0.9), r"^y's rows must sum to 1; row 0"),
        (np.full((40, 2), 2.0), r"^y must be labels or probabilities"),
        (np.full((40, 2), np.nan), r"^y has 80 values.*NaN at row 0, column 0"),
        ([("a", 1), ("b", 2)] * 20, r"^y "),
        ([[]] * 40, r"^y "),
        ("a", r"^y "),
        (3, r"^y "),
    ],
)
def test_more_than_two_labels_for_a_binary_loss_raise(y, message, separable):
    with pytest.raises(ValueError, match=message):
        train("3-2", separable[2], y, loss="cross_entropy")


def test_pairs_as_labels_raise(separable):
    pairs = np.empty(40, dtype=object)
    pairs[:] = [("a", i) for i in SIDE]
    with pytest.raises(ValueError, match=r"^y "):
        train("3-2", separable[2], pairs, loss="cross_entropy")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2, 3] * 10, r"^y has 4 classes"),
        ([5] * 40, r"^y has 1 class "),
        ([0.2, 1.5] * 20 + [0.3], r"y"),
        (np.full((40, 2), 0.5), "target"),
    ],
)
def test_labels_for_a_single_score_raise(y, message, separable):
    with pytest.raises(ValueError, match=message):
        train("3-1", separable[2], y, loss="binary_cross_entropy")


def test_targets_of_the_wrong_width_are_a_shape_error(rng):
    X = rng.normal(size=(8, 2))
    for sizes, y, name in (
        ("2-3", np.zeros((8, 2)), "squared_error"),
        ("2-3", np.zeros(8), "squared_error"),
        ("2-3", np.full((8, 2), 0.5), "cross_entropy"),
        ("2-2", np.zeros((8, 2)), "quantile:0.1,0.9"),
    ):
        with pytest.raises(ShapeError, match=r"target|y"):
            train(sizes, X, y, loss=name)


def test_negative_counts_raise_for_poisson(rng):
    with pytest.raises(ValueError, match=r"^y must be counts"):
        train("2-1", rng.normal(size=(8, 2)), np.full(8, -1.0), loss="poisson")


def test_a_target_outside_the_range_of_the_loss_is_named(rng):
    X = rng.normal(size=(2, 2))
    for y, wrong in (([[-0.5, 1], [0, 1]], "-0.5"), ([[0, 1], [3, 1]], "3")):
        with pytest.raises(ValueError, match=rf"probabilities in \[0, 1\]; got {wrong}$"):
            train("2-2", X, y, loss="binary_cross_entropy")


@pytest.mark.parametrize("scale", [1.0, 1e300])
def test_balanced_classes_have_equal_total_weight(scale, rng):
    """A row of weight 2 is two rows, as in the estimators; weights of 1e300 have no finite sum."""
    y = rng.integers(0, 3, 60)
    weights = rng.uniform(0.5, 3, 60) * scale
    target, labels = targets(y, Spec.parse("2-3", loss="cross_entropy"), "y")
    actual = sample_weights(weights, 60, target, labels, "balanced", "sample_weight")
    sums = [actual[y == k].sum() for k in range(3)]
    np.testing.assert_allclose(sums, sums[0])
    ratio = actual / weights
    for k in range(3):  # within a class the ratios are as given
        np.testing.assert_allclose(ratio[y == k], ratio[y == k][0])


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("balance", "balanced"),
        ({"d": 1.0}, "'d'"),
        ({"a": -1.0}, "at least 0"),
        ({"a": float("nan")}, "finite"),
        ({"a": None}, "class_weight"),
        ({"a": "heavy"}, "class_weight"),
        ([1, 2], "class_weight"),
        (2.0, "class_weight"),
        ({"a": 0.0, "b": 0.0}, "zero"),
    ],
    ids=str,
)
def test_bad_class_weights_are_named(class_weight, message, separable):
    y = np.array(["a", "b"])[SIDE]
    with pytest.raises(ValueError, match=r"class_weight|all zero") as caught:
        train("3-2", separable[2], y, loss="cross_entropy", class_weight=class_weight)
    assert message in str(caught.value)


def test_class_weights_without_labels_are_an_error(rng):
    with pytest.raises(ValueError, match="class_weight"):
        train("2-1", rng.normal(size=(8, 2)), np.zeros(8), class_weight="balanced")


def test_balanced_matches_scikit_learn(rng):
    utils = pytest.importorskip("sklearn.utils.class_weight")
    y = rng.choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=50)
    target, labels = targets(y, Spec.parse("1-3", loss="cross_entropy"))
    actual = sample_weights(None, 50, target, labels, "balanced", "sample_weight")
    expected = utils.compute_sample_weight("balanced", y)
    assert np.allclose(actual, expected / expected.mean(), rtol=1e-12)  # the same divisions


def test_decode_takes_the_most_probable_label():
    linked = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    assert decode([], linked, np.array(["x", "y", "z"])).tolist() == ["y", "x"]
    assert decode([], np.array([[0.5], [0.51]]), np.array([3, 9])).tolist() == [3, 9]


def test_labels_are_returned_where_x_is(place, separable):
    rows = place.xp.asarray(separable[2], device=place.device)
    words = np.array(["no", "yes"])[SIDE].tolist()
    named = learned(rows, words, "cross_entropy", 2, epochs=2)
    assert isinstance(named.predict(rows), np.ndarray)  # only NumPy has strings
    numbers = place.xp.asarray(SIDE, device=place.device)
    numbered = learned(rows, numbers, "cross_entropy", 2, epochs=2)
    assert type(numbered.predict(rows)) is type(rows)
