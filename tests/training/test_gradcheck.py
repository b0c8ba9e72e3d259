"""The gradient check passes right gradients and detects wrong ones."""

import math

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS
from xpmlp.devices.namespace import to_place
from xpmlp.losses import LOSSES, loss
from xpmlp.names import title
from xpmlp.shape_ledger import ShapeError
from xpmlp.spec import Spec
from xpmlp.training.gradient_check import TOLERANCE, Check, Difference, gradcheck

ACTIVATION_NAMES = [*ACTIVATIONS, "leaky_relu:0.2", "elu:0.5"]
LOSS_NAMES = [*LOSSES, "huber:0.3", "quantile:0.1,0.5,0.9", "cross_entropy:0.1"]
WRONG = 1e-3  # a slope that is wrong by one percent has a larger error


def network(activation, name, hidden="6-5"):
    return Spec.parse(
        f"4-{hidden}-{2 * loss(name).scores_per_target}", activation=activation, loss=name
    )


def sine(xp, z):
    return xp.sin(z), xp.cos(z)


@pytest.mark.parametrize("activation", [*ACTIVATION_NAMES, sine], ids=title)
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_every_activation_and_loss_passes(activation, name):
    check = gradcheck(network(activation, name))
    assert check.tolerance == TOLERANCE == 1e-7
    assert check.passed, str(check)
    assert check.largest <= 1e-7


@pytest.mark.parametrize("seed", range(5))
def test_every_seed_passes(seed):
    assert gradcheck("3-8-8-2", seed=seed).passed


def test_an_activation_of_the_last_layer_passes():
    assert gradcheck(Spec.parse("3-5-2", activation=["tanh", "softplus"])).passed


def test_every_namespace_passes(place):
    check = gradcheck(Spec.parse("3-4-2", activation="tanh"), xp=place.xp)
    assert check.passed, str(check)


def test_checks_every_window():
    check = gradcheck("3-4-2")
    assert [(d.layer, d.name, d.parameters) for d in check.differences] == [
        (1, "W", 12),
        (1, "b", 4),
        (2, "W", 8),
        (2, "b", 2),
    ]


def test_accepts_given_rows_and_targets(rng, place):
    x, target = (to_place(place, rng.standard_normal((5, n))) for n in (3, 2))
    assert gradcheck(Spec.parse("3-4-2", activation="tanh"), x, target, xp=place.xp).passed


def test_mismatched_rows_raise_a_shape_error(rng):
    with pytest.raises(ShapeError, match="x has 4 columns but W1 has 3 rows"):
        gradcheck("3-4-2", rng.standard_normal((5, 4)))
    with pytest.raises(ShapeError, match="the target is"):
        gradcheck("3-4-2", rng.standard_normal((5, 3)), rng.standard_normal((5, 1)))


# Wrong slopes


@pytest.mark.parametrize(
    "wrong",
    [
        lambda xp, z: (xp.tanh(z), 1 - xp.tanh(z)),
        lambda xp, z: (xp.tanh(z), -(1 - xp.tanh(z) ** 2)),
        lambda xp, z: (xp.tanh(z), 1.01 * (1 - xp.tanh(z) ** 2)),
        lambda xp, z: (xp.tanh(z), xp.zeros_like(z)),
        lambda xp, z: (xp.sin(z), xp.sin(z)),
    ],
)
def test_detects_a_wrong_slope_of_an_activation(wrong):
    check = gradcheck(Spec.parse("3-6-5-2", activation=wrong))
    assert not check.passed
    assert check.largest > WRONG
    # a wrong slope affects the gradients of earlier layers (two wrong signs may cancel), but
    # not the gradient of the last layer
    sound = [d.largest <= check.tolerance for d in check.differences]
    assert sound[2:] == [False, False, True, True]
    assert "DO NOT AGREE" in str(check)
    assert str(check).count("<- wrong") == sound.count(False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda xp, s, t: (xp.sum((s - t) ** 2, axis=-1), s - t),
        lambda xp, s, t: (xp.sum((s - t) ** 2, axis=-1), 2 * (t - s)),
        lambda xp, s, t: (xp.sum((s - t) ** 2, axis=-1), 2.02 * (s - t)),
        lambda xp, s, t: (xp.mean((s - t) ** 2, axis=-1), 2 * (s - t)),
    ],
)
def test_detects_a_wrong_delta_of_a_loss(wrong):
    check = gradcheck(Spec.parse("3-6-2", activation="tanh", loss=wrong))
    assert not check.passed
    assert min(d.largest for d in check.differences) > WRONG


def test_a_correct_user_loss_passes():
    def quartic(xp, score, target):
        e = score - target
        return xp.sum(e**4, axis=-1), 4 * e**3

    assert gradcheck(Spec.parse("3-6-2", activation="tanh", loss=quartic)).passed


def test_nan_does_not_pass():
    def broken(xp, z):
        return z, xp.full_like(z, math.nan)

    check = gradcheck(Spec.parse("3-4-2", activation=broken))
    assert math.isnan(check.largest)
    assert not check.passed
    assert "DO NOT AGREE" in str(check)
    for errors in ([0.0, math.nan], [math.nan, 0.0], [math.inf, 0.0]):
        parts = tuple(Difference(1, "W", 3, error) for error in errors)
        assert not Check("mine", parts, TOLERANCE).passed


def test_rows_given_with_nan_do_not_pass(rng):
    x = rng.standard_normal((5, 3))
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"x has 1 value that is not finite.* row 2, column 1"):
        gradcheck(Spec.parse("3-4-2", activation="tanh"), x)


def test_prints_its_result():
    text = str(gradcheck(Spec.parse("3-4-2", activation="tanh")))
    assert (
        "3-4-2 (tanh, identity; squared_error): backprop against central differences, float64"
        in text
    )
    assert "they agree" in text
    assert "wrong" not in text


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", None, True])
def test_an_invalid_seed_raises(seed):
    with pytest.raises(ValueError, match=r"^seed must be "):
        gradcheck("3-4-2", seed=seed)


def test_the_same_seed_gives_the_same_result():
    assert gradcheck("3-4-2", seed=5) == gradcheck("3-4-2", seed=5)
    assert gradcheck("3-4-2", seed=5) != gradcheck("3-4-2", seed=6)


def test_a_large_network_is_checked_in_chunks(monkeypatch):
    import xpmlp.training.gradient_check as module

    spec = Spec.parse("3-4-2", activation="tanh")
    whole = gradcheck(spec)
    monkeypatch.setattr(module, "AT_ONCE", 8 * 128 * 5)  # five perturbed networks at a time
    parts = gradcheck(spec)
    assert parts.passed
    assert [d[:3] for d in parts.differences] == [d[:3] for d in whole.differences]


def test_a_sample_of_a_large_window_detects_a_wrong_slope():
    check = gradcheck("60-50-40-2")
    assert (check.differences[0].parameters, check.differences[0].checked) == (3000, 100)
    assert check.passed, str(check)
    wrong = Spec.parse("60-50-40-2", activation=lambda xp, z: (xp.sin(z), xp.sin(z)))
    assert not gradcheck(wrong).passed


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan, np.inf, "x", None])
def test_a_meaningless_tolerance_raises(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance must be finite and above 0"):
        gradcheck("2-3-1", tolerance=tolerance)
