"""A trained table model on frames that differ from training's."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from xpmlp.tabular.fitting import Plan, evaluate, fit_table
from xpmlp.tabular.model import TableModel, guess_task, seconds
from xpmlp.tabular.reading import TableError

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")

ROUNDING = 1e-6  # of float32 probabilities


def fitted(frame, target, drop):
    network = {"hidden": [8], "activation": "tanh", "dropout": 0.0}
    plan = Plan(target, drop=[drop])
    return fit_table(frame, plan, network=network, settings={"epochs": 4, "batch_size": 32}).model


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 120))
    c = rng.choice(["x", "y"], 120)
    k = np.where(a > 0, "up", "down")
    return polars.DataFrame({"a": a, "b": b, "c": c, "y": 1000 + 50 * a, "k": k})


@pytest.fixture(scope="module")
def number(frame):
    return fitted(frame, "y", "k")


@pytest.fixture(scope="module")
def label(frame):
    return fitted(frame, "k", "y")


def test_predictions_have_the_unit_of_the_target(number, frame):
    predicted = number.predict(frame)
    assert predicted.shape == (120,)
    assert predicted.dtype == np.float64
    assert abs(predicted.mean() - 1000) < 50


def test_labels_are_the_most_probable_classes(label, frame):
    proba = label.predict_proba(frame)
    assert proba.shape == (120, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=ROUNDING)
    assert label.predict(frame).tolist() == label.classes_[proba.argmax(axis=1)].tolist()
    assert label.classes_.tolist() == ["down", "up"]


def test_column_order_does_not_matter(number, frame):
    reordered = frame.select(["c", "k", "b", "y", "a"])
    assert number.predict(reordered).tobytes() == number.predict(frame).tobytes()


def test_the_target_and_extra_columns_are_ignored(number, frame):
    without_target = frame.drop("y", "k").with_columns(more=polars.lit("?"), also=1)
    inputs = number.inputs(without_target)
    assert inputs.ignored == ["more", "also"]
    assert number.predict(without_target).tobytes() == number.predict(frame).tobytes()
    assert number.inputs(frame).ignored == ["k"]


def test_a_missing_column_is_named_with_the_nearest(number, frame):
    with pytest.raises(TableError, match="no column 'b'; did you mean 'bb'"):
        number.predict(frame.rename({"b": "bb"}))


def test_unknown_categories_are_counted(number, frame):
    table = frame[:6].with_columns(c=polars.Series(["x", "q", None, "q", "y", "w"]))
    inputs = number.inputs(table)
    assert inputs.unknown == {"c": 3}
    with pytest.warns(UserWarning, match=r"^column 'c': 3 cells of an unknown category$"):
        assert np.isfinite(number.predict(table)).all()
    assert number.inputs(frame).unknown == {}


def test_numbers_for_strings_must_be_known_categories(number, frame):
    """7 may have been "007": a number that is not a known category is refused."""
    codes = frame.with_columns(c=polars.Series(["7", "8"] * 60))
    learnt = fitted(codes, "y", "k")
    ints = codes.with_columns(c=codes["c"].cast(polars.Int64))
    assert learnt.predict(ints).tobytes() == learnt.predict(codes).tobytes()
    cells = {name: codes[name].to_list() for name in codes.columns}
    whole = cells | {"c": [int(code) for code in cells["c"]]}
    assert learnt.predict(whole).tobytes() == learnt.predict(codes).tobytes()
    for table in (frame.with_columns(c=polars.lit(9)), whole | {"c": [9] * 120}):
        with pytest.raises(
            TableError, match=r"column 'c' holds 9, which is not a category of training"
        ):
            learnt.predict(table)


def test_numbers_for_many_strings_may_be_rare_categories(frame):
    """With more than 64 categories, the names of the rarer ones are not stored."""
    many = frame.with_columns(c=polars.Series([str(200 + i) for i in range(120)]))
    learnt = fitted(many, "y", "k")
    assert learnt.columns[-1].rest
    ints = many.with_columns(c=many["c"].cast(polars.Int64))
    assert learnt.predict(ints).tobytes() == learnt.predict(many).tobytes()
    with pytest.raises(
        TableError, match=r"column 'c' holds 1, which is not a category of training"
    ):
        learnt.predict(many.with_columns(c=polars.Series(range(1, 121))))
    empty = frame.with_columns(c=polars.lit(None, dtype=polars.String))
    with pytest.warns(UserWarning, match="unknown category"):
        fitted(empty, "y", "k").predict(frame.with_columns(c=polars.lit(3.5)))


@pytest.mark.parametrize("column", ["Rome", b"Rome", 3, None, {"x": 1}, np.float64(3)])
def test_a_table_may_be_a_dict_of_lists(column, number, frame):
    cells = {name: frame[name].to_list() for name in frame.columns}
    with pytest.raises(TableError, match=r"column 'a' must be a list of cells; got"):
        number.predict(cells | {"a": column})


def test_dates_of_a_dict_equal_those_of_a_frame():
    start = datetime(2020, 1, 1, 12, 30)
    days = [start + timedelta(days=i) for i in range(60)]
    frame = polars.DataFrame({"day": days, "y": np.arange(60.0)})
    model = fitted(frame.with_columns(k=polars.lit("x")), "y", "k")
    expected = model.predict(frame)
    zone = timezone(timedelta(hours=-3))
    for cells in (
        days,
        [day.isoformat() for day in days],
        np.array(days, dtype="datetime64[ns]"),
        [day.replace(tzinfo=UTC).astimezone(zone) for day in days],
        [day.replace(tzinfo=UTC).timestamp() for day in days],
    ):
        assert model.predict({"day": cells}).tobytes() == expected.tobytes()
    midnight = model.predict({"day": [datetime(2020, 1, 3), None]})
    assert model.predict({"day": [date(2020, 1, 3), float("nan")]}).tobytes() == midnight.tobytes()
    as_texts = [str(day.replace(tzinfo=UTC).timestamp()) for day in days]
    assert model.predict({"day": as_texts}).tobytes() == expected.tobytes()
    zoned = [day.isoformat() + "Z" for day in days]
    assert model.predict({"day": zoned}).tobytes() == expected.tobytes()
    gap = model.predict({"day": [None]}).tobytes()
    assert model.predict({"day": [np.datetime64("NaT")]}).tobytes() == gap
    for wrong in ("tomorrow", "", "NaT", "today", "now", "31.12.2020", object()):
        with pytest.raises(TableError, match="column 'day' must hold dates, or seconds"):
            model.predict({"day": [wrong]})
    distant_date = seconds(np.datetime64("300000-01-01"))
    assert distant_date == pytest.approx((300_000 - 1970) * 365.2425 * 86_400, rel=1e-6)


def test_a_column_of_another_kind_than_in_training_is_refused(number, frame):
    with pytest.raises(TableError, match="column 'a' was a number in training; here it holds Str"):
        number.predict(frame.with_columns(a=polars.lit("word")))


def test_rows_are_predicted_independently(number, frame):
    expected = number.predict(frame[:5])
    single_rows = [number.predict(frame[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(single_rows, expected, rtol=ROUNDING)


def test_a_pandas_frame_gives_the_same_predictions(number, frame, optional):
    pandas = optional("pandas")
    pandas_frame = pandas.DataFrame({name: frame[name].to_list() for name in frame.columns})
    assert number.predict(pandas_frame).tobytes() == number.predict(frame).tobytes()


def test_score_refuses_a_label_unknown_in_training(label, frame):
    with pytest.raises(
        TableError, match="'k' is 'sideways' in held-out rows but in no training row"
    ):
        evaluate(label, frame[:3], np.array(["up", "sideways", "down"]))


def test_the_scores_of_training_are_stored(label):
    assert set(label.trained) == {"metrics", "baseline", "rows"}
    assert set(label.trained["metrics"]) == {"accuracy", "log_loss", "auc"}
    assert isinstance(label, TableModel)


@pytest.mark.parametrize(
    ("values", "kind", "type_name", "task"),
    [
        (["a"], "category", "String", "classification"),
        ([0.0, 1.0], "number", "Boolean", "classification"),
        (range(20), "number", "Int8", "classification"),
        (range(20), "number", "UInt64", "classification"),
        (range(21), "number", "Int64", "regression"),
        ([0.0, 1.0], "number", "Float64", "regression"),
        (range(3), "date", "Date", "regression"),
    ],
)
def test_the_task_is_guessed(values, kind, type_name, task):
    assert guess_task(values, kind, type_name) == task


def test_a_dict_of_columns_predicts_as_a_frame_does(optional):
    pl = optional("polars")
    rng = np.random.default_rng(5)
    columns = {
        "a": rng.normal(size=80).tolist(),
        "b": ["x", "y", None, "z"] * 20,
        "c": [True, False] * 40,
    }
    columns["a"][3] = None
    y = [2.0 * (a or 0) + (b == "x") for a, b in zip(columns["a"], columns["b"], strict=True)]
    fitted = fit_table(
        pl.DataFrame(columns | {"y": y}),
        Plan("y"),
        network={"hidden": [4], "activation": "relu"},
        settings={"epochs": 2},
    )
    frame = pl.DataFrame(columns)
    assert (fitted.model.predict(columns) == fitted.model.predict(frame)).all()
    with pytest.raises(TableError, match="no column 'c'"):
        fitted.model.predict({"a": [1.0], "b": ["x"]})
    with pytest.raises(TableError, match="column 'a' must hold numbers"):
        fitted.model.predict(columns | {"a": ["one"] * 80})
    with pytest.raises(TableError, match="differ in length"):
        fitted.model.predict(columns | {"a": [1.0]})
