"""Schedules: the factor of the learning rate at chosen points of a training."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.devices.namespace import to_host, to_place
from xpmlp.schedules import SCHEDULES, Progress, product, schedule

EXACT = 1e-14  # a few roundings in float64
NAMES = [*SCHEDULES, "warmup:5 * cosine"]
STEPS_PER_EPOCH = 8


def progress(epoch, epochs=100.0, dtype="float64"):
    """The progress of a training of `epochs` epochs at `epoch`."""
    numbers = (epoch * STEPS_PER_EPOCH, epoch, epoch / epochs)
    return Progress(*(np.asarray(value, dtype=dtype) for value in numbers))


def at(name, epoch, epochs=100.0):
    return float(schedule(name)(np, progress(epoch, epochs)))


@pytest.mark.parametrize(
    ("name", "points"),
    [
        (None, {0: 1, 50: 1, 99.9: 1}),
        ("constant", {0: 1, 50: 1, 99.9: 1}),
        ("step", {0: 1, 29.99: 1, 30: 0.1, 59.9: 0.1, 60: 0.01, 95: 0.001}),
        ("step:every=10,factor=0.5", {0: 1, 9.9: 1, 10: 0.5, 35: 0.125}),
        ("step:2", {1.9: 1, 2: 0.1}),
        ("exponential", {0: 1, 1: 0.95, 2: 0.9025, 0.5: math.sqrt(0.95)}),
        ("exponential:0.5", {0: 1, 1: 0.5, 3: 0.125}),
        ("cosine", {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2}),
        ("cosine", {100: 0}),
        ("cosine:0.1", {0: 1, 50: 0.55, 100: 0.1}),
        ("warmup", {0: 0.1, 2.5: 0.55, 5: 1, 50: 1}),
        ("warmup:epochs=10,start=0", {0: 0, 1: 0.1, 10: 1, 11: 1}),
        ("inverse_scaling", {0: 1, 3: 0.5, 99: 0.1}),
        ("inverse_scaling:1", {0: 1, 1: 0.5, 3: 0.25}),
        ("one_cycle", {0: 0.04, 15: 0.52, 30: 1, 65: (1 + 4e-6) / 2, 100: 4e-6}),
        ("one_cycle:peak=0.5,start=0.1,end=0", {0: 0.1, 25: 0.55, 50: 1, 75: 0.5, 100: 0}),
    ],
)
def test_values_at_chosen_points(name, points):
    values = {epoch: at(name, epoch) for epoch in points}
    assert values == pytest.approx(points, rel=EXACT, abs=EXACT)


def test_names_multiply():
    for epoch in (0, 2, 5, 40, 90):
        expected = at("warmup:5", epoch) * at("cosine", epoch)
        assert at("warmup:5 * cosine", epoch) == pytest.approx(expected, rel=EXACT)
        assert at("warmup:5*cosine*constant", epoch) == pytest.approx(expected, rel=EXACT)
    assert at("warmup:5 * cosine", 2.5) == pytest.approx(0.55 * 0.5 * (1 + math.cos(math.pi / 40)))
    half_twice = product(schedule("step:1,0.5"), schedule("step:1,0.5"))
    assert float(half_twice(np, progress(1.0))) == 0.25


@pytest.mark.parametrize("name", NAMES)
def test_factor_is_between_0_and_1(name):
    @given(st.floats(0, 1, exclude_max=True), st.integers(1, 1000))
    def holds(fraction, epochs):
        value = at(name, fraction * epochs, float(epochs))
        assert 0 <= value <= 1 + EXACT

    holds()


@pytest.mark.parametrize("name", ["step", "exponential", "cosine", "inverse_scaling", "constant"])
def test_decays_are_non_increasing(name):
    values = [at(name, epoch) for epoch in np.linspace(0, 99.9, 500)]
    assert all(b <= a for a, b in pairwise(values))


def test_inverse_scaling_matches_scikit_learn():
    assert [at("inverse_scaling:0.7", t) for t in (0, 5, 20)] == pytest.approx(
        [1 / pow(t + 1, 0.7) for t in (0, 5, 20)], rel=EXACT
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matches_numpy_on_every_namespace(place, name, dtype):
    near = {"float32": 1e-6, "float64": EXACT}[dtype]
    for epoch in (0.0, 3.25, 40.5, 99.0):
        now = Progress(*(to_place(place, part) for part in progress(epoch, dtype=dtype)))
        value = schedule(name)(place.xp, now)
        assert value.shape == ()
        actual = to_host(value)
        assert actual.dtype == dtype
        assert float(actual) == pytest.approx(at(name, epoch), rel=10 * near, abs=near)


def test_accepts_a_user_function(place):
    def custom(xp, now):
        return 1 / (1 + now.epoch)

    assert schedule(custom) is custom
    now = Progress(*(to_place(place, part) for part in progress(3.0)))
    assert float(to_host(schedule(custom)(place.xp, now))) == 0.25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cosin", "schedule 'cosin' is unknown; did you mean 'cosine'"),
        ("warmup:5 * cosin", "schedule 'cosin' is unknown; did you mean 'cosine'"),
        ("step:every=0", "every must be positive and finite; got 0"),
        ("step:30,-1", "factor must be positive and finite; got -1"),
        ("step:nan", "every must be positive and finite; got nan"),
        ("exponential:0", "factor must be positive and finite; got 0"),
        ("warmup:0", "epochs must be positive and finite; got 0"),
        ("warmup:inf", "epochs must be positive and finite; got inf"),
        ("one_cycle:1", r"peak must be in \(0, 1\); got 1"),
        ("cosine:2", r"end must be in \[0, 1\]; got 2"),
        ("warmup:5,-1", r"start must be in \[0, 1\]; got -1"),
        ("warmup:5,nan", r"start must be in \[0, 1\]; got nan"),
        ("one_cycle:start=2", r"start must be in \[0, 1\]; got 2"),
        ("one_cycle:end=-0.1", r"end must be in \[0, 1\]; got -0.1"),
        ("one_cycle:0", r"peak must be in \(0, 1\); got 0"),
        ("cosine:ten", "cosine:ten"),
        ("cosine:start=1", "start"),
        (0.1, "a name or a function"),
    ],
)
def test_an_invalid_schedule_raises_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        schedule(wrong)
