"""Averaged weights: what is measured and returned is their moving average over the updates."""

import numpy as np
import pytest

from xpmlp import epochs, train
from xpmlp.devices.namespace import to_host, to_place

DECAY = 0.9
ASKED = {"learning_rate": 0.05, "batch_size": 8, "dtype": "float64", "keep": "last"}


@pytest.fixture
def rows(rng):
    X = rng.standard_normal((40, 3))
    return X, X @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_normal(40)


def test_it_is_the_mean_at_first_and_then_exponential(rows):
    X, y = rows
    asked = ASKED | {"batch_size": 40, "optimizer": "sgd"}
    walk = [train("3-4-1", X, y, **asked, epochs=n).flat for n in range(1, 31)]
    (start,) = [r.trainer.state.params for r in epochs("3-4-1", X, y, **asked | {
        "learning_rate": 0.0}, epochs=1)]  # fmt: skip
    average = start.copy()
    for t, params in enumerate(walk, 1):
        share = max(1 - DECAY, 1 / (t + 1))
        average = average + share * (params - average)
        if t == 5:
            np.testing.assert_allclose(average, np.mean([start, *walk[:5]], axis=0), rtol=1e-12)
    found = train("3-4-1", X, y, **asked, epochs=30, ema_decay=DECAY)
    np.testing.assert_allclose(found.flat, average, rtol=1e-10, atol=1e-14)


def test_held_out_rows_are_measured_by_the_average(rows):
    X, y = rows
    model = train("3-4-1", X, y, **ASKED, epochs=6, ema_decay=DECAY, X_val=X[:9], y_val=y[:9])
    error = model.predict(X[:9]) - y[:9]
    assert model.history["val_loss"][-1] == pytest.approx(0.5 * np.mean(error**2), rel=1e-12)


def test_the_walk_itself_stays_as_it_is(rows):
    X, y = rows
    plain = train("3-4-1", X, y, **ASKED, epochs=4).history["loss"]
    assert train("3-4-1", X, y, **ASKED, epochs=4, ema_decay=DECAY).history["loss"] == plain


@pytest.mark.parametrize("members", [None, 3])
def test_every_namespace_averages_alike(members, place, rows):
    asked = ASKED | {"epochs": 2, "ema_decay": DECAY, "members": members}
    here = train("3-4-1", *rows, **asked)
    there = train("3-4-1", *(to_place(place, part) for part in rows), **asked)
    np.testing.assert_allclose(to_host(there.flat), here.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_recorded_steps_average_alike(device, rows, request):
    if device == "gpu":
        request.getfixturevalue("gpu")
    asked = ASKED | {"epochs": 20, "ema_decay": DECAY, "device": device}
    recorded = train("3-4-1", *rows, **asked)
    plain = train("3-4-1", *rows, **asked, capture=False)
    np.testing.assert_allclose(to_host(recorded.flat), to_host(plain.flat), rtol=0, atol=1e-12)
    assert {*recorded.history["executor"]} == {"captured" if device == "gpu" else "replayed"}


@pytest.mark.parametrize("members", [None, 3])
def test_a_training_that_is_resumed_has_the_same_bits(members, rows, tmp_path):
    path, asked = tmp_path / "run.ckpt", ASKED | {"ema_decay": DECAY, "members": members}
    whole = train("3-4-1", *rows, **asked, epochs=30)
    train("3-4-1", *rows, **asked, epochs=15, checkpoint=path)
    again = train("3-4-1", *rows, **asked, epochs=30, checkpoint=path, resume=True)
    assert np.array_equal(whole.flat, again.flat)


@pytest.mark.parametrize("decay", [1.0, -0.1, "a", [0.9]])
def test_a_decay_that_is_none_is_refused(decay, rows):
    with pytest.raises(ValueError, match="ema_decay must be"):
        train("3-4-1", *rows, ema_decay=decay)
