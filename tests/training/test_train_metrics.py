"""User-defined metrics in reports, history, checkpoints, the progress bar and the plot."""

from dataclasses import fields

import numpy as np
import pytest

from xpmlp import ProgressBar, Report, epochs, plot_history, train
from xpmlp.devices.namespace import to_place
from xpmlp.training.held_out import RESERVED

LABELS = np.array(["no", "yes"])


@pytest.fixture
def numbers(rng):
    X = rng.standard_normal((40, 3))
    return X, X @ [1.0, -2.0, 0.5]


@pytest.fixture
def labels(numbers):
    X, y = numbers
    return X, LABELS[(y > 0).astype(int)]


def mae(y, prediction):
    return np.abs(y - prediction).mean()


def right(y, prediction):
    return float((y == prediction).mean())


def brier(y, proba):
    return ((proba[:, 1] - (y == "yes")) ** 2).mean()


@pytest.mark.parametrize("held_out", [False, True])
def test_a_metric_compares_targets_with_predict(held_out, numbers):
    X, y = numbers
    val_rows = {"X_val": X[:9], "y_val": y[:9], "keep": "last"} if held_out else {}
    model = train("3-4-1", X, y, epochs=3, metrics={"mae": mae}, **val_rows)
    rows = slice(9) if held_out else slice(None)
    assert model.history["mae"][-1] == pytest.approx(mae(y[rows], model.predict(X[rows])))
    assert len(model.history["mae"]) == 3


def test_metrics_take_labels_or_probabilities(labels, place):
    X, y = labels
    device_rows = to_place(place, X)
    metrics = {"right": right, "brier": brier}
    model = train("3-4-1", device_rows, y, loss="binary_cross_entropy", epochs=3, metrics=metrics)
    proba = np.asarray(model.predict_proba(X))
    assert model.history["brier"][-1] == pytest.approx(brier(y, proba), rel=1e-5)
    assert model.history["right"][-1] == right(y, np.asarray(model.predict(X)))


def test_several_outputs_and_classes(numbers):
    X, y = numbers
    three = np.digitize(y, [-1.0, 1.0])
    model = train("3-4-3", X, three, loss="cross_entropy", epochs=2, metrics={"right": right})
    assert model.history["right"][-1] == right(three, model.predict(X))
    targets = np.stack([y, -y], axis=1)
    model = train("3-4-2", X, targets, epochs=2, metrics={"mae": mae})
    assert model.history["mae"][-1] == pytest.approx(mae(targets, model.predict(X)))


def test_each_member_has_its_own_metric(numbers):
    X, y = numbers
    model = train("3-4-1", X, y, epochs=2, members=3, metrics={"mae": mae})
    assert model.history["mae"][-1].shape == (3,)
    for k in range(3):
        single = train("3-4-1", X, y, epochs=2, seed=k, metrics={"mae": mae})
        assert model.history["mae"][-1][k] == pytest.approx(single.history["mae"][-1], rel=1e-9)


def test_reports_progress_bar_and_plot_show_the_metric(numbers, capsys, tmp_path):
    X, y = numbers
    for report in epochs("3-4-1", X, y, epochs=2, metrics={"mae": mae}):
        assert report.metrics == {"mae": report.history["mae"][-1]}
    model = train("3-4-1", X, y, epochs=2, metrics={"mae": mae}, callbacks=[ProgressBar()])
    assert "mae=" in capsys.readouterr().err
    figure = plot_history(model, tmp_path / "plot.png")
    assert "mae" in [axis.get_ylabel() for axis in figure.axes]


@pytest.mark.parametrize("members", [None, 2])
def test_the_metric_is_in_the_checkpoint(members, numbers, tmp_path):
    X, y = numbers
    options = {"members": members, "metrics": {"mae": mae}, "checkpoint": tmp_path / "run.ckpt"}
    train("3-4-1", X, y, epochs=2, **options)
    resumed = train("3-4-1", X, y, epochs=4, resume=True, **options)
    whole = train("3-4-1", X, y, epochs=4, members=members, metrics={"mae": mae})
    assert np.array_equal(resumed.history["mae"], whole.history["mae"])


def test_a_callback_may_use_the_validation_rows(numbers):
    X, y = numbers
    shapes = []

    def look(report):
        rows = report.predictions()
        shapes.append(rows.y)
        assert rows.proba is None
        assert report.metrics["mae"] == pytest.approx(mae(rows.y, rows.prediction))

    val_rows = {"X_val": X[:9], "y_val": y[:9]}
    train("3-4-1", X, y, epochs=2, callbacks=[look], metrics={"mae": mae}, **val_rows)
    assert len(shapes) == 2
    assert np.array_equal(shapes[0], y[:9])
    (report,) = epochs("3-4-1", X, y, epochs=1)
    assert report.predictions() is None


def test_a_callback_sees_every_quantile(numbers):
    X, y = numbers
    model_rows = {"X": X, "y": y, "X_val": X[:9], "y_val": y[:9], "epochs": 1}
    (report,) = epochs("3-4-2", loss="quantile:0.1,0.9", **model_rows)
    rows = report.predictions()
    assert rows.y.shape == (9,)
    assert rows.prediction.shape == report.model().predict(X[:9]).shape == (9, 2)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([mae], "metrics must be a dict"),
        ({"loss": mae}, "must not be called 'loss'"),
        ({3: mae}, "a metric's name must be a text; got 3"),
        ({"": mae}, "a metric's name must be a text; got ''"),
        ({"mae": lambda y: 0.0}, r"metric 'mae' must be a function \(y, prediction\)"),
        ({"mae": lambda y, p: 1 / 0}, "metric 'mae' failed: ZeroDivisionError: division by zero"),
        ({"mae": "mae"}, "metric 'mae' must be a function"),
        ({"mae": lambda y, prediction: "good"}, "metric 'mae' must return a number; got 'good'"),
        ({"brier": brier}, "metric 'brier' asks for proba, but y holds numbers"),
    ],
)
def test_an_invalid_metric_raises(metrics, message, numbers):
    with pytest.raises(ValueError, match=message):
        train("3-4-1", *numbers, epochs=1, metrics=metrics)


def test_a_metric_or_a_callback_that_writes_into_y_changes_nothing(numbers):
    X, y = numbers
    before, expected = y.copy(), train("3-4-1", X, y, epochs=3)

    def spoil(y, prediction):
        y[...] = 0
        return 0.0

    def look(report):
        report.predictions().y[...] = 0

    spoiled = train("3-4-1", X, y, epochs=3, metrics={"zero": spoil})
    assert np.array_equal(spoiled.flat, expected.flat)
    train("3-4-1", X, y, X_val=X, y_val=y, epochs=2, callbacks=[look])
    assert np.array_equal(y, before)


def test_training_continues_from_a_models_weights(labels):
    """`train(model, ...)` is `train(spec, params=...)` with its labels."""
    X, y = labels
    first = train("3-4-1", X, y, loss="binary_cross_entropy", epochs=3)
    second = train(first, X, y, epochs=2)
    from_params = train(first.spec, X, y, params=first.params, epochs=2)
    assert np.array_equal(second.flat, from_params.flat)
    assert not np.array_equal(second.flat, first.flat)
    still = train(first, X, y, epochs=1, learning_rate=0.0, keep="last")
    assert np.array_equal(still.flat, first.flat)
    assert second.classes_.tolist() == ["no", "yes"]
    with pytest.raises(ValueError, match="which is not a class"):
        train(first, X, np.where(y == "no", "maybe", y))


def test_a_checkpoint_of_other_initial_weights_raises(numbers, tmp_path):
    X, y = numbers
    path = tmp_path / "run.ckpt"
    first, other = (train("3-4-1", X, y, epochs=1, seed=seed) for seed in (0, 1))
    half = train(first, X, y, epochs=2, checkpoint=path)
    whole = train(first, X, y, epochs=4)
    assert not np.array_equal(half.flat, whole.flat)
    with pytest.raises(ValueError, match="is of another training: params was 'SHA-256"):
        train(other, X, y, epochs=4, checkpoint=path, resume=True)
    resumed = train(first, X, y, epochs=4, checkpoint=path, resume=True)
    assert np.array_equal(resumed.flat, whole.flat)


def test_training_continues_from_a_populations_weights(numbers):
    X, y = numbers
    first = train("3-4-1", X, y, epochs=2, members=3)
    assert train(first, X, y, epochs=1).members == 3
    with pytest.raises(ValueError, match="members is 2; the model has 3"):
        train(first, X, y, members=2)
    with pytest.raises(ValueError, match="initializer would be overlooked"):
        train(first, X, y, initializer="zeros")


def test_a_model_stands_for_its_network(numbers):
    from xpmlp import gradcheck, ledger

    model = train("3-4-1", *numbers, epochs=1)
    assert str(ledger(model)) == str(ledger(model.spec))
    assert gradcheck(model).passed


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "one tuple of blocks for each layer of network 3-4-1"),
        ([(np.ones((3, 4)), np.ones((1, 4))), (np.ones((4, 1)),)], "has 3 blocks"),
        ([(np.ones((3, 5)), np.ones((1, 4))), (np.ones((4, 1)), np.ones((1, 1)))], r"\(3, 5\)"),
        (
            [(np.ones((3, 4)), np.ones(4)), (np.ones((4, 1)), np.ones((1, 1)))],
            r"params, block 1, is \(4,\) but must be \(1, 4\)",
        ),
        ([(np.full((3, 4), np.nan), np.ones((1, 4))), (np.ones((4, 1)), np.ones((1, 1)))], "NaN"),
    ],
)
def test_mismatched_params_raise(params, message, numbers):
    with pytest.raises(ValueError, match=message):
        train("3-4-1", *numbers, params=params)


def test_activation_and_dropout_may_be_arguments(numbers):
    from xpmlp import Spec, gradcheck, ledger

    X, y = numbers
    from_arguments = train("3-4-1", X, y, activation="tanh", dropout=0.2, epochs=2)
    from_spec = train(Spec.parse("3-4-1", activation="tanh", dropout=0.2), X, y, epochs=2)
    assert np.array_equal(from_arguments.flat, from_spec.flat)
    assert "a1 = tanh(z1)" in str(ledger("3-4-1", activation="tanh"))
    assert "tanh" in gradcheck("3-4-1", activation="tanh").network


def test_a_metric_cannot_take_the_name_of_a_reports_field():
    assert {entry.name for entry in fields(Report)} == set(RESERVED)
