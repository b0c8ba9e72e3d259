"""Callbacks: functions of a report that may end training."""

from inspect import signature

import numpy as np
import pytest

from xpmlp import epochs, train
from xpmlp.devices.namespace import to_host
from xpmlp.training.callbacks import ProgressBar, early_stopping, plateau, stop_at

EXACT = 1e-12  # relative: one product of two floats


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(30, 2))
    return X, np.sin(X).sum(axis=1)


@pytest.fixture
def worsening(rows):
    """A held-out set that asks for the opposite, so that the first epoch is its best."""
    X, y = rows
    return {"X": X, "y": y, "X_val": X, "y_val": -y, "learning_rate": 0.01, "initializer": "zeros"}


def flat(model):
    return to_host(model.flat)


def trained_epochs(model):
    return len(model.history["loss"])


@pytest.mark.parametrize("truth", [True, np.True_, np.array(True), 1])
def test_returning_true_stops(truth, rows):
    model = train("2-4-1", *rows, callbacks=[lambda report: truth if report.epoch == 3 else None])
    assert trained_epochs(model) == 3


@pytest.mark.parametrize("falsehood", [None, False, np.False_, 0, np.array(False)])
def test_returning_a_falsy_value_continues(falsehood, rows):
    model = train("2-4-1", *rows, epochs=4, callbacks=[lambda report: falsehood])
    assert trained_epochs(model) == 4
    assert (flat(model) == flat(train("2-4-1", *rows, epochs=4))).all()


@pytest.mark.parametrize("result", [0.5, 2, -1, [0.5, 1.0], "yes", {}])
def test_a_return_value_that_is_not_boolean_raises(result, rows):
    """A callback that returns its loss must not end training or halve the learning rate."""
    with pytest.raises(ValueError, match=r"^what a callback returns must be "):
        train("2-4-1", *rows, epochs=4, members=2, callbacks=[lambda report: result])


@pytest.mark.parametrize("result", [[False, True], (False, True), np.array([False, True])])
def test_a_boolean_per_member_stops_those_members(result, rows):
    model = train(
        "2-4-1", *rows, members=2, epochs=5,
        callbacks=[lambda report: result if report.epoch == 2 else None],
    )  # fmt: skip
    assert trained_epochs(model) == 5
    rates = np.array(model.history["learning_rate"])
    assert (rates[:, 0] > 0).all()
    assert (rates[:2, 1] > 0).all()
    assert (rates[2:, 1] == 0).all()
    two = train("2-4-1", *rows, seed=1, epochs=2)
    assert np.allclose(flat(model)[1], flat(two), rtol=EXACT, atol=EXACT)


def test_training_ends_when_all_members_are_stopped(rows):
    model = train(
        "2-4-1", *rows, members=2, epochs=9,
        callbacks=[lambda report: np.array([report.epoch >= 2, report.epoch >= 4])],
    )  # fmt: skip
    assert trained_epochs(model) == 4


def test_a_callback_without_a_list_raises(rows):
    with pytest.raises((TypeError, ValueError), match="callbacks"):
        train("2-4-1", *rows, epochs=1, callbacks=lambda report: True)


def test_fields_of_reports(rows):
    X, y = rows
    reports = []
    train("2-4-1", X, y, X_val=X, y_val=y, epochs=3, batch_size=8, callbacks=[reports.append])
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert [report.step for report in reports] == [4, 8, 12]
    assert {report.epochs for report in reports} == {3}
    for report in reports:
        for name in ("loss", "learning_rate", "grad_norm", "val_loss", "val_score", "seconds"):
            value = getattr(report, name)
            assert isinstance(value, float)
            assert report.history[name][report.epoch - 1] == value


def test_reports_of_a_population_hold_one_number_per_member(rows):
    X, y = rows
    for report in epochs("2-4-1", X, y, X_val=X, y_val=y, epochs=2, members=3):
        for name in ("loss", "learning_rate", "grad_norm", "val_loss", "val_score", "best_epoch"):
            assert getattr(report, name).shape == (3,)


def test_reports_of_a_population_do_not_change_later(rows):
    numbers = [
        (
            report,
            {name: getattr(report, name).copy() for name in ("loss", "learning_rate", "grad_norm")},
        )
        for report in epochs("2-4-1", *rows, epochs=5, members=2)
    ]
    for report, then in numbers:
        for name, value in then.items():
            assert (getattr(report, name) == value).all()


def test_a_reports_model_does_not_change_later(rows):
    X, y = rows
    models = []
    for report in epochs("2-4-1", X, y, epochs=6, learning_rate=0.05):
        model = report.model()
        models.append((model, flat(model).copy(), model.predict(X), len(model.history["loss"])))
    for i, (model, then, predicted, length) in enumerate(models, 1):
        assert (flat(model) == then).all()
        assert (model.predict(X) == predicted).all()
        assert len(model.history["loss"]) == length == i
    assert len({model.flat.tobytes() for model, *_ in models}) == 6


def test_modifying_a_reports_model_does_not_change_training(rows):
    def vandal(report):
        report.model().flat[...] = np.nan

    expected = train("2-4-1", *rows, epochs=4)
    assert (flat(train("2-4-1", *rows, epochs=4, callbacks=[vandal])) == flat(expected)).all()


def test_exceptions_in_callbacks_propagate_and_close_the_others(rows):
    class Closing:
        closed = 0

        def __call__(self, report):
            return None

        def close(self):
            self.closed += 1

    closing = Closing()

    def broken(report):
        raise LookupError(f"epoch {report.epoch}")

    with pytest.raises(LookupError, match="epoch 1"):
        train("2-4-1", *rows, callbacks=[closing, broken])
    assert closing.closed == 1
    train("2-4-1", *rows, epochs=2, callbacks=[closing])
    assert closing.closed == 2


def test_every_callback_is_called_even_if_the_first_stops(rows):
    calls = []
    train("2-4-1", *rows, callbacks=[lambda report: True, calls.append])
    assert len(calls) == 1


# built-in callbacks


@pytest.mark.parametrize("patience", [1, 4])
def test_early_stopping_equals_patience(patience, worsening):
    stopped = train("2-1", **worsening, callbacks=[early_stopping(patience)])
    assert trained_epochs(stopped) == 1 + patience
    assert (flat(stopped) == flat(train("2-1", **worsening, patience=patience))).all()


def test_early_stopping_counts_from_the_latest_best(rows):
    X, y = rows
    model = train(
        "2-8-1", X, y, X_val=X[:10], y_val=y[:10], learning_rate=0.2, epochs=200,
        callbacks=[early_stopping(5)],
    )  # fmt: skip
    losses = model.history["val_loss"]
    assert len(losses) == np.argmin(losses) + 1 + 5
    for epoch in range(6, len(losses)):  # and not earlier: some epoch of the last 5 was a new best
        assert min(losses[:epoch]) in losses[epoch - 5 : epoch]


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [
        ("loss", 0.1, lambda entry: entry <= 0.1),
        ("val_loss", 0.1, lambda entry: entry <= 0.1),
        ("val_score", 0.8, lambda entry: entry >= 0.8),
    ],
)
def test_stop_at_stops_at_the_first_epoch_beyond_the_value(name, value, reached, rows):
    X, y = rows
    model = train(
        "2-8-1",
        X,
        y,
        X_val=X,
        y_val=y,
        learning_rate=0.02,
        epochs=300,
        callbacks=[stop_at(name, value)],
    )
    reached_epochs = [reached(entry) for entry in model.history[name]]
    assert reached_epochs.index(True) == len(reached_epochs) - 1 < 299


def test_plateau_reduces_the_rate_after_every_patience(worsening):
    model = train("2-1", **worsening, epochs=8, callbacks=[plateau(0.5, patience=2)])
    expected = [0.01 * factor for factor in (1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125)]
    assert model.history["learning_rate"] == pytest.approx(expected, rel=EXACT)


def test_plateau_keeps_the_rate_while_training_improves(rows):
    X, y = rows
    model = train(
        "2-1", X, y, X_val=X, y_val=y, optimizer="sgd", learning_rate=0.01, batch_size=30,
        epochs=20,
        callbacks=[plateau(patience=1)],
    )  # fmt: skip
    assert np.argmin(model.history["val_loss"]) == 19
    assert set(model.history["learning_rate"]) == {0.01}


def test_plateau_acts_per_member(worsening):
    arguments = worsening | {"learning_rate": [0.01, 0.0], "members": 2}
    model = train("2-1", **arguments, epochs=4, callbacks=[plateau(0.5, patience=2)])
    assert [entry[0] for entry in model.history["learning_rate"]] == pytest.approx(
        [0.01, 0.01, 0.01, 0.005], rel=EXACT
    )


@pytest.mark.parametrize("factor", [0, 1, 1.5, -0.1, float("nan")])
def test_plateau_rejects_a_factor_that_does_not_reduce(factor):
    with pytest.raises(ValueError, match="factor"):
        plateau(factor)


@pytest.mark.parametrize("members", [None, 2])
def test_the_progress_bar_counts_epochs_and_shows_the_loss(members, rows, tmp_path):
    pytest.importorskip("tqdm")
    X, y = rows
    with open(tmp_path / "bar.txt", "w+") as file:
        train(
            "2-4-1", X, y, X_val=X, y_val=y, epochs=3, members=members,
            callbacks=[ProgressBar(file=file, mininterval=0)],
        )  # fmt: skip
        file.seek(0)
        text = file.read()
    assert "3/3" in text
    assert "val_loss=" in text


def test_a_progress_bar_is_shown_for_every_training(rows, tmp_path):
    pytest.importorskip("tqdm")
    with open(tmp_path / "bar.txt", "w+") as file:
        bar = ProgressBar(file=file, mininterval=0)
        for epochs in (3, 4):
            train("2-4-1", *rows, epochs=epochs, callbacks=[bar])
        file.seek(0)
        text = file.read()
    assert "3/3" in text
    assert "4/4" in text


def test_a_class_is_not_a_callback(rows):
    with pytest.raises(ValueError, match=r"must be functions of a report; got <class .*Progress"):
        train("2-4-1", *rows, callbacks=[ProgressBar])


def test_plateau_respects_the_minimum_rate():
    X, y = np.zeros((4, 1)), np.ones(4)  # the bias leaves 0 for 1, away from the held-out -1
    X[0] = 1e-9  # rows that are all alike bring a warning
    slower = plateau(factor=0.1, patience=1, min_learning_rate=1e-5)
    model = train("1-1", X, y, epochs=60, callbacks=[slower], X_val=X, y_val=-y)
    assert min(model.history["learning_rate"]) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("name", "message"), [("accuracy", "goes by loss"), ("val_score", "X_val")]
)
def test_stop_at_names_the_known_monitors(name, message):
    with pytest.raises(ValueError, match=message):
        train("1-1", [[1.0], [2.0]], [1.0, 2.0], callbacks=[stop_at(name, 0.9)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "run.ckpt"}, "an argument of train"),
        ({"resume": True}, "an argument of train"),
        ({"callbacks": []}, "the loop over reports itself"),
        ({"lr": 0.1}, "learning_rate"),
    ],
)
def test_epochs_rejects_an_argument_of_train(options, message):
    (name,) = options
    with pytest.raises(TypeError, match=f"no argument '{name}'; here it is {message}"):
        epochs("1-1", [[1.0], [2.0]], [1.0, 2.0], **options)


def test_epochs_takes_what_train_takes():
    def parameters(function):
        return {(p.name, p.kind, p.default) for p in signature(function).parameters.values()}

    more = {entry[0] for entry in parameters(train) - parameters(epochs)}
    assert more == {"callbacks", "checkpoint", "resume"}
    assert parameters(epochs) < parameters(train)


@pytest.mark.parametrize(
    "bad", [-1.0, np.nan, np.inf, [1.0, -0.5], "fast", None, [1.0] * 3, [[1.0]]]
)
def test_an_invalid_learning_rate_factor_raises(bad, rows):
    """A population of two takes two factors."""
    call = {
        "callbacks": [lambda report: report.scale_learning_rate(bad)],
        "epochs": 2,
        "members": 2,
    }
    with pytest.raises(ValueError, match=r"^factor must be "):
        train("2-4-1", *rows, **call)


@pytest.mark.parametrize("bad", ["all", None, [True] * 3, object()])
def test_stop_takes_one_boolean_or_one_per_member(bad, rows):
    call = {"callbacks": [lambda report: report.stop(bad)], "epochs": 2, "members": 2}
    with pytest.raises(ValueError, match=r"^members must be "):
        train("2-4-1", *rows, **call)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: plateau(patience=0), "patience must be at least 1; got 0"),
    (lambda: plateau(patience="x"), "patience must be a whole number"),
    (lambda: plateau(factor="x"), "factor must be a finite number"),
    (lambda: plateau(factor=1.0), r"factor must be in \(0, 1\)"),
    (lambda: plateau(min_learning_rate=-1), "min_learning_rate must be at least 0"),
    (lambda: plateau(min_learning_rate=np.nan), "min_learning_rate must be a finite number"),
    (lambda: stop_at("loss", "low"), "value must be a finite number; got 'low'"),
    (lambda: stop_at("loss", np.nan), "value must be a finite number; got nan"),
    (lambda: stop_at("loss", True), "value must be a finite number; got True"),
    (lambda: early_stopping(0), "patience must be at least 1"),
])  # fmt: skip
def test_invalid_callback_arguments_raise_at_creation(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
