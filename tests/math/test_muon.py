"""Muon, the optimizer for weight matrices: the published update, every namespace, recording."""

import numpy as np
import pytest

from xpmlp import Spec, train
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.layers import Dense, Scale
from xpmlp.optimizers import Optimizer, orthogonalized

NEAR = 1e-9  # the same products in another order, through five Newton-Schulz iterations


@pytest.fixture
def rows(rng):
    X = rng.standard_normal((60, 5))
    return X, np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (3, 5, 8)])
def test_orthogonalized_keeps_directions_with_singular_values_near_one(shape, place, rng):
    """The published coefficients map singular values that are not too small into [0.68, 1.14]."""
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    start = (u * rng.uniform(0.3, 1, u.shape[-1])) @ vt
    actual = to_host(orthogonalized(place.xp, to_place(place, start)))
    values = np.linalg.svd(actual, compute_uv=False)
    assert (values > 0.65).all()
    assert (values < 1.25).all()
    # the same singular vectors: u^T actual v is diagonal
    inside = u.mT @ actual @ vt.mT
    off = inside * (1 - np.eye(inside.shape[-1]))
    assert np.abs(off).max() < 1e-9


def naive_step(weights, bias, slots, grads, t, rate):
    """One step by the formulas of the paper, with a row per output; biases by Adam."""
    (dw, db), (momentum, (mean, square)) = grads, slots
    g = dw.T
    momentum = 0.95 * momentum + g
    x = g + 0.95 * momentum
    flip = x.shape[0] > x.shape[1]
    x = x.T if flip else x
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    x = x.T if flip else x
    weights = weights - rate * max(1, g.shape[0] / g.shape[1]) ** 0.5 * x.T
    mean, square = 0.9 * mean + 0.1 * db, 0.999 * square + 0.001 * db * db
    root = np.sqrt(square / (1 - 0.999**t)) + 1e-8
    bias = bias - 0.015 * rate * mean / (1 - 0.9**t) / root
    return weights, bias, (momentum, (mean, square))


def test_a_linear_network_matches_the_paper(rows):
    X, y = rows
    weights, bias = np.zeros((5, 2)), np.zeros(2)
    slots = np.zeros((2, 5)), (np.zeros(2), np.zeros(2))
    for t in range(1, 8):
        error = (X @ weights + bias - y) / len(X)
        grads = X.T @ error, error.sum(axis=0)
        weights, bias, slots = naive_step(weights, bias, slots, grads, t, 0.02)
    model = train(
        "5-2", X, y, optimizer="muon", learning_rate=0.02, epochs=7, batch_size=60,
        initializer="zeros",
    )  # fmt: skip
    np.testing.assert_allclose(model.params[0].weights, weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.params[0].bias[0], bias, rtol=1e-9, atol=1e-12)


OPTIONS = {"optimizer": "muon", "learning_rate": 0.02, "epochs": 3, "dtype": "float64"}


def test_training_matches_numpy_on_every_namespace(place, rows):
    X, y = rows
    expected = train("5-8-2", X, y, **OPTIONS)
    actual = train("5-8-2", to_place(place, X), to_place(place, y), **OPTIONS)
    np.testing.assert_allclose(to_host(actual.flat), expected.flat, rtol=0, atol=NEAR)


def test_members_equal_single_networks(rows):
    X, y = rows
    options = OPTIONS | {"weight_decay": [0.0, 0.1, 0.2], "clip": 0.5, "epochs": 40}
    population = train("5-8-2", X, y, members=3, **options)
    for k in range(3):
        single = train("5-8-2", X, y, seed=k, **options | {"weight_decay": 0.1 * k})
        np.testing.assert_allclose(population.member(k).flat, single.flat, rtol=0, atol=NEAR)
    assert {*population.history["executor"]} == {"replayed"}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_recorded_steps_equal_unrecorded_ones(device, rows, request):
    if device == "gpu":
        request.getfixturevalue("gpu")
    X, y = rows
    spec = Spec.parse([Scale(5, rate_factor=3.0), Dense(5, 8, "tanh"), Dense(8, 2)])
    options = OPTIONS | {"epochs": 40, "batch_size": 16, "device": device}
    recorded = train(spec, X, y, **options)
    uncaptured = train(spec, X, y, **options, capture=False)
    np.testing.assert_allclose(to_host(recorded.flat), to_host(uncaptured.flat), rtol=0, atol=NEAR)
    assert {*recorded.history["executor"]} == {"captured" if device == "gpu" else "replayed"}
    assert recorded.history["loss"][-1] < 0.5 * recorded.history["loss"][0]


def test_a_resumed_training_has_the_same_bits(rows, tmp_path):
    X, y = rows
    whole = train("5-8-2", X, y, **OPTIONS | {"epochs": 6})
    train("5-8-2", X, y, **OPTIONS, checkpoint=tmp_path / "run.ckpt")
    resumed = train(
        "5-8-2", X, y, **OPTIONS | {"epochs": 6}, checkpoint=tmp_path / "run.ckpt", resume=True
    )
    assert np.array_equal(whole.flat, resumed.flat)


def test_weights_under_an_own_rule_for_matrices_decay_too(rows):
    X, y = rows

    def still(xp, h, t, theta, g):
        return (theta,)

    own = Optimizer(still, 0, {}, matrix_rule=still)
    options = {"optimizer": own, "learning_rate": 0.5, "epochs": 1, "batch_size": 60}
    initial = train("5-3-2", X, y, **options)
    decayed = train("5-3-2", X, y, **options, weight_decay=0.1)
    for before, after in zip(initial.params, decayed.params, strict=True):
        np.testing.assert_allclose(after.weights, 0.95 * before.weights, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda xp, h, t, theta, g: (theta - g.mT,), "matrix_rule must be a rule .*broadcast"),
        (lambda xp, h, t, theta, g: theta, r"matrix_rule must return the tuple \(theta, \*slots\)"),
        (
            lambda xp, h, t, theta, g: (theta.mT,),
            r"matrix_rule must give theta as an array \(2, 3\)",
        ),
    ],
)
def test_a_wrong_matrix_rule_is_named(wrong, message, rows):
    own = Optimizer(lambda xp, h, t, theta, g: (theta,), 0, {}, "own", wrong)
    with pytest.raises(ValueError, match=f"optimizer own's {message}"):
        train("5-3-2", *rows, optimizer=own)
