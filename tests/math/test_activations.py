"""Activations: value and slope, and no NaN for finite input."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from xpmlp.activations import ACTIVATIONS, SELU_SCALE, Activation, activation
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.names import title

NAMES = [*ACTIVATIONS, "leaky_relu:0.2", "leaky_relu:0", "elu:0.5", "elu:3"]
KINKED = ("relu", "leaky_relu", "elu", "selu")
FLOATS = ("float32", "float64")

# the same formula in another order of operations: about a dozen roundings of 1.1e-16
SAME_FORMULA = 1e-12
# 1 + tanh and 1 - a cancel where f is near 0: the error there is absolute, not relative
CANCELLED = 2e-15
# central differences of fourth order with steps of 1e-3: rounding 1e-13, truncation h**4 f'''''/30
DIFFERENCE = 1e-10
STEP = 1e-3
STEEPEST = 3.0  # elu:3 just below 0; selu reaches 1.76, gelu and mish 1.1
# a few roundings, in the order of operations of each namespace
NAMESPACE = {"float32": 2e-6, "float64": 5e-15}


def sine(xp, z):
    return xp.sin(z), xp.cos(z)


def finite(width: int):
    """Any finite float, including the largest and the subnormal ones."""
    return st.floats(width=width, allow_nan=False, allow_infinity=False, allow_subnormal=True)


def grid() -> np.ndarray:
    near = np.linspace(-12, 12, 481)
    far = [-700.0, -300.0, -50.0, -30.0, 30.0, 50.0, 300.0, 700.0]
    tiny = [s * 10.0**-k for k in (3, 6, 9, 12, 30, 300) for s in (-1, 1)]
    return np.concatenate([near, far, tiny])[None, :]


@pytest.mark.parametrize("name", NAMES)
def test_value_matches_pytorch(name, torch, torch_activation):
    z = grid()
    reference = torch_activation(name)(torch.from_numpy(z)).numpy()
    value = activation(name).f(np, z)
    np.testing.assert_allclose(value, reference, rtol=SAME_FORMULA, atol=CANCELLED)


@pytest.mark.parametrize("name", NAMES)
def test_slope_matches_pytorch(name, torch, torch_activation):
    z = grid()
    if name.startswith(KINKED):
        z = z[z != 0][None, :]
    leaf = torch.from_numpy(z).requires_grad_()
    torch_activation(name)(leaf).sum().backward()
    f = activation(name)
    np.testing.assert_allclose(
        f.slope(np, z, f.f(np, z)), leaf.grad.numpy(), rtol=SAME_FORMULA, atol=1e-13
    )


@pytest.mark.parametrize("name", [*NAMES, sine], ids=title)
def test_slope_matches_finite_differences(name):
    f = activation(name)
    z = np.linspace(-8, 8, 1601)[None, :]
    z = z[np.abs(z) > 3 * STEP][None, :]  # clear of the kink at 0

    def at(shift):
        return f.f(np, z + shift * STEP)

    numeric = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * STEP)
    np.testing.assert_allclose(f.slope(np, z, at(0)), numeric, rtol=DIFFERENCE, atol=DIFFERENCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [32, 64])
def test_a_finite_number_never_becomes_nan_or_overflows(name, width):
    dtype = np.dtype(f"float{width}")
    largest = float(np.finfo(dtype).max)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    f = activation(name)

    @given(st.lists(finite(width), min_size=1, max_size=8))
    @example([largest, -largest, smallest, -smallest, 0.0, -0.0])
    @example([float(np.finfo(dtype).tiny), -float(np.finfo(dtype).tiny), 1.0, -1.0])
    def holds(numbers):
        z = np.array([numbers], dtype=dtype)
        over = [name == "selu" and Fraction(v) * Fraction(SELU_SCALE) > largest for v in numbers]
        with np.errstate(over="ignore" if any(over) else "raise", invalid="raise"):
            a = f.f(np, z)
            slope = f.slope(np, z, a)
        assert a.dtype == slope.dtype == dtype
        assert np.array_equal(np.isfinite(a[0]), ~np.array(over))
        assert not np.isnan(a).any()
        assert np.isfinite(slope).all()

        assert np.all(np.abs(slope) <= STEEPEST)

    holds()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_large_input_gives_no_warning(name, dtype):
    z = np.array([[-1e4, -1e3, -100, -20, 20, 100, 1e3, 1e4]], dtype=dtype)
    f = activation(name)
    a = f.f(np, z)  # a warning is an error here
    assert np.isfinite(f.slope(np, z, a)).all()


@pytest.mark.parametrize("name", [*NAMES, sine], ids=title)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_matches_numpy_on_every_namespace(place, name, dtype, lead, rng):
    z = (4 * rng.standard_normal((*lead, 5, 7))).astype(dtype)
    f = activation(name)
    z_device = to_place(place, z, dtype)
    a = f.f(place.xp, z_device)
    slope = f.slope(place.xp, z_device, a)
    expected = f.f(np, z)
    close = {"rtol": NAMESPACE[dtype], "atol": NAMESPACE[dtype]}
    assert to_host(a).dtype == z.dtype
    np.testing.assert_allclose(to_host(a), expected, **close)
    np.testing.assert_allclose(to_host(slope), f.slope(np, z, expected), **close)


@pytest.mark.parametrize("name", NAMES)
def test_nan_propagates(place, name):
    f = activation(name)
    z = to_place(place, np.array([[np.nan]]))
    assert np.isnan(to_host(f.f(place.xp, z))).all()


@pytest.mark.parametrize("name", NAMES)
def test_does_not_modify_its_argument(name, rng):
    z = rng.standard_normal((4, 3))
    original = z.copy()
    f = activation(name)
    a = f.f(np, z)
    before = a.copy()
    f.slope(np, z, a)
    assert np.array_equal(z, original)
    assert np.array_equal(a, before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid_is_accurate_for_small_probabilities(dtype):
    z = np.array([[-20.0, -50.0, -80.0]], dtype=dtype)
    exact = np.exp(z.astype(np.longdouble))  # 1 + exp(z) is 1 to 2e-9
    assert np.allclose(activation("sigmoid").f(np, z), exact, rtol=5e-7, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_name_restores_the_activation(name):
    f = activation(name)
    restored = activation(f.name)
    z = grid()
    assert restored.name == f.name
    assert np.array_equal(restored.f(np, z), f.f(np, z))


def test_accepts_an_activation_object():
    custom = Activation(lambda xp, z: 2 * z, lambda xp, z, a: 2 * xp.ones_like(z), "twice")
    assert activation(custom) == custom._replace(name=None)


def test_a_user_function_is_value_and_slope(place):
    z = to_place(place, np.array([[0.3, -2.0]]), "float64")
    f = activation(sine)
    assert f.name is None
    assert to_host(f.f(place.xp, z)) == pytest.approx(np.sin([[0.3, -2.0]]), rel=1e-15)
    slope = to_host(f.slope(place.xp, z, None))
    assert slope == pytest.approx(np.cos([[0.3, -2.0]]), rel=1e-15)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("rellu", "relu"), ("tanhh", "tanh"), ("softpluss", "softplus"), ("swilu", "silu"),
     ("leakyrelu", "leaky_relu"), ("logistic_sigmoid", "sigmoid")],
)  # fmt: skip
def test_a_misspelt_name_suggests_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"activation '{wrong}' .*did you mean '{nearest}'"):
        activation(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("leaky_relu:1.5", r"leak must be in \[0, 1\); got 1.5"),
        ("leaky_relu:-0.1", r"leak must be in \[0, 1\); got -0.1"),
        ("leaky_relu:nan", "leak must be"),
        ("elu:0", "alpha must be positive"),
        ("elu:inf", "alpha must be positive and finite"),
        ("elu:nan", "alpha must be positive and finite"),
        ("tanh:2", "takes no argument"),
        (3, "a name or a function"),
    ],
)
def test_an_invalid_argument_raises_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        activation(wrong)


@pytest.mark.parametrize("function", [lambda z: z, lambda z: (z, z, z), lambda z: [z, z]])
def test_a_user_function_that_returns_no_pair_raises(function):
    def careless(xp, z):
        return function(z)

    z = np.ones((1, 1))
    f = activation(careless)
    for call in (lambda: f.f(np, z), lambda: f.slope(np, z, z)):
        with pytest.raises(TypeError, match=r"careless must return the pair \(a, slope\)"):
            call()
