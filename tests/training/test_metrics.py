"""Losses and scores over rows, against scikit-learn and direct formulas."""

import numpy as np
import pytest

from xpmlp.devices.namespace import to_host
from xpmlp.losses import loss
from xpmlp.training.metrics import accuracy, mean_loss, mean_over_rows, minus_loss, r2, score_for

EXACT = 1e-12  # relative: the same sums in another order


@pytest.fixture
def put(place):
    return lambda value: place.xp.asarray(np.asarray(value, dtype=float), device=place.device)


def test_r2_matches_scikit_learn(xp, put, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    target, score = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    weight = rng.uniform(size=30)
    actual = r2(xp, loss("squared_error"), put(score), put(target), put(weight))
    expected = metrics.r2_score(target, score, sample_weight=weight)
    assert float(to_host(actual)) == pytest.approx(expected, rel=EXACT)


def test_r2_compares_predictions_not_scores(rng):
    target = rng.poisson(3.0, size=(30, 1)).astype(float)
    perfect = np.log(np.maximum(target, 1e-300))
    assert r2(np, loss("poisson"), perfect, target, np.ones(30)) == pytest.approx(1, abs=1e-12)


def test_r2_of_a_constant_target_is_one_if_exact_and_else_zero(xp, put):
    weight, target = put([1, 1]), put([[2], [2]])
    measure = loss("squared_error")
    assert float(to_host(r2(xp, measure, put([[2], [2]]), target, weight))) == 1
    assert float(to_host(r2(xp, measure, put([[2], [3]]), target, weight))) == 0


@pytest.mark.parametrize("weights", [[1] * 7, [0.1, 0.7, 1, 3, 1e-3, 1, 0]], ids=["equal", "own"])
def test_r2_of_a_constant_does_not_depend_on_rounding(weights, xp, put):
    """The computed mean of seven values 0.1 is not 0.1; a row of weight 0 may have any value."""
    values = [[0.1]] * 6 + [[0.1 if weights[-1] else 5.0]]
    weight, target = put(weights), put(values)
    measure = loss("squared_error")
    assert float(to_host(r2(xp, measure, target, target, weight))) == 1
    assert float(to_host(r2(xp, measure, target + 1e-3, target, weight))) == 0


def test_accuracy_matches_scikit_learn(xp, put, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    score, classes, weight = (
        rng.normal(size=(40, 3)),
        rng.integers(3, size=40),
        rng.uniform(size=40),
    )
    actual = accuracy(xp, loss("cross_entropy"), put(score), put(np.eye(3)[classes]), put(weight))
    expected = metrics.accuracy_score(classes, score.argmax(axis=1), sample_weight=weight)
    assert float(to_host(actual)) == pytest.approx(expected, rel=EXACT)


def test_accuracy_of_several_labels_requires_all_of_them(xp, put):
    score, target = [[1, 1], [1, -1], [-1, -1]], [[1, 1], [1, 1], [0, 0]]
    actual = accuracy(xp, loss("binary_cross_entropy"), put(score), put(target), put([1, 1, 2]))
    assert float(to_host(actual)) == 0.75


def test_measures_have_one_number_per_member(xp, put, rng):
    score, target = rng.normal(size=(4, 10, 2)), rng.normal(size=(10, 2))
    weight = rng.uniform(size=10)
    for measure in (r2, mean_loss, minus_loss):
        population = measure(xp, loss("squared_error"), put(score), put(target), put(weight))
        assert tuple(population.shape) == (4,)
        for k in range(4):
            single = measure(xp, loss("squared_error"), put(score[k]), put(target), put(weight))
            assert float(to_host(single)) == pytest.approx(float(to_host(population)[k]), rel=EXACT)


def test_mean_loss_is_the_weighted_mean_of_the_rows_losses(rng):
    score, target, weight = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.uniform(size=9)
    expected = np.average(0.5 * ((score - target) ** 2).sum(axis=1), weights=weight)
    actual = mean_loss(np, loss("squared_error"), score, target, weight)
    assert actual == pytest.approx(expected, rel=EXACT)
    assert minus_loss(np, loss("squared_error"), score, target, weight) == -actual


def test_mean_over_rows_ignores_rows_of_weight_zero():
    assert mean_over_rows(np, np.array([1.0, 5.0, 99.0]), np.array([3.0, 1.0, 0.0])) == 2


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("squared_error", r2),
        ("huber:1.35", r2),
        ("poisson", r2),
        ("quantile:0.5", r2),
        ("quantile:0.1,0.9", minus_loss),
        ("cross_entropy", accuracy),
        ("binary_cross_entropy", accuracy),
    ],
)
def test_each_loss_has_its_score(name, score):
    assert score_for(loss(name)) is score
