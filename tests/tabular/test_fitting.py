"""Training on a table: guessed tasks, held-out rows, and no leaks."""

import numpy as np
import pytest

from xpmlp.tabular.fitting import Plan, fit_table
from xpmlp.tabular.model import fit_columns, load
from xpmlp.tabular.reading import TableError, decode_column

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")

NETWORK = {"hidden": [16], "activation": "silu", "dropout": 0.0}
NOISE = 0.05  # of r2 and of accuracy between trainings that differ by rounding or by luck
ROUNDING = 1e-4  # relative, of a float32 training whose input differs in the last bit


def fit(frame, target="y", *, epochs=30, test=None, network=NETWORK, on_start=None, **plan):
    options = {} if on_start is None else {"on_start": on_start}
    return fit_table(
        frame,
        Plan(target, **plan),
        network=network,
        settings={
            "epochs": epochs,
            "batch_size": 32 if len(frame) > 60 else None,
            "learning_rate": 0.01,
        },
        test=test,
        **options,
    )


@pytest.fixture
def frame(rng):
    """300 rows with numbers, a category and gaps that matter to y and to k."""
    n = 300
    a, b = rng.normal(size=(2, n))
    c = rng.choice(["red", "green", "blue"], n)
    y = 3 * a - b**2 + 2 * (c == "red") + 0.1 * rng.normal(size=n)
    gappy = [None if i % 7 == 0 else value for i, value in enumerate(b.tolist())]
    k = np.where(a + (c == "red") > 0, "yes", "no")
    return polars.DataFrame({"a": a, "b": b, "gappy": gappy, "c": c, "y": y, "k": k})


# guessed tasks

GUESSES = {
    "texts": (["x", "y"] * 20, "classification"),
    "booleans": ([True, False] * 20, "classification"),
    "few whole numbers": ([1, 2, 3, 4] * 10, "classification"),
    "many whole numbers": (list(range(40)), "regression"),
    "real numbers": ([0.5, 1.5] * 20, "regression"),
}


@pytest.mark.parametrize("kind", GUESSES)
def test_the_task_is_guessed_by_the_target(kind, rng):
    cells, task = GUESSES[kind]
    result = fit(polars.DataFrame({"a": rng.normal(size=40), "y": cells}), epochs=1)
    assert result.model.task == task
    assert set(result.metrics) >= ({"rmse"} if task == "regression" else {"accuracy"})


def test_a_given_task_overrides_the_guess(rng):
    table = polars.DataFrame({"a": rng.normal(size=40), "y": [1, 2] * 20})
    assert fit(table, epochs=1).model.classes_.tolist() == [1, 2]
    model = fit(table, epochs=1, task="regression").model
    assert (model.task, model.classes_) == ("regression", None)
    real = table.with_columns(y=polars.col("y") / 2)
    assert fit(real, epochs=1, task="classification").model.classes_.tolist() == [0.5, 1.0]


def test_dates_booleans_and_many_categories(rng):
    from datetime import date, timedelta

    n = 200
    table = polars.DataFrame(
        {
            "day": [date(2026, 1, 1) + timedelta(days=i) for i in range(n)],
            "flag": [None if i % 9 == 0 else i % 2 == 0 for i in range(n)],
            "id": [f"row {i}" for i in range(n)],
            "y": np.arange(n) / 50 + (np.arange(n) % 2 == 0),
        }
    )
    result = fit(table, epochs=60)
    day, flag, label = result.model.columns
    assert (day.kind, flag.kind, label.kind) == ("date", "number", "category")
    assert (flag.gaps, label.rest) == (True, True)
    assert result.model.spec.n_in == day.width + flag.width + label.width
    assert (
        result.metrics["r2"] > 0.5
    )  # the id has no information; the day and the flag determine the target


# Scores


def test_held_out_scores_beat_the_baseline(frame):
    number = fit(frame, drop=["k"])
    assert number.metrics["r2"] > 0.9
    assert number.baseline["r2"] < 0.05
    assert number.metrics["rmse"] < number.baseline["rmse"]
    label = fit(frame, "k", drop=["y"])
    assert label.metrics["accuracy"] > 0.9 > label.baseline["accuracy"]
    assert label.metrics["auc"] > label.baseline["auc"] == pytest.approx(0.5)


def test_the_scores_are_those_of_the_held_out_rows(frame):
    result = fit(frame, drop=["k"])
    assert result.rows == {"training": 204, "validation": 36, "held_out": 60}
    error = result.truth - result.predicted
    assert result.metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert np.isin(result.truth, frame["y"].to_numpy()).all()


def test_the_baseline_is_the_mean_or_the_class_frequencies_of_the_training_rows(frame, rng):
    columns = {"y": [0.0] * 50 + [1.0] * 50, "a": rng.normal(size=100)}
    test = polars.DataFrame({"y": [3.0] * 5 + [4.0] * 5, "a": rng.normal(size=10)})
    result = fit(polars.DataFrame(columns), test=test, epochs=1)
    training_mean = 0.5  # about the mean of the 85 training rows
    assert result.baseline["mae"] == pytest.approx(3.5 - training_mean, abs=0.2)
    assert result.rows["held_out"] == 10


def test_the_same_seed_gives_the_same_model(frame):
    first, second = (fit(frame, drop=["k"], epochs=3, seed=5) for _ in range(2))
    assert first.model.model.flat.tobytes() == second.model.model.flat.tobytes()
    assert first.metrics == second.metrics
    another_seed = fit(frame, drop=["k"], epochs=3, seed=6)
    assert another_seed.metrics != first.metrics


# Invariances


def test_column_names_do_not_matter(frame):
    """The same columns in the same order, with names that sort differently."""
    table = frame.drop("k")
    names = {"a": "zz", "b": "price", "gappy": "id", "c": "A", "y": "a"}
    original = fit(table, epochs=5)
    renamed = fit(table.rename(names), "a", epochs=5)
    assert original.metrics == renamed.metrics


def test_column_order_changes_scores_within_noise(frame):
    table = frame.drop("k")
    moved = table.select(["c", "y", "gappy", "b", "a"])
    assert fit(table).metrics["r2"] == pytest.approx(fit(moved).metrics["r2"], abs=NOISE)


@pytest.mark.parametrize("target", ["y", "k"])
def test_row_order_changes_scores_within_noise(target, frame, rng):
    table = frame.drop("k" if target == "y" else "y")
    score = "r2" if target == "y" else "accuracy"
    mixed = table[rng.permutation(len(table)).tolist()]
    original, permuted = (fit(original, target).metrics[score] for original in (table, mixed))
    assert original == pytest.approx(permuted, abs=NOISE)


@pytest.mark.parametrize(("scale", "shift"), [(1e6, 0), (1e-6, 0), (-2, 100)])
def test_the_unit_of_the_target_does_not_matter(scale, shift, frame):
    table = frame.drop("k")
    rescaled = table.with_columns(y=polars.col("y") * scale + shift)
    original, actual = fit(table, epochs=5).metrics, fit(rescaled, epochs=5).metrics
    assert actual["r2"] == pytest.approx(original["r2"], abs=NOISE if scale < 0 else 1e-3)
    if scale > 0:
        assert actual["rmse"] == pytest.approx(original["rmse"] * scale, rel=1e-2)


def test_a_frame_of_pandas_gives_the_same_scores(frame, optional):
    optional("pandas")
    polars_frame = frame.drop("k", "gappy")  # without gaps: to_pandas would need pyarrow for them
    import pandas

    pandas_frame = pandas.DataFrame(
        {name: polars_frame[name].to_list() for name in polars_frame.columns}
    )
    expected, actual = fit(polars_frame, epochs=3), fit(pandas_frame, epochs=3)
    assert expected.metrics == pytest.approx(actual.metrics, rel=ROUNDING)


# Held-out rows


def record_frames(monkeypatch):
    """The frames that encoders are fitted to."""
    from xpmlp.tabular import fitting

    frames = []

    def record(table, names):
        frames.append(table.frame)
        return fit_columns(table, names)

    monkeypatch.setattr(fitting, "fit_columns", record)
    return frames


def numbered(frame):
    return frame.with_columns(row=polars.Series(np.arange(len(frame))))


def test_encoders_are_fitted_to_the_training_rows_only(frame, monkeypatch):
    frames = record_frames(monkeypatch)
    result = fit(numbered(frame), drop=["k"], epochs=1)
    (source,) = frames
    assert len(source) == result.rows["training"]
    held_out = set(result.truth.tolist())
    assert not held_out & set(source["y"].to_list())
    encoder = next(column for column in result.model.columns if column.name == "a")
    assert encoder.center == pytest.approx(np.median(source["a"].to_numpy()))
    y = source["y"].to_numpy()
    assert (result.model.center, result.model.scale) == pytest.approx((y.mean(), y.std()))


def test_held_out_rows_do_not_change_the_model(frame):
    """Neither their cells nor their targets affect the network, the encoders or the scaling."""
    test = frame[:40]
    wild = test.with_columns(a=polars.col("a") * 1e6, c=polars.lit("new"), y=polars.col("y") * 1e6)
    original, changed = (
        fit(frame[40:], drop=["k"], epochs=3, test=rows).model for rows in (test, wild)
    )
    assert original.model.flat.tobytes() == changed.model.flat.tobytes()
    assert (original.columns, original.center, original.scale) == (
        changed.columns,
        changed.center,
        changed.scale,
    )


def test_held_out_groups_are_whole_and_not_an_input(frame, monkeypatch):
    frames = record_frames(monkeypatch)
    groups = [f"g{i % 12}" for i in range(len(frame))]
    result = fit(frame.with_columns(g=polars.Series(groups)), drop=["k"], group="g", epochs=1)
    group_of = dict(zip(frame["y"].to_list(), groups, strict=True))
    held_out_groups = {group_of[y] for y in result.truth.tolist()}
    assert not held_out_groups & set(frames[0]["g"].to_list())
    assert "g" not in [column.name for column in result.model.columns]


def test_held_out_times_are_the_latest(frame, monkeypatch):
    frames = record_frames(monkeypatch)
    result = fit(numbered(frame), drop=["k"], time="row", epochs=1, test_size=0.3)
    assert set(result.truth.tolist()) == set(frame["y"].to_list()[-90:])
    assert frames[0]["row"].max() < 210


def test_the_split_is_stratified(rng):
    labels = ["rare"] * 20 + ["often"] * 180
    table = polars.DataFrame({"a": rng.normal(size=200), "y": labels})
    result = fit(table, epochs=1)
    assert (result.truth == "rare").sum() == 4
    assert (result.truth == "often").sum() == 36


def test_one_held_out_row_is_enough(rng):
    table = polars.DataFrame({"a": rng.normal(size=4), "y": [0.5, 1.5, 2.5, 3.5]})
    result = fit(table, epochs=1)
    assert (len(result.truth), len(result.predicted)) == (1, 1)
    assert result.metrics["mae"] == pytest.approx(abs(result.truth[0] - result.predicted[0]))


def test_held_out_rows_may_all_be_of_one_class(frame):
    ordered = frame.sort("k").with_columns(t=polars.Series(np.arange(len(frame))))
    result = fit(ordered, "k", drop=["y"], time="t", epochs=1, test_size=0.1)
    assert set(result.truth.tolist()) == {"yes"}
    assert set(result.metrics) == {"accuracy", "log_loss"}


def test_on_start_receives_the_model_and_the_rows(frame):
    calls = []
    result = fit(
        frame, drop=["k"], epochs=1, on_start=lambda model, rows: calls.append((model, rows))
    )
    ((model, rows),) = calls
    assert rows == result.rows
    assert (model.target, model.columns) == ("y", result.model.columns)


# errors before training


def change(name, row, value):
    def changed(frame):
        cells = frame[name].to_list()
        cells[row] = value
        return frame.with_columns(polars.Series(name, cells))

    return changed


REFUSED = {
    "a gap in the target": (change("y", 4, None), {}, r"'y' has 1 missing cell, .* row 5;"),
    "a target without a cell": (
        lambda f: f.with_columns(y=polars.lit(None, dtype=polars.Float64)),
        {"drop_missing_target": "drop"},
        "'y' is missing in every row",
    ),
    "a constant target": (lambda f: f.with_columns(y=1.5), {}, r"'y' is constant \(1\.5\)"),
    "an infinite target": (change("y", 2, float("inf")), {}, "'y' has 1 infinite .* row 3"),
    "an infinite cell": (change("a", 7, float("inf")), {}, "'a' has 1 infinite .* row 8"),
    "one in a column with its target missing": (
        lambda f: change("a", 7, -float("inf"))(change("y", 1, None)(f)),
        {"drop_missing_target": "drop"},
        "'a' has 1 infinite .* row 8",
    ),
    "strings as numbers": (lambda f: f.with_columns(y="c"), {"task": "regression"}, "holds str"),
    "an unknown target": (lambda f: f.rename({"y": "yy"}), {}, "no column 'y'; did you mean 'yy'"),
    "an unknown drop": (lambda f: f, {"drop": ["gapy"]}, "did you mean 'gappy'"),
    "an unknown group": (lambda f: f, {"group": "cc"}, "no column 'cc'"),
    "an unknown time": (lambda f: f, {"time": "bb"}, "no column 'bb'"),
    "a time that is a string": (lambda f: f, {"time": "c"}, "'c' is neither a time nor a number"),
    "no row left to train on": (lambda f: f, {"test_size": 0.999}, "0 are left to train on"),
    "two rows": (lambda f: f[:2], {}, "of 2 rows 1 are left"),
    "a class with all rows held out": (
        lambda f: f.with_columns(y="c"),
        {"group": "c"},
        "'y' is '(red|green|blue)' in held-out rows but in no training row",
    ),
}  # fmt: skip


REFUSED |= {
    f"a gap in the {word} that rows are held out by": (
        change(name, 4, None), {word: name}, f"column '{name}' has 1 missing cell, .* row 5; rows"
    )
    for word, name in (("time", "a"), ("group", "c"))
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_invalid_table_is_refused(kind, frame):
    changed, plan, message = REFUSED[kind]

    def on_start(model, rows):
        raise AssertionError("training started")

    with pytest.raises(TableError, match=message):
        fit(changed(frame.drop("k")), on_start=on_start, **plan)


TESTS = {
    "a missing column": (lambda f: f.drop("gappy"), "no column 'gappy'"),
    "another kind": (lambda f: f.with_columns(a=polars.lit("x")), "'a' was a number in training"),
    "an infinite cell": (change("a", 3, float("inf")), "'a' has 1 infinite .* row 4"),
    "no target": (lambda f: f.drop("y"), "no column 'y'"),
    "a gap in the target": (change("y", 4, None), "'y' has 1 missing cell"),
}


@pytest.mark.parametrize("kind", TESTS)
def test_an_invalid_held_out_table_is_refused_before_training(kind, frame):
    changed, message = TESTS[kind]

    def on_start(model, rows):
        raise AssertionError("training started")

    with pytest.raises(TableError, match=message):
        fit(frame, drop=["k"], test=changed(frame[:20]), on_start=on_start)


@pytest.mark.parametrize(("name", "target", "message"), [
    ("squared_error", "k", "loss 'squared_error' is not for the labels .* 'cross_entropy'$"),
    ("binary_cross_entropy", "k", "'cross_entropy', which is the same for two classes$"),
    ("binary_cross_entropy", "y", "loss 'binary_cross_entropy' is for labels: a regression uses"),
    ("cross_entropy", "y", "loss 'cross_entropy' is for labels: a regression uses 'squared_err"),
    ("quantile:0.1,0.9", "y", "'quantile:0.1,0.9' predicts 2 numbers for each row; the model of a"),
])  # fmt: skip
def test_a_loss_for_other_targets_is_refused(name, target, message, frame):
    def on_start(model, rows):
        raise AssertionError("training started")

    with pytest.raises(TableError, match=message):
        fit(
            frame,
            target,
            drop=[{"k": "y", "y": "k"}[target]],
            network=NETWORK | {"loss": name},
            on_start=on_start,
        )


def test_counts_are_not_standardized(frame):
    """The link of the Poisson loss predicts counts, which a standardized target would not be."""
    rate = np.exp(frame["a"].to_numpy().clip(-2, 2))
    counts = frame.drop("k").with_columns(y=np.random.default_rng(0).poisson(rate).astype(float))
    result = fit(counts, network=NETWORK | {"loss": "poisson"}, epochs=60)
    assert (result.model.center, result.model.scale) == (0, 1)
    assert result.predicted.min() > 0
    assert result.metrics["rmse"] < 0.9 * result.baseline["rmse"]
    default = fit(counts, epochs=1)
    assert (default.model.center, default.model.scale) != (0, 1)


def test_a_gaussian_loss_learns_mean_and_scatter(frame, tmp_path):
    path = tmp_path / "model"
    result = fit(frame, drop=["k"], network=NETWORK | {"loss": "gaussian"})
    assert result.metrics["r2"] > 0.9
    assert result.model.spec.n_out == 2
    assert result.model.scale == pytest.approx(frame["y"].to_numpy().std(), rel=0.2)
    predicted = result.model.predict(frame)
    mean = result.model.model.scores(result.model.rows(frame))[:, 0].astype(float)
    assert (predicted == mean * result.model.scale + result.model.center).all()
    result.model.save(path)
    assert (load(path).predict(frame) == predicted).all()


def test_a_missing_time_in_a_dropped_row_is_ignored(frame):
    gaps = change("a", 4, None)(change("y", 4, None)(frame))
    result = fit(gaps, drop=["k"], time="a", drop_missing_target="drop", epochs=1)
    assert sum(result.rows.values()) == len(frame) - 1


def test_rows_with_missing_targets_are_dropped(frame):
    gaps = change("y", 4, None)(change("y", 100, None)(frame))
    result = fit(gaps, drop=["k"], drop_missing_target="drop", epochs=1)
    assert sum(result.rows.values()) == len(frame) - 2


PLANS = {
    "a task misspelt": ({"task": "regresion"}, "task must be regression or classification"),
    "a share of nothing": ({"test_size": 0}, r"test_size must be in \(0, 1\); got 0"),
    "a share of all": ({"test_size": 1.0}, r"test_size must be in \(0, 1\)"),
    "a share that is not a number": ({"test_size": float("nan")}, "test_size must be in"),
    "two splits": ({"group": "a", "time": "b"}, "not both"),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_out_of_range_is_refused(kind):
    plan, message = PLANS[kind]
    with pytest.raises(ValueError, match=message):
        Plan("y", **plan)


def test_the_frame_is_not_modified(frame):
    before = frame.clone()
    fit(frame, drop=["k"], epochs=1)
    assert frame.equals(before)
    assert decode_column(frame, "a").kind == "number"


@pytest.mark.parametrize(("target", "split"), [
    ("y", {}), ("k", {}), ("y", {"group": "c"}), ("y", {"time": "a"}),
    ("y", {"drop_missing_target": "drop"}),
])  # fmt: skip
def test_every_column_is_decoded_once(target, split, frame, monkeypatch):
    import narwhals

    decoded = []

    def record(original, series):
        if series.dtype != narwhals.Boolean:  # not a mask of missing cells
            decoded.append(series.name)
        return original(series)

    for name in ("to_list", "to_numpy"):
        original = getattr(narwhals.Series, name)
        monkeypatch.setattr(
            narwhals.Series, name, lambda series, original=original: record(original, series)
        )
    gaps = change("y", 4, None)(frame) if "drop_missing_target" in split else frame
    fit(gaps, target, epochs=1, **split)
    assert sorted(decoded) == sorted(frame.columns)
