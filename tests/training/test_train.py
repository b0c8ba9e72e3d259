"""`train` and `epochs`: what they learn, equally in every namespace."""

import numpy as np
import pytest

import xpmlp
from xpmlp import DivergedError, Spec, epochs, train
from xpmlp.activations import ACTIVATIONS
from xpmlp.devices.namespace import place_of, to_host
from xpmlp.initializers import INITIALIZERS
from xpmlp.losses import LOSSES
from xpmlp.optimizers import OPTIMIZERS, Optimizer
from xpmlp.schedules import SCHEDULES

PARITY = 1e-9  # relative: sums of 200 float64 steps in another order, far above their rounding
EXACT = 1e-12  # relative: the same few float64 operations, associated differently


def regression(rng, count=40, n_in=3):
    X = rng.normal(size=(count, n_in))
    return X, np.sin(X).sum(axis=1)


def at(place, value):
    return place.xp.asarray(value, device=place.device)


def flat(model):
    return to_host(model.flat)


def params(model):
    return [(to_host(w), to_host(b)) for w, b in model.params]


# Learning


def test_linear_training_matches_least_squares(rng):
    X = rng.normal(size=(100, 3))
    y = X @ [1.0, -2.0, 0.5] + 3 + 0.1 * rng.normal(size=100)
    model = train("3-1", X, y, optimizer="sgd", learning_rate=0.3, epochs=200, batch_size=100)
    ones = np.column_stack([X, np.ones(100)])
    best = np.linalg.lstsq(ones, y, rcond=None)[0]
    (weights, bias) = params(model)[0]
    assert np.allclose(np.append(weights, bias), best, rtol=1e-8)  # 200 steps have a smaller error


@pytest.mark.parametrize("seed", range(3))
def test_learns_xor(seed):
    X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    spec = Spec.parse("2-16-1", activation="tanh", loss="binary_cross_entropy")
    model = train(spec, X, y, learning_rate=0.05, epochs=200, seed=seed)
    assert model.predict(X).tolist() == y
    assert model.history["loss"][-1] < 0.1 * model.history["loss"][0]


def test_learns_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    val_rows = np.arange(len(X)) % 5 == 0
    model = train(
        "64-64-10", X[~val_rows], y[~val_rows], loss="cross_entropy", learning_rate=3e-3, epochs=15
    )
    assert (model.predict(X[val_rows]) == y[val_rows]).mean() > 0.96


# Seeds


def test_the_same_seed_gives_the_same_bits_and_another_does_not(rng):
    X, y = regression(rng)
    spec = Spec.parse("3-8-1", dropout=0.2)

    def trained(seed):
        return flat(train(spec, X, y, epochs=3, seed=seed))

    assert trained(5).tobytes() == trained(5).tobytes()
    assert not np.allclose(trained(5), trained(6), atol=1e-3)


def test_training_does_not_use_numpys_global_generator(rng):
    X, y = regression(rng)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    train(Spec.parse("3-8-1", dropout=0.2), X, y, epochs=1)
    assert (np.random.get_state()[1] == before).all()


def test_training_does_not_modify_the_callers_arrays(rng):
    X, y = regression(rng)
    weight = rng.uniform(size=len(X))
    copies = X.copy(), y.copy(), weight.copy()
    train("3-8-1", X, y, epochs=2, sample_weight=weight, X_val=X, y_val=y)
    for now, before in zip((X, y, weight), copies, strict=True):
        assert (now == before).all()


# Namespaces

SETUPS = {
    "linear, sgd": ("3-2", {"optimizer": "sgd", "learning_rate": 0.05}),
    "one hidden layer, adam": ("3-7-2", {"learning_rate": 0.01}),
    "deep, tanh, momentum, huber, clipped": (
        Spec.parse("3-6-5-4-2", activation="tanh", loss="huber:0.5"),
        {"optimizer": "momentum", "learning_rate": 0.01, "clip": 0.5},
    ),
    "dropout, gelu, adamw, schedule": (
        Spec.parse("3-8-8-2", activation="gelu", dropout=0.25),
        {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "warmup:2 * cosine"},
    ),
    "quantiles, rmsprop, penalties": (
        Spec.parse("3-6-3", activation="silu", loss="quantile:0.1,0.5,0.9"),
        {"optimizer": "rmsprop", "learning_rate": 0.01, "l1": 1e-3, "l2": 1e-2},
    ),
    "population, weight decay": (
        Spec.parse("3-5-2", dropout=0.1),
        {"members": 2, "learning_rate": [0.01, 0.003], "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("name", SETUPS)
def test_training_matches_numpy_on_every_namespace(place, name, rng):
    spec, settings = SETUPS[name]
    X = rng.normal(size=(26, 3))
    y = np.sin(X[:, :2])
    if name.startswith("quantiles"):
        y = y[:, :1]
    weight = rng.uniform(0.5, 2, size=26)
    settings = settings | {"epochs": 50, "batch_size": 8}  # 4 steps an epoch, the last one ragged
    expected = train(
        spec, X, y, sample_weight=weight, X_val=X[:9], y_val=y[:9], keep="last", **settings
    )
    actual = train(
        spec,
        at(place, X),
        at(place, y),
        sample_weight=at(place, weight),
        X_val=at(place, X[:9]),
        y_val=at(place, y[:9]),
        keep="last",
        **settings,
    )
    difference = np.abs(flat(actual) - flat(expected)).max()
    assert difference <= PARITY * np.abs(flat(expected)).max()
    for series in ("loss", "val_loss", "val_score", "learning_rate", "grad_norm"):
        assert np.allclose(
            np.array(actual.history[series]), np.array(expected.history[series]), rtol=1e-7
        ), series  # looser: a late gradient is a difference of nearly equal numbers


def test_labels_of_every_namespace_train_as_numpys(place, rng):
    X = rng.normal(size=(20, 3))
    y = np.arange(20) % 3
    expected = train("3-6-3", X, y, loss="cross_entropy", epochs=5, class_weight="balanced")
    rows = at(place, X)
    actual = train(
        "3-6-3", rows, at(place, y), loss="cross_entropy", epochs=5, class_weight="balanced"
    )
    assert np.allclose(flat(actual), flat(expected), rtol=PARITY, atol=PARITY)
    predicted = actual.predict(rows)
    assert place_of(predicted).xp.__name__ == place.xp.__name__
    assert (to_host(predicted) == expected.predict(X)).all()


def test_a_one_dimensional_y_works_in_every_namespace(place, rng):
    X, y = regression(rng)
    rows = at(place, X)
    model = train("3-4-1", rows, at(place, y), epochs=2)
    predicted = model.predict(rows)
    assert tuple(predicted.shape) == (40,)
    expected = train("3-4-1", X, y, epochs=2).predict(X)
    assert np.allclose(to_host(predicted), expected, rtol=PARITY)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_have_the_namespace_and_dtype_of_x(place, dtype, rng):
    X, y = regression(rng)
    rows = at(place, X.astype(dtype))
    model = train("3-4-1", rows, at(place, y[:, None].astype(dtype)), epochs=2)
    predicted = model.predict(rows)
    assert predicted.dtype == getattr(place.xp, dtype)
    assert place_of(predicted) == place_of(rows)
    assert model.flat.dtype == getattr(place.xp, dtype)


def test_predictions_follow_the_namespace_of_x_not_of_the_model(place, rng):
    X, y = regression(rng)
    model = train("3-4-1", X, y[:, None], epochs=2)
    predicted = model.predict(at(place, X))
    assert place_of(predicted) == place_of(at(place, X))
    assert np.allclose(to_host(predicted), model.predict(X), rtol=PARITY)
    device_model = train("3-4-1", at(place, X), at(place, y[:, None]), epochs=2)
    assert isinstance(device_model.predict(X), np.ndarray)


def test_a_tensor_with_requires_grad_is_treated_as_data(rng):
    torch = pytest.importorskip("torch")
    X, y = regression(rng)
    model = train("3-4-1", torch.asarray(X).requires_grad_(), y, epochs=1)
    assert np.allclose(flat(model), flat(train("3-4-1", X, y, epochs=1)), rtol=PARITY)


def test_bfloat16_tensors_train_in_float32(rng):
    torch = pytest.importorskip("torch")
    X, y = regression(rng)
    half = torch.asarray(X).to(torch.bfloat16), torch.asarray(y).to(torch.bfloat16)
    model = train("3-4-1", *half, epochs=1)
    assert model.flat.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_uses_the_given_dtype(dtype, rng):
    X, y = regression(rng)
    model = train("3-4-1", X.astype(np.float32), y, epochs=1, dtype=dtype)
    assert model.predict(X).dtype == dtype


# minibatches


def naive_sgd(X, y, weights, bias, rate, batch, passes):
    """Linear regression by plain loops over unshuffled rows."""
    for _ in range(passes):
        for start in range(0, len(X), batch):
            x, target = X[start : start + batch], y[start : start + batch]
            error = x @ weights + bias - target
            weights = weights - rate * x.T @ error / len(x)
            bias = bias - rate * error.mean(axis=0)
    return weights, bias


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 9, 10])
def test_batches_of_any_size_match_a_naive_loop(batch, rng):
    X, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    start = np.vstack([np.zeros((3, 2))])
    model = train(
        "3-2",
        X,
        y,
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=batch,
        epochs=4,
        shuffle=False,
        initializer="zeros",
    )
    weights, bias = naive_sgd(X, y, start, np.zeros((1, 2)), 0.1, batch, 4)
    assert np.allclose(params(model)[0][0], weights, rtol=EXACT, atol=EXACT)
    assert np.allclose(params(model)[0][1], bias, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(("batch", "steps"), [(1, 10), (3, 4), (5, 2), (9, 2), (10, 1)])
def test_an_epoch_has_the_fewest_batches_for_all_rows(batch, steps, rng):
    X, y = regression(rng, 10)
    assert [r.step for r in epochs("3-1", X, y, epochs=2, batch_size=batch)] == [steps, 2 * steps]


def test_a_batch_larger_than_the_data_takes_all_rows(rng):
    X, y = regression(rng, 10)
    all_rows = train("3-4-1", X, y, epochs=3, batch_size=10)
    with pytest.warns(UserWarning, match="batch_size is larger than the 10 rows of X"):
        clipped = train("3-4-1", X, y, epochs=3, batch_size=10**9)
    assert flat(clipped).tobytes() == flat(all_rows).tobytes()


def test_a_single_row_trains():
    with pytest.warns(UserWarning, match="X has one row"):
        model = train("2-3-1", [[1.0, 2.0]], [3.0], epochs=3)
    assert np.isfinite(flat(model)).all()
    assert model.history["loss"][-1] < model.history["loss"][0]


# History, early stopping and the best weights


def test_history_has_every_number_of_every_epoch(rng):
    X, y = regression(rng)
    model = train("3-4-1", X, y, epochs=5, X_val=X[:10], y_val=y[:10])
    for name in ("loss", "learning_rate", "grad_norm", "val_loss", "val_score", "seconds"):
        assert len(model.history[name]) == 5, name
        assert all(isinstance(entry, float) and np.isfinite(entry) for entry in model.history[name])
    assert model.history["seconds"] == sorted(model.history["seconds"])
    without_val = train("3-4-1", X, y, epochs=5)
    assert without_val.history["val_loss"] == without_val.history["val_score"] == [None] * 5
    assert len(without_val.history["loss"]) == 5


def test_history_loss_is_the_mean_during_the_epoch(rng):
    X, y = regression(rng, 10)
    model = train(
        "3-1",
        X,
        y,
        batch_size=10,
        epochs=2,
        optimizer="sgd",
        learning_rate=0.1,
        initializer="zeros",
    )
    assert model.history["loss"][0] == pytest.approx(0.5 * (y**2).mean(), rel=EXACT)
    # with a learning rate of 0, the mean over ragged batches is the mean over all rows
    still = train(
        "3-1", X, y, batch_size=4, epochs=2, optimizer="sgd", learning_rate=0, initializer="zeros"
    )
    assert still.history["loss"] == pytest.approx([0.5 * (y**2).mean()] * 2, rel=EXACT)


def worsening(rng):
    """A held-out set that asks for the opposite, so that the first epoch is its best."""
    X, y = regression(rng)
    return {"X": X, "y": y, "X_val": X, "y_val": -y}


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_stops_after_the_given_epochs_without_improvement(patience, rng):
    model = train(
        "3-1", **worsening(rng), patience=patience, learning_rate=0.01, initializer="zeros"
    )
    assert np.argmin(model.history["val_loss"]) == 0
    assert len(model.history["loss"]) == 1 + patience


def test_min_delta_ignores_small_improvements(rng):
    X, y = regression(rng)
    model = train("3-4-1", X, y, X_val=X, y_val=y, patience=2, min_delta=1e9)
    assert len(model.history["loss"]) == 3


def test_monitor_selects_the_criterion_of_the_best_epoch(rng):
    X, y = rng.normal(size=(30, 2)), np.arange(30) % 2
    for monitor, best in (("val_loss", np.argmin), ("val_score", np.argmax)):
        model = train(
            "2-8-1",
            X,
            y,
            loss="binary_cross_entropy",
            X_val=X[:15],
            y_val=1 - y[:15],
            epochs=20,
            learning_rate=0.05,
            monitor=monitor,
        )
        assert model.history["best_epoch"][-1] == best(model.history[monitor]) + 1


@pytest.mark.parametrize("held_out", [True, False])
def test_keep_best_returns_the_best_weights_by_value(held_out, rng):
    X, y = regression(rng)
    val_rows = {"X_val": X[:20], "y_val": y[:20]} if held_out else {}
    weights = {}

    def leap(xp, now):  # steps so large at the end that the last epoch is not the best one
        return 1 + 200 * xp.astype(now.epoch >= 20, now.epoch.dtype)

    for keep in ("best", "last"):
        model = train(
            "3-8-1", X, y, learning_rate=0.005, epochs=25, schedule=leap, keep=keep, **val_rows
        )
        weights[keep] = model, X[:20] if held_out else X, y[:20] if held_out else y

    def loss_of(model, X, y):
        return 0.5 * ((model.predict(X) - y) ** 2).mean()

    last = loss_of(*weights["last"])
    best = loss_of(*weights["best"])
    assert best < last
    if held_out:
        history = weights["best"][0].history["val_loss"]
        assert best == pytest.approx(min(history), rel=EXACT)
        assert last == pytest.approx(history[-1], rel=EXACT)
        assert np.argmin(history) != len(history) - 1


def test_the_best_weights_are_kept_by_default_only_with_validation_rows(rng):
    def model_and_report(**arguments):
        return flat(train("3-8-1", **arguments, learning_rate=0.3, epochs=10))

    held_out = worsening(rng)
    assert (model_and_report(**held_out) == model_and_report(**held_out, keep="best")).all()
    assert (model_and_report(**held_out) != model_and_report(**held_out, keep="last")).any()
    training_rows = {"X": held_out["X"], "y": held_out["y"]}
    assert (
        model_and_report(**training_rows) == model_and_report(**training_rows, keep="last")
    ).all()


# The generator


def test_iterating_over_epochs_equals_train(rng):
    X, y = regression(rng)
    arguments = {
        "epochs": 6,
        "learning_rate": 0.01,
        "X_val": X[:9],
        "y_val": y[:9],
        "patience": None,
    }
    reports = list(epochs("3-5-1", X, y, **arguments))
    model = train("3-5-1", X, y, **arguments)
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    assert flat(reports[-1].model()).tobytes() == flat(model).tobytes()
    for name in ("loss", "val_loss", "val_score", "learning_rate", "grad_norm"):
        assert [getattr(r, name) for r in reports] == model.history[name]


def test_a_report_can_end_training(rng):
    X, y = regression(rng)
    epoch_numbers = []
    for report in epochs("3-5-1", X, y, epochs=50):
        epoch_numbers.append(report.epoch)
        if report.epoch == 4:
            report.stop()
    assert epoch_numbers == [1, 2, 3, 4]


# Schedules


@pytest.mark.parametrize("members", [None, 2])
def test_a_negative_schedule_raises(members, rng):
    """Training would maximize the loss."""
    X = rng.normal(size=(16, 3))
    settings = {
        "batch_size": 8,
        "epochs": 9,
        "members": members,
        "schedule": lambda xp, now: 2 - now.epoch,
    }
    with pytest.raises(
        ValueError, match=r"^schedule gives a negative learning rate, -0\.05, after epoch 3$"
    ):
        train("3-1", X, X[:, 0], learning_rate=0.1, **settings)


def test_a_schedule_scales_the_learning_rate(rng):
    X, y = regression(rng, 8)

    def rates(schedule):
        return train(
            "3-1", X, y, learning_rate=0.2, batch_size=8, epochs=4, schedule=schedule
        ).history["learning_rate"]

    assert rates(None) == pytest.approx([0.2] * 4, rel=EXACT)
    assert rates("step:1,0.5") == pytest.approx([0.2, 0.1, 0.05, 0.025], rel=EXACT)
    cosine = [0.1 * (1 + np.cos(np.pi * i / 4)) for i in range(4)]
    assert rates("cosine") == pytest.approx(cosine, rel=EXACT)
    halved = rates(lambda xp, now: 1 / (1 + now.epoch))
    assert halved == pytest.approx([0.2 / (1 + i) for i in range(4)], rel=EXACT)
    warm = [0.2 * c * w / 0.2 for c, w in zip(cosine, (0.1, 0.55, 1, 1), strict=True)]
    assert rates("warmup:2 * cosine") == pytest.approx(warm, rel=EXACT)


def test_history_shows_the_learning_rate_that_is_used(rng):
    X, y = regression(rng, 8)
    model = train(
        "3-1", X, y, learning_rate=0.2, batch_size=8, epochs=3, schedule="exponential:0.5",
        optimizer="sgd",
        initializer="zeros", shuffle=False, clip=1e-3,
    )  # fmt: skip
    moved = np.linalg.norm(flat(model))
    # steps are clipped to one length in almost one direction: their lengths add up
    assert moved == pytest.approx(1e-3 * sum(model.history["learning_rate"]), rel=1e-4)


# Penalties, weight decay and clipping


def naive_linear(X, y, steps, rate, *, decay=0.0, l1=0.0, l2=0.0, limit=None, initial=None):
    """Full-batch sgd on "n-m" by hand; returns weights, bias and the last gradient's norm."""
    weights, bias = initial.copy(), np.zeros((1, y.shape[1]))
    for _ in range(steps):
        error = (X @ weights + bias - y) / len(X)
        dw = X.T @ error + l2 * weights + l1 * np.sign(weights)
        db = error.sum(axis=0, keepdims=True)
        norm = np.sqrt((dw**2).sum() + (db**2).sum())
        if limit is not None and norm > limit:
            dw, db = dw * limit / norm, db * limit / norm
        weights = weights - rate * decay * weights - rate * dw
        bias = bias - rate * db
    return weights, bias, norm


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, {}),
        ({"weight_decay": 0.7}, {"decay": 0.7}),
        ({"l1": 0.3}, {"l1": 0.3}),
        ({"l2": 0.9}, {"l2": 0.9}),
        ({"clip": 0.2}, {"limit": 0.2}),
        ({"clip": 1e9}, {}),
        (
            {"weight_decay": 0.1, "l1": 0.2, "l2": 0.3, "clip": 0.5},
            {"decay": 0.1, "l1": 0.2, "l2": 0.3, "limit": 0.5},
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_decay_penalties_and_clipping_match_a_naive_loop(settings, reference, rng):
    # targets far from 0 move the biases, so that a penalty on them would be detected
    X, y = rng.normal(size=(12, 3)), 5 + rng.normal(size=(12, 2))
    start = rng.normal(size=(3, 2))
    model = train(
        "3-2", X, y, optimizer="sgd", learning_rate=0.1, epochs=6, batch_size=12,
        initializer=lambda generator, n_in, n_out: start, **settings,
    )  # fmt: skip
    weights, bias, norm = naive_linear(X, y, 6, 0.1, initial=start, **reference)
    assert np.allclose(params(model)[0][0], weights, rtol=EXACT, atol=EXACT)
    assert np.allclose(params(model)[0][1], bias, rtol=EXACT, atol=EXACT)
    assert model.history["grad_norm"][-1] == pytest.approx(norm, rel=EXACT)  # before clipping


def test_adamw_has_its_own_default_decay(rng):
    X, y = regression(rng)
    default = train("3-4-1", X, y, optimizer="adamw", epochs=3)
    coupled = train("3-4-1", X, y, optimizer="adam", weight_decay=0.01, epochs=3)
    none = train("3-4-1", X, y, optimizer="adamw", weight_decay=0, epochs=3)
    assert (flat(default) == flat(coupled)).all()
    assert (flat(none) == flat(train("3-4-1", X, y, epochs=3))).all()
    assert (flat(default) != flat(none)).any()


def test_weight_decay_in_optimizer_params_is_applied_or_rejected(rng):
    X, y = regression(rng)
    try:
        named = train(
            "3-4-1", X, y, optimizer="adamw", epochs=3, optimizer_params={"weight_decay": 0.5}
        )
    except ValueError as error:
        assert "weight_decay" in str(error)  # noqa: PT017 - either is right, ignoring it is not
        return
    assert (flat(named) == flat(train("3-4-1", X, y, weight_decay=0.5, epochs=3))).all()


def test_hyper_parameters_reach_the_rule(rng):
    X, y = regression(rng)
    default = train("3-4-1", X, y, optimizer="sgd", epochs=3, learning_rate=0.01)
    heavy = train(
        "3-4-1",
        X,
        y,
        optimizer="momentum",
        epochs=3,
        learning_rate=0.01,
        optimizer_params={"momentum": 0.0},
    )
    assert np.allclose(flat(default), flat(heavy), rtol=EXACT, atol=EXACT)


# User-defined functions


def custom_tanh(xp, z):
    a = xp.tanh(z)
    return a, 1 - a * a


def custom_squares(xp, score, target):
    e = score - target
    return xp.sum(0.5 * e * e, axis=-1), e


def custom_momentum(xp, h, t, theta, g, v):
    v = 0.9 * v - h.learning_rate * g
    return theta + v, v


def custom_decay(xp, now):
    return 0.95**now.epoch


def test_user_functions_train_as_the_table_entries(place, rng):
    X, y = regression(rng)
    X, y = at(place, X), at(place, y[:, None])
    custom = train(
        Spec.parse("3-6-1", activation=custom_tanh, loss=custom_squares), X, y,
        optimizer=custom_momentum, schedule=custom_decay, learning_rate=0.01, epochs=4,
        initializer=lambda generator, n_in, n_out: generator.normal(size=(n_in, n_out)),
    )  # fmt: skip
    named = train(
        Spec.parse("3-6-1", activation="tanh"), X, y,
        optimizer="momentum", schedule="exponential:0.95", learning_rate=0.01, epochs=4,
        initializer="normal:1",
    )  # fmt: skip
    assert np.allclose(flat(custom), flat(named), rtol=PARITY, atol=PARITY)


# Every name of the tables

WRITTEN = {"huber": "1.35", "quantile": "0.5"}


def finite(model):
    return np.isfinite(flat(model)).all() and np.isfinite(model.history["loss"]).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_activation_trains(name, dtype, rng):
    X, y = regression(rng)
    model = train(
        Spec.parse("3-8-1", activation=name), X, y, dtype=dtype, epochs=30, learning_rate=0.01
    )
    assert finite(model)
    assert model.history["loss"][-1] < model.history["loss"][0]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_loss_trains(name, dtype, rng):
    X, y = regression(rng)
    y = (y > 0).astype(int) if "entropy" in name or name == "poisson" else y
    n_out = 2 if name in ("cross_entropy", "gaussian") else 1
    model = train(f"3-8-{n_out}", X, y, loss=name, dtype=dtype, epochs=30, learning_rate=0.01)
    assert finite(model)
    assert model.history["loss"][-1] < model.history["loss"][0]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_optimizer_trains(name, dtype, rng):
    X, y = regression(rng)
    model = train("3-8-1", X, y, optimizer=name, dtype=dtype, epochs=30, learning_rate=0.01)
    assert finite(model)
    assert model.history["loss"][-1] < model.history["loss"][0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_trains(name, rng):
    X, y = regression(rng)
    model = train("3-8-1", X, y, schedule=name, epochs=30, learning_rate=0.01)
    assert finite(model)
    assert all(0 <= rate <= 0.01 * (1 + EXACT) for rate in model.history["learning_rate"])
    assert model.history["loss"][-1] < model.history["loss"][0]


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_trains(name, rng):
    X, y = regression(rng)
    model = train("3-8-1", X, y, initializer=name, epochs=30, learning_rate=0.01)
    assert finite(model)
    assert model.history["loss"][-1] < model.history["loss"][0]


# Divergence


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_huge_learning_rate_raises_with_a_finite_model(dtype, held_out, rng):
    X, y = regression(rng)
    val_rows = {"X_val": X, "y_val": y} if held_out else {}
    with pytest.raises(DivergedError, match="learning rate") as caught:
        train("3-16-16-1", X, y, learning_rate=1e10, optimizer="sgd", dtype=dtype, **val_rows)
    assert isinstance(caught.value, ValueError)
    assert np.isfinite(flat(caught.value.model)).all()
    assert caught.value.model.predict(X).shape == (40,)


def test_divergence_is_detected_in_every_namespace(place, rng):
    X, y = regression(rng)
    with pytest.raises(DivergedError) as caught:
        train("3-16-1", at(place, X), at(place, y[:, None]), learning_rate=1e10, optimizer="sgd")
    assert np.isfinite(flat(caught.value.model)).all()


def test_the_model_of_a_divergence_is_that_of_the_last_good_epoch(rng):
    X, y = regression(rng)

    def explode(xp, now):  # from the fourth epoch on
        return 1 + 1e200 * xp.astype(now.epoch >= 3, now.epoch.dtype)

    with pytest.raises(DivergedError) as caught:
        train("3-4-1", X, y, optimizer="sgd", learning_rate=0.01, schedule=explode)
    good = train("3-4-1", X, y, optimizer="sgd", learning_rate=0.01, epochs=3)
    assert (flat(caught.value.model) == flat(good)).all()
    assert "epoch 4" in str(caught.value)


def test_public_names():
    assert xpmlp.train is train
    assert xpmlp.epochs is epochs


# Validation of user-defined functions


def per_output(xp, score, target):
    return (score - target) ** 2 / 2, score - target


def one_delta(xp, score, target):
    return xp.sum((score - target) ** 2, axis=-1), xp.sum(score - target, axis=-1)


def alone(xp, h, t, theta, g):
    return theta - h.learning_rate * g


def misspelt(xp, h, t, theta, g, v):
    return theta.shap, v


def of_one(xp, h, t, theta, g, v):
    return theta[:1] - h.learning_rate * g[:1], v


def needs_mu(xp, h, t, theta, g, v):
    return theta - h.mu * g, v


def decays(xp, h, t, theta, g, v):
    return theta - h.weight_decay * theta, v


OF_VECTORS = Optimizer(lambda xp, h, t, theta, g: (theta,), 0, {}, "own", alone)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("3-4-2", {"loss": per_output}, r"loss per_output must give value.*\(2,\) here"),
        ("3-4-1", {"optimizer": alone}, r"alone must return the tuple \(theta, \*slots\)"),
        (
            "3-4-1",
            {"optimizer": needs_mu},
            r"uses h\.mu: give it with optimizer_params=\{'mu': \.\.\.\}",
        ),
        ("3-4-1", {"optimizer": decays}, r"uses h\.weight_decay: .* defaults of its Optimizer"),
        ("3-4-1", {"optimizer": decays, "weight_decay": 0.1}, r"defaults of its Optimizer"),
        ("3-4-1", {"optimizer": OF_VECTORS}, "own's matrix_rule must return the tuple"),
        ("3-4-1", {"optimizer": misspelt}, r"misspelt must be a rule .*has no attribute 'shap'"),
        ("3-4-1", {"optimizer": of_one}, r"of_one must give theta as an array \(4,\) here"),
        ("3-4-1", {"schedule": lambda xp, now: xp.ones((3,))}, r"must give a factor"),
        ("3-4-1", {"initializer": lambda rng, n_in, n_out: rng.normal(size=(2, 2))}, "weights"),
        (Spec.parse("3-4-1", activation=np.tanh), {}, r"layer 1's activation tanh"),
        (Spec.parse("3-4-1", activation=lambda z: z), {}, r"\(xp, z\) -> \(a, slope\)"),
        (Spec.parse("3-4-1", activation=lambda xp, z: (z, 1.0)), {}, "slope as an array"),
        (
            Spec.parse("3-4-1", activation=lambda xp, z: (z[:, :1], z)),
            {},
            "must give a as an array",
        ),
        ("3-4-2", {"loss": one_delta}, r"loss one_delta must give delta .*\(2, 2\) here"),
    ],
)
def test_invalid_results_of_user_functions_raise(spec, arguments, message):
    X = np.ones((6, 3))
    y = np.ones((6, Spec.parse(spec).n_out))
    with pytest.raises(ValueError, match=message):
        train(spec, X, y, **arguments)


def test_a_schedule_may_return_a_float():
    X = np.linspace(0, 1, 12)[:, None]
    model = train(
        "1-1",
        X,
        X,
        epochs=3,
        learning_rate=0.5,
        schedule=lambda xp, now: 0.5 if now.epoch < 1 else 0.25,
    )
    assert model.history["learning_rate"] == [0.25, 0.125, 0.125]


def test_epochs_stops_by_patience():
    X = np.linspace(0, 1, 12)[:, None]
    reports = list(epochs("1-1", X, X, X_val=X, y_val=-X, epochs=50, patience=2, learning_rate=0.1))
    assert len(reports) < 50
    assert reports[-1].epoch - reports[-1].best_epoch == 2


def test_a_report_does_not_change_later():
    X = np.linspace(0, 1, 12)[:, None]
    reports = list(epochs("1-3-1", X, X, epochs=4))
    assert [len(report.history["loss"]) for report in reports] == [1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="epoch 1, and training is at epoch 4"):
        reports[0].model()
    reports[-1].model()
