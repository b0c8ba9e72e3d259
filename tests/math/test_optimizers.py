"""Optimizers: every rule against PyTorch, a naive loop and itself on other namespaces."""

from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.devices.namespace import to_host, to_place
from xpmlp.optimizers import OPTIMIZERS, Optimizer, adam, decoupled, momentum, optimizer

NAMES = list(OPTIMIZERS)
STEPS = 20
SIZE = 32
# 20 steps of about ten roundings each in float64
SAME_FORMULA = 1e-12
NAMESPACE = {"float32": 1e-5, "float64": 1e-13}  # the same operations, another sqrt and expm1


def hyper(name, learning_rate=0.01, weight_decay=0.1, **hyper_parameters):
    """The default hyper-parameters of a rule, with a learning rate and a weight decay."""
    values = dict(OPTIMIZERS[name].defaults)
    values.pop("weight_decay", None)
    return SimpleNamespace(
        **values | {"learning_rate": learning_rate, "weight_decay": weight_decay} | hyper_parameters
    )


def walk(xp, rule, slots, h, theta, gradients):
    """The parameters and slots of `rule` after one step per gradient."""
    slots = [xp.zeros_like(theta) for _ in range(slots)]
    for step, g in enumerate(gradients, 1):
        t = xp.asarray(float(step), dtype=theta.dtype, device=theta.device)
        theta, *slots = rule(xp, h, t, theta, g, *slots)
    return theta, slots


def problem(rng, lead=(), size=SIZE, steps=STEPS):
    """Initial parameters and one gradient per step, of magnitudes from 1e-3 to 1e3."""
    scale = 10.0 ** rng.uniform(-3, 3, size)
    return rng.standard_normal((*lead, size)), scale * rng.standard_normal((steps, *lead, size))


TORCH = {
    "sgd": lambda torch, p: torch.optim.SGD(p, lr=0.01),
    # with a constant rate the rate may stand inside the velocity or outside
    "momentum": lambda torch, p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "nesterov": lambda torch, p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda torch, p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda torch, p: torch.optim.Adagrad(p, lr=0.01),
    "adam": lambda torch, p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda torch, p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", list(TORCH))
def test_matches_pytorch(name, rng, torch):
    theta, gradients = problem(rng)
    leaf = torch.tensor(theta, requires_grad=True)
    reference = TORCH[name](torch, [leaf])
    for g in gradients:
        leaf.grad = torch.tensor(g)
        reference.step()
    entry = optimizer(name)
    end, _ = walk(np, entry.rule, entry.slots, hyper(name), theta, gradients)
    np.testing.assert_allclose(
        end, leaf.detach().numpy(), rtol=SAME_FORMULA, atol=SAME_FORMULA * np.abs(gradients).max()
    )


def naive_momentum(theta, gradients):
    v = 0.0
    for g in gradients:
        v = 0.9 * v - 0.01 * g
        theta += v
    return theta


def naive_nesterov(theta, gradients):
    # Sutskever's own form: the gradient belongs to the point that looks ahead, here shifted to
    # that point, so that only looked-ahead positions appear
    v, lookahead = 0.0, theta
    for g in gradients:
        position = lookahead - 0.9 * v
        v = 0.9 * v - 0.01 * g
        lookahead = position + v + 0.9 * v
    return lookahead


def naive_adam_sklearn(theta, gradients):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m += (1 - 0.9) * (g - m)
        v += (1 - 0.999) * (g * g - v)
        theta -= 0.01 * sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (sqrt(v) + 1e-8)
    return theta


@pytest.mark.parametrize(
    ("name", "naive"),
    [
        ("momentum", naive_momentum),
        ("nesterov", naive_nesterov),
        ("adam_sklearn", naive_adam_sklearn),
    ],
)
def test_matches_a_naive_loop(name, naive, rng):
    theta, gradients = problem(rng)
    entry = optimizer(name)
    end, _ = walk(np, entry.rule, entry.slots, hyper(name), theta, gradients)
    expected = [naive(start, gradients[:, i].tolist()) for i, start in enumerate(theta.tolist())]
    np.testing.assert_allclose(
        end, expected, rtol=SAME_FORMULA, atol=SAME_FORMULA * np.abs(gradients).max()
    )


def test_adam_sklearn_differs_from_adam_in_the_position_of_eps(rng):
    theta, gradients = problem(rng)
    results = [
        walk(np, optimizer(name).rule, 2, hyper(name, eps=eps), theta, gradients)[0]
        for name in ("adam", "adam_sklearn")
        for eps in (0.0, 0.1)
    ]
    # without eps they are one rule; with a large eps they are not
    np.testing.assert_allclose(results[0], results[2], rtol=SAME_FORMULA, atol=SAME_FORMULA)
    assert np.max(np.abs(results[1] - results[3])) > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_matches_numpy_on_every_namespace(place, name, dtype, lead, rng):
    theta, gradients = (part.astype(dtype) for part in problem(rng, lead))
    entry = optimizer(name)
    expected, slots = walk(np, entry.rule, entry.slots, hyper(name), theta, gradients)
    start = to_place(place, theta, dtype)
    gradients_device = [to_place(place, g, dtype) for g in gradients]
    end, end_slots = walk(place.xp, entry.rule, entry.slots, hyper(name), start, gradients_device)
    for actual, expected_array in zip([end, *end_slots], [expected, *slots], strict=True):
        assert to_host(actual).dtype == expected_array.dtype == np.dtype(dtype)
        largest = float(np.max(np.abs(expected_array)))
        np.testing.assert_allclose(
            to_host(actual),
            expected_array,
            rtol=NAMESPACE[dtype],
            atol=NAMESPACE[dtype] * largest * 0.1,
        )


VARIED = {
    "learning_rate": [0.001, 0.01, 0.3],
    "weight_decay": [0.0, 0.1, 0.01],
    "momentum": [0.5, 0.9, 0.99],
    "rho": [0.9, 0.99, 0.5],
    "eps": [1e-8, 1e-6, 1e-3],
    "beta1": [0.9, 0.8, 0.95],
    "vector_rate": [1.0, 0.5, 0.1],
    "beta2": [0.999, 0.99, 0.9],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_members_with_their_own_hyper_parameters_equal_single_runs(name, dtype, rng):
    theta, gradients = (part.astype(dtype) for part in problem(rng, (3,)))
    entry = optimizer(name)
    names = set(entry.defaults) - {"weight_decay"} | {"learning_rate", "weight_decay"}
    columns = {key: np.array(VARIED[key], dtype=dtype)[:, None] for key in names}
    population, _ = walk(np, entry.rule, entry.slots, SimpleNamespace(**columns), theta, gradients)
    for k in range(3):
        member_hyper = SimpleNamespace(**{key: column[k] for key, column in columns.items()})
        single, _ = walk(np, entry.rule, entry.slots, member_hyper, theta[k], gradients[:, k])
        assert np.array_equal(population[k], single)


@pytest.mark.parametrize("name", NAMES)
def test_equal_numbers_per_member_match_a_float(name, rng):
    theta, gradients = problem(rng, (3,))
    entry = optimizer(name)
    values = vars(hyper(name))
    columns = SimpleNamespace(**{key: np.full((3, 1), value) for key, value in values.items()})
    scalar, _ = walk(np, entry.rule, entry.slots, hyper(name), theta, gradients)
    per_member, _ = walk(np, entry.rule, entry.slots, columns, theta, gradients)
    # the logarithms of math and of NumPy may differ in the last bit
    np.testing.assert_allclose(per_member, scalar, rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_zero_gradient_and_empty_slots_leave_theta_unchanged(name):
    entry = optimizer(name)

    @given(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8),
        st.integers(1, 10**6),
        st.sampled_from(["float32", "float64"]),
    )
    def holds(numbers, step, dtype):
        theta = np.array(numbers, dtype=dtype)
        zeros = [np.zeros_like(theta) for _ in range(1 + entry.slots)]
        t = np.asarray(float(step), dtype=dtype)
        moved, *slots = entry.rule(np, hyper(name, weight_decay=0.0), t, theta, *zeros)
        assert np.array_equal(moved, theta)
        assert not any(part.any() for part in slots)

    holds()


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_opposes_the_gradient(name, rng):
    theta, gradients = problem(rng)
    entry = optimizer(name)
    moved, _ = walk(
        np, entry.rule, entry.slots, hyper(name, weight_decay=0.0), theta, gradients[:1]
    )
    assert np.array_equal(np.sign(moved - theta), -np.sign(gradients[0]))


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_minimizes_a_quadratic(name):
    entry = optimizer(name)
    rate = 0.05 / entry.defaults.get("vector_rate", 1.0)
    h = hyper(name, learning_rate=rate, weight_decay=0.0)
    theta = np.array([1.0, -2.0, 0.5])
    start = np.abs(theta).max()
    slots = [np.zeros(3) for _ in range(entry.slots)]
    for step in range(1, 401):
        g = theta * np.array([1.0, 0.3, 3.0])
        theta, *slots = entry.rule(np, h, np.asarray(float(step)), theta, g, *slots)
    assert np.abs(theta).max() < 0.5 * start


@pytest.mark.parametrize("name", NAMES)
def test_does_not_modify_its_arguments(name, rng):
    theta, gradients = problem(rng, steps=1)
    entry = optimizer(name)
    slots = [np.abs(rng.standard_normal(SIZE)) for _ in range(entry.slots)]
    arrays = [np.asarray(3.0), theta, gradients[0], *slots]
    originals = [part.copy() for part in arrays]
    entry.rule(np, hyper(name), *arrays)
    assert all(map(np.array_equal, arrays, originals))


def test_bias_correction_is_accurate_in_float32():
    # 1 - 0.999**1 in float32 has three digits; a first step of adam is rate * sign(g) exactly
    theta, g = np.zeros(4, dtype="float32"), np.array([1e-3, 1, -1, 5], dtype="float32")
    h = hyper("adam", learning_rate=1.0, eps=0.0)
    moved, _ = walk(np, adam, 2, h, theta, [g])
    np.testing.assert_allclose(moved, -np.sign(g), rtol=1e-6)


def test_decay_applies_only_where_its_factor_is_set(rng):
    theta, gradients = problem(rng)
    weights = (np.arange(SIZE) < 20) * 1.0
    h = hyper("adamw", learning_rate=0.1, weight_decay=0.5 * weights)
    moved, _ = walk(np, optimizer("adamw").rule, 2, h, theta, 0 * gradients[:3])
    expected = np.where(weights > 0, theta * (1 - 0.1 * 0.5) ** 3, theta)
    np.testing.assert_allclose(moved, expected, rtol=1e-14)


def test_any_rule_can_be_decoupled(rng):
    theta, gradients = problem(rng)
    rule = decoupled(momentum)
    moved, _ = walk(
        np, rule, 1, hyper("momentum", learning_rate=0.1, weight_decay=0.2), theta, 0 * gradients
    )
    np.testing.assert_allclose(moved, theta * (1 - 0.1 * 0.2) ** STEPS, rtol=1e-13)
    assert optimizer(rule).slots == 1


# User-defined rules


def signs(xp, h, t, theta, g):
    return (theta - h.learning_rate * xp.sign(g),)


def averaged(xp, h, t, theta, g, mean, count):
    count = count + 1
    mean = mean + (g - mean) / count
    return theta - h.learning_rate * mean, mean, count


def test_a_user_rule_has_a_slot_per_parameter_after_g():
    assert [optimizer(rule).slots for rule in (signs, averaged)] == [0, 2]
    assert optimizer(signs).name is None
    assert optimizer(signs) == optimizer(signs)


def test_a_user_rule_runs_on_every_namespace(place, rng):
    theta, gradients = problem(rng, steps=3)
    entry = optimizer(averaged)
    gradients_device = [to_place(place, g) for g in gradients]
    h = SimpleNamespace(learning_rate=0.1)
    end, _ = walk(place.xp, entry.rule, 2, h, to_place(place, theta), gradients_device)
    means = [gradients[: i + 1].mean(axis=0) for i in range(3)]
    np.testing.assert_allclose(to_host(end), theta - 0.1 * sum(means), rtol=1e-12, atol=1e-12)


def test_accepts_an_optimizer_object():
    custom = Optimizer(signs, 0, {"learning_rate": 1.0})
    assert optimizer(custom) is custom
    assert optimizer(OPTIMIZERS["adam"]) is OPTIMIZERS["adam"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("adm", "optimizer 'adm' is unknown; did you mean 'adam'"),
        ("lbfgs", "Known: adagrad, adam, adam_sklearn, adamw"),
        ("adam:0.1", "takes no argument"),
        (3, r"a name or a rule \(xp, h, t, theta, g, \*slots\)"),
        (None, "a name or a rule"),
    ],
)
def test_an_invalid_optimizer_raises_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        optimizer(wrong)


def test_a_rule_with_too_few_parameters_raises():
    def short(theta, g):
        return theta - g

    with pytest.raises(ValueError, match=r"short must be a rule \(xp, h, t, theta, g, \*slots\)"):
        optimizer(short)
