"""Averaged weights: the measured and returned weights are a moving average over the updates."""

import numpy as np
import pytest

from xpmlp import epochs, train
from xpmlp.devices.namespace import to_host, to_place

DECAY = 0.9
OPTIONS = {"learning_rate": 0.05, "batch_size": 8, "dtype": "float64", "keep": "last"}


@pytest.fixture
def rows(rng):
    X = rng.standard_normal((40, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_normal(40)


def test_average_is_a_mean_at_first_and_then_exponential(rows):
    X, y = rows
    options = OPTIONS | {"batch_size": 40, "optimizer": "sgd"}
    walk = [train("3-4-1", X, y, **options, epochs=n).flat for n in range(1, 31)]
    (start,) = [r.trainer.state.params for r in epochs("3-4-1", X, y, **options | {
        "learning_rate": 0.0}, epochs=1)]  # fmt: skip
    average = start.copy()
    for t, params in enumerate(walk, 1):
        share = max(1 - DECAY, 1 / (t + 1))
        average = average + share * (params - average)
        if t == 5:
            np.testing.assert_allclose(average, np.mean([start, *walk[:5]], axis=0), rtol=1e-12)
    actual = train("3-4-1", X, y, **options, epochs=30, ema_decay=DECAY)
    np.testing.assert_allclose(actual.flat, average, rtol=1e-10, atol=1e-14)


def test_validation_uses_the_averaged_weights(rows):
    X, y = rows
    model = train("3-4-1", X, y, **OPTIONS, epochs=6, ema_decay=DECAY, X_val=X[:9], y_val=y[:9])
    error = model.predict(X[:9]) - y[:9]
    assert model.history["val_loss"][-1] == pytest.approx(0.5 * np.mean(error**2), rel=1e-12)


def test_averaging_does_not_change_the_training(rows):
    X, y = rows
    expected = train("3-4-1", X, y, **OPTIONS, epochs=4).history["loss"]
    assert train("3-4-1", X, y, **OPTIONS, epochs=4, ema_decay=DECAY).history["loss"] == expected


@pytest.mark.parametrize("members", [None, 3])
def test_averages_match_numpy_on_every_namespace(members, place, rows):
    options = OPTIONS | {"epochs": 2, "ema_decay": DECAY, "members": members}
    expected = train("3-4-1", *rows, **options)
    actual = train("3-4-1", *(to_place(place, part) for part in rows), **options)
    np.testing.assert_allclose(to_host(actual.flat), expected.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_averages_of_recorded_steps_equal_unrecorded_ones(device, rows, request):
    if device == "gpu":
        request.getfixturevalue("gpu")
    options = OPTIONS | {"epochs": 20, "ema_decay": DECAY, "device": device}
    recorded = train("3-4-1", *rows, **options)
    uncaptured = train("3-4-1", *rows, **options, capture=False)
    np.testing.assert_allclose(to_host(recorded.flat), to_host(uncaptured.flat), rtol=0, atol=1e-12)
    assert {*recorded.history["executor"]} == {"captured" if device == "gpu" else "replayed"}


@pytest.mark.parametrize("members", [None, 3])
def test_a_resumed_training_has_the_same_bits(members, rows, tmp_path):
    path, options = tmp_path / "run.ckpt", OPTIONS | {"ema_decay": DECAY, "members": members}
    whole = train("3-4-1", *rows, **options, epochs=30)
    train("3-4-1", *rows, **options, epochs=15, checkpoint=path)
    resumed = train("3-4-1", *rows, **options, epochs=30, checkpoint=path, resume=True)
    assert np.array_equal(whole.flat, resumed.flat)


@pytest.mark.parametrize("decay", [1.0, -0.1, "a", [0.9]])
def test_an_invalid_decay_raises(decay, rows):
    with pytest.raises(ValueError, match="ema_decay must be"):
        train("3-4-1", *rows, ema_decay=decay)
