"""Gradient, penalties, clipping and update: what they compute and which arrays they modify."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.apply import plain
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.initializers import initial, initial_population
from xpmlp.layout import block_factors, padded_size, windows
from xpmlp.losses import LOSSES, loss
from xpmlp.network import forward
from xpmlp.optimizers import OPTIMIZERS, optimizer
from xpmlp.random import counters, dropout_keys, lanes, mask, words
from xpmlp.shape_ledger import ShapeError
from xpmlp.spec import Spec
from xpmlp.step import (
    Batch,
    counted,
    gradient,
    new_state,
    penalize,
    shortened,
    squared_norm,
    update,
)

SPEC = Spec.parse("5-33-7-3", activation=["tanh", "gelu"])
LOSS_NAMES = [*LOSSES, "huber:0.3", "quantile:0.1,0.5,0.9", "cross_entropy:0.1"]

# sums of about a hundred products in another order; each rounding is 1.1e-16, or 6e-8 in float32
NAMESPACE = {"float64": 1e-12, "float32": 1e-5}
SAME_SUM = 1e-13  # the same products added in another order
# central differences of second order, steps of 1e-5: rounding 1e-11 and truncation 1e-10
DIFFERENCE = 1e-8


def initial_params(spec, lead=(), seed=0):
    if not lead:
        return initial(spec, seed)
    return initial_population(spec, range(seed, seed + lead[0]))


def rows_of(spec, rng, rows, lead=()):
    """x, a target that the loss of `spec` accepts, and weights 1 / rows."""
    measure = loss(spec.loss)
    x = rng.standard_normal((*lead, rows, spec.n_in))
    shape = (*lead, rows, measure.targets(spec.n_out))
    if measure.labels == "classes":
        target = rng.dirichlet([1.0] * spec.n_out, shape[:-1])
    elif measure.labels == "binary":
        target = rng.uniform(0, 1, shape)
    else:
        target = rng.uniform(0.5, 3, shape)
    return x, target, np.full((*lead, rows), 1 / rows)


def batch_of(spec, rng, rows, lead=()):
    return Batch(*rows_of(spec, rng, rows, lead))


def state_of(spec, name="sgd", lead=()):
    return new_state(np, spec, optimizer(name), initial_params(spec, lead))


def hyper(name, learning_rate=0.01, weight_decay=0.0):
    values = {k: v for k, v in OPTIMIZERS[name].defaults.items() if k != "weight_decay"}
    return SimpleNamespace(**values, learning_rate=learning_rate, weight_decay=weight_decay)


def clip(xp, state, limit):
    """Clip the gradient and return its norm before clipping."""
    norm = xp.sqrt(squared_norm(xp, state.grad))
    state.grad[...] = shortened(xp, limit, norm[..., None], state.grad)
    return norm


def step(xp, spec, state, batch, name="sgd", h=None, masks=()):
    value = gradient(xp, spec, state, batch, masks)
    update(xp, optimizer(name), state, h or hyper(name))
    return value


def copies(*parts):
    return [np.array(part) for part in parts]


# A new state


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_new_state_starts_at_step_0_with_empty_buffers(place, lead, name):
    params = to_place(place, initial_params(SPEC, lead), "float32")
    state = new_state(place.xp, SPEC, optimizer(name), params)
    assert tuple(state.step.shape) == ()
    assert int(state.step) == 0
    assert np.array_equal(to_host(state.params), to_host(params))
    assert len(state.slots) == OPTIMIZERS[name].slots
    for part in (state.grad, *state.slots):
        assert part.shape == params.shape
        assert part.dtype == params.dtype
        assert not to_host(part).any()


def test_a_state_owns_its_parameters(place):
    params = to_place(place, initial_params(SPEC))
    original = to_host(params).copy()
    state = new_state(place.xp, SPEC, optimizer("sgd"), params)
    state.params[...] = place.xp.zeros_like(params)
    assert np.array_equal(to_host(params), original)


def test_a_buffer_of_the_wrong_size_raises():
    for size in (padded_size(SPEC) - 1, padded_size(SPEC) + 32, SPEC.parameters):
        with pytest.raises(ValueError, match=rf"5-33-7-3 has {padded_size(SPEC)} .*; got {size}"):
            new_state(np, SPEC, optimizer("sgd"), np.zeros((2, size)))


# The gradient


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_gradient_is_the_derivative_of_the_returned_loss(name, rng):
    spec = Spec.parse(f"4-5-{2 * loss(name).scores_per_target}", activation="tanh", loss=name)
    batch = batch_of(spec, rng, 6)._replace(weight=rng.uniform(0.1, 0.3, 6))
    state = state_of(spec)
    value = gradient(np, spec, state, batch)
    measure = loss(name)

    def at(flat):
        score = forward(np, spec, windows(np, spec, flat), batch.x)[-1].a
        return measure.value(np, score, batch.target) @ batch.weight

    assert float(value) == pytest.approx(float(at(state.params)), rel=SAME_SUM)
    direction = rng.standard_normal(state.params.shape)
    up, down = (at(state.params + sign * 1e-5 * direction) for sign in (1, -1))
    assert state.grad @ direction == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=DIFFERENCE)


@pytest.mark.parametrize("last", ["tanh", "softplus", "sigmoid"])
def test_the_last_layers_activation_is_differentiated(last, rng):
    spec = Spec.parse("4-5-3", activation=["tanh", last])
    batch, state = batch_of(spec, rng, 6), state_of(spec)
    gradient(np, spec, state, batch)
    direction = rng.standard_normal(state.params.shape)

    def at(flat):
        score = forward(np, spec, windows(np, spec, flat), batch.x)[-1].a
        return loss(spec.loss).value(np, score, batch.target) @ batch.weight

    up, down = (at(state.params + sign * 1e-5 * direction) for sign in (1, -1))
    assert state.grad @ direction == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=DIFFERENCE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_steps_match_numpy_on_every_namespace(place, dtype, lead, name, rng):
    spec = Spec.parse("5-33-7-3", activation=["tanh", "gelu"], loss="cross_entropy", dropout=0.3)
    params = initial_params(spec, lead).astype(dtype)
    batches = [[part.astype(dtype) for part in rows_of(spec, rng, 6, lead)] for _ in range(3)]
    keys = [dropout_keys(range(lead[0] if lead else 1), lead, i) for i in range(2)]

    def run(xp, put, lane):
        state = new_state(xp, spec, optimizer(name), put(params))
        values = []
        for parts in batches:
            masks = [
                mask(xp, put(key.astype(lane)), state.step, 0.3, (6, layer.n_out), dtype)
                for key, layer in zip(keys, spec.layers, strict=False)
            ]
            batch = Batch(*map(put, parts))
            # adam divides by the root of tiny gradients; a large eps keeps roundings small
            h = hyper(name)
            h.eps = 1e-2
            values.append(step(xp, spec, state, batch, name, h, (*masks, None)))
        return state, values

    expected, expected_values = run(np, lambda part: part, "uint32")
    actual, actual_values = run(place.xp, lambda part: to_place(place, part), lanes(place.xp))
    assert int(actual.step) == 3
    near = NAMESPACE[dtype]
    for value, expected_array in zip(actual_values, expected_values, strict=True):
        assert tuple(value.shape) == lead
        np.testing.assert_allclose(to_host(value), expected_array, rtol=near)
    pairs = [(actual.params, expected.params), (actual.grad, expected.grad)]
    pairs += list(zip(actual.slots, expected.slots, strict=True))
    for actual_array, expected_array in pairs:
        assert to_host(actual_array).dtype == dtype
        np.testing.assert_allclose(
            to_host(actual_array), expected_array, rtol=0, atol=near * np.abs(expected_array).max()
        )


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_population_trains_as_single_networks(name, rng):
    population = state_of(SPEC, name, (3,))
    batch = batch_of(SPEC, rng, 6, (3,))
    singles = [new_state(np, SPEC, optimizer(name), row) for row in population.params]
    for _ in range(5):
        value = step(np, SPEC, population, batch, name)
        for k in range(3):
            member_batch = Batch(*(part[k] for part in batch))
            assert float(step(np, SPEC, singles[k], member_batch, name)) == pytest.approx(
                float(value[k]), rel=1e-10
            )
    for k in range(3):
        np.testing.assert_allclose(population.params[k], singles[k].params, rtol=0, atol=1e-9)


def penalized(xp, state, l1, l2):
    return penalize(xp, state, "l1", l1) + penalize(xp, state, "l2", l2)


# Arrays that are modified and arrays that are not


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("lead", [(), (3,)])
def test_steps_do_not_modify_earlier_results_or_inputs(name, lead, rng):
    state, batch = state_of(SPEC, name, lead), batch_of(SPEC, rng, 6, lead)
    traces = forward(np, SPEC, state.layers, batch.x)
    value = step(np, SPEC, state, batch, name)
    norm = clip(np, state, 1e9)
    penalty = penalized(np, state, 0.1, 0.1)
    # x and the score are no window of the state; layers[..].weights are, and are meant to move
    arrays = [value, norm, penalty, *batch, *(part for trace in traces for part in trace[:3])]
    before = copies(*arrays)
    for _ in range(3):
        step(np, SPEC, state, batch_of(SPEC, rng, 6, lead), name)
        clip(np, state, 0.1)
        penalized(np, state, 0.1, 0.1)
    assert all(map(np.array_equal, arrays, before))


def test_buffer_addresses_are_constant(rng):
    state = state_of(SPEC, "adam")
    names = [state.step, state.params, state.grad, *state.slots]
    addresses = [part.__array_interface__["data"][0] for part in names]
    for _ in range(3):
        step(np, SPEC, state, batch_of(SPEC, rng, 6), "adam")
        penalized(np, state, 0.1, 0.1)
        clip(np, state, 0.1)
    assert [part.__array_interface__["data"][0] for part in names] == addresses
    fresh = windows(np, SPEC, state.params)
    assert all(np.array_equal(a, b) for p, q in zip(state.layers, fresh, strict=True)
               for a, b in zip(p, q, strict=True))  # fmt: skip
    assert int(state.step) == 3


def test_gradient_writes_only_the_gradient(rng):
    state, batch = state_of(SPEC, "adam"), batch_of(SPEC, rng, 6)
    step(np, SPEC, state, batch, "adam")
    others = [state.step, state.params, *state.slots, *batch]
    before = copies(*others)
    gradient(np, SPEC, state, batch_of(SPEC, rng, 6))
    assert all(map(np.array_equal, others, before))


def test_a_gradient_does_not_depend_on_the_previous_one(rng):
    batch, fresh, used = batch_of(SPEC, rng, 6), state_of(SPEC), state_of(SPEC)
    gradient(np, SPEC, used, batch_of(SPEC, rng, 6))
    gradient(np, SPEC, used, batch)
    gradient(np, SPEC, fresh, batch)
    assert np.array_equal(used.grad, fresh.grad)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("lead", [(), (2,)])
def test_the_padding_stays_exactly_zero(name, lead, rng):
    state = state_of(SPEC, name, lead)
    decay = 0.1 * block_factors(np, SPEC, state.params, "decay_factor")
    inside = np.zeros(padded_size(SPEC))
    for pair in windows(np, SPEC, inside):
        pair.weights[...] = pair.bias[...] = 1
    padding = inside == 0
    assert padding.any()
    for _ in range(20):
        batch = batch_of(SPEC, rng, 6, lead)
        gradient(np, SPEC, state, batch)
        penalized(np, state, 0.01, 0.01)
        clip(np, state, 0.5)
        update(np, optimizer(name), state, hyper(name, weight_decay=decay))
    for part in (state.params, state.grad, *state.slots):
        assert not part[..., padding].any()
        assert part[..., ~padding].any()


def test_a_user_rule_trains(rng):
    def signs(xp, h, t, theta, g, longest):
        return theta - h.learning_rate * xp.sign(g), xp.maximum(longest, xp.abs(g))

    rule = optimizer(signs)
    state = new_state(np, SPEC, rule, initial_params(SPEC))
    batch, before = batch_of(SPEC, rng, 6), state.params.copy()
    gradient(np, SPEC, state, batch)
    update(np, rule, state, SimpleNamespace(learning_rate=0.5))
    assert np.array_equal(state.params, before - 0.5 * np.sign(state.grad))
    assert np.array_equal(state.slots[0], np.abs(state.grad))


def test_the_rule_is_called_through_apply_with_its_step(rng):
    state, seen = state_of(SPEC, "adam"), []

    def spying(function, *arguments, into):
        if function is not counted:
            seen.append((function, float(arguments[2])))
        return plain(function, *arguments, into=into)

    for _ in range(3):
        gradient(np, SPEC, state, batch_of(SPEC, rng, 6))
        update(np, optimizer("adam"), state, hyper("adam"), apply=spying)
    assert seen == [(OPTIMIZERS["adam"].rule, t) for t in (1.0, 2.0, 3.0)]


# Row weights


@given(st.lists(st.integers(0, 4), min_size=2, max_size=8).filter(any), st.integers(0, 99))
def test_integer_weights_equal_repeated_rows(counts, seed):
    rng = np.random.default_rng(seed)
    x, target, _ = rows_of(SPEC, rng, len(counts))
    total = sum(counts)
    weighted, repeated = state_of(SPEC), state_of(SPEC)
    # s_i / (mean of s over the rows x rows of the batch), with all rows in the batch
    first = gradient(np, SPEC, weighted, Batch(x, target, np.array(counts) / total))
    rows = np.repeat(np.arange(len(counts)), counts)
    full = Batch(x[rows], target[rows], np.full(total, 1 / total))
    second = gradient(np, SPEC, repeated, full)
    assert float(first) == pytest.approx(float(second), rel=SAME_SUM)
    scale = np.abs(repeated.grad).max()
    np.testing.assert_allclose(weighted.grad, repeated.grad, rtol=0, atol=10 * SAME_SUM * scale)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_rows_of_weight_zero_change_nothing(real, padding, seed):
    rng = np.random.default_rng(seed)
    x, target, weight = rows_of(SPEC, rng, real)
    unpadded, padded = state_of(SPEC), state_of(SPEC)
    first = gradient(np, SPEC, unpadded, Batch(x, target, weight))
    rows = np.concatenate([np.arange(real), np.zeros(padding, dtype=int)])
    zeros = np.concatenate([weight, np.zeros(padding)])
    second = gradient(np, SPEC, padded, Batch(x[rows], target[rows], zeros))
    assert float(first) == pytest.approx(float(second), rel=SAME_SUM)
    scale = np.abs(unpadded.grad).max()
    np.testing.assert_allclose(padded.grad, unpadded.grad, rtol=0, atol=10 * SAME_SUM * scale)


def test_gradients_of_ranks_add_up_to_the_batch_gradient(rng):
    x, target, weight = rows_of(SPEC, rng, 12)
    whole = state_of(SPEC)
    value = gradient(np, SPEC, whole, Batch(x, target, weight))
    parts, values = [], []
    for part in (slice(0, 5), slice(5, 12)):
        rank = state_of(SPEC)
        values.append(gradient(np, SPEC, rank, Batch(x[part], target[part], weight[part])))
        parts.append(rank.grad)
    assert float(sum(values)) == pytest.approx(float(value), rel=SAME_SUM)
    np.testing.assert_allclose(sum(parts), whole.grad, rtol=0, atol=SAME_SUM)


# Penalties, norms, clipping


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.3), (0.2, 0.0), (0.2, 0.3)])
def test_penalty_is_added_once_and_its_gradient_is_its_derivative(lead, l1, l2, rng):
    state, batch = state_of(SPEC, "sgd", lead), batch_of(SPEC, rng, 6, lead)
    gradient(np, SPEC, state, batch)
    before, theta = state.grad.copy(), state.params.copy()
    weights = block_factors(np, SPEC, state.params, "decay_factor")
    value = penalized(np, state, l1 * weights, l2 * weights)
    assert value.shape == lead

    def penalty(flat):
        parts = [pair.weights for pair in windows(np, SPEC, flat)]
        axes = (-2, -1)
        return sum(l1 * np.abs(w).sum(axis=axes) + l2 / 2 * (w * w).sum(axis=axes) for w in parts)

    np.testing.assert_allclose(value, penalty(theta), rtol=1e-12)
    clear_of_kink = np.where(np.abs(theta) > 1e-4, 1.0, 0.0)  # clear of |theta|'s kink
    direction = clear_of_kink * rng.standard_normal(theta.shape)
    slope = (penalty(theta + 1e-5 * direction) - penalty(theta - 1e-5 * direction)) / 2e-5
    added = np.sum((state.grad - before) * direction, axis=-1)
    np.testing.assert_allclose(added, slope, rtol=1e-6, atol=DIFFERENCE)
    assert np.array_equal(state.params, theta)


def test_penalty_may_differ_by_member(place):
    weights = block_factors(np, SPEC, initial_params(SPEC), "decay_factor")
    l2 = np.array([[0.0], [0.5]]) * weights
    state = new_state(place.xp, SPEC, optimizer("sgd"), to_place(place, initial_params(SPEC, (2,))))
    l2 = to_place(place, l2)
    value = to_host(penalized(place.xp, state, 0.0 * l2, l2))
    theta = to_host(state.params)
    np.testing.assert_allclose(value, [0, 0.25 * np.sum((weights * theta[1]) ** 2)], rtol=1e-12)
    np.testing.assert_allclose(to_host(state.grad), to_host(l2) * theta, rtol=1e-14)


@pytest.mark.parametrize("lead", [(), (4,)])
def test_the_norm_is_each_members_own(place, lead, rng):
    grad = rng.standard_normal((*lead, 64))
    norm = np.sqrt(to_host(squared_norm(place.xp, to_place(place, grad))))
    assert norm.shape == lead
    np.testing.assert_allclose(norm, np.linalg.norm(grad, axis=-1), rtol=1e-14)


def test_clip_scales_only_gradients_above_the_limit(place, rng):
    spec = Spec.parse("2-3")
    state = new_state(place.xp, spec, optimizer("sgd"), to_place(place, initial_params(spec, (3,))))
    sizes = np.array([[0.5], [2.0], [0.0]])
    directions = rng.standard_normal((3, padded_size(spec)))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    state.grad[...] = to_place(place, sizes * directions)
    norm = to_host(clip(place.xp, state, 1.0))
    np.testing.assert_allclose(norm, sizes[:, 0], rtol=1e-14)
    clipped = to_host(state.grad)
    assert np.array_equal(clipped[0], 0.5 * directions[0])
    np.testing.assert_allclose(clipped[1], directions[1], rtol=1e-14)
    assert not clipped[2].any()


# Shapes that do not fit


@pytest.mark.parametrize(
    ("name", "shape", "shapes"),
    [
        ("squared_error", (8, 2), "(B, 3), (B, 3) -> (B, 3) = z2"),
        ("squared_error", (8, 1), "(B, 3), (B, 3) -> (B, 3) = z2"),
        ("squared_error", (7, 3), "(B, 3), (B, 3) -> (B, 3) = z2"),
        ("cross_entropy", (8, 1), "(B, 3), (B, 3) -> (B, 3) = z2"),
        ("quantile:0.1,0.5,0.9", (8, 3), "(B, 3), (B, 1) -> (B, 3) = z2"),
    ],
)
def test_a_mismatched_target_quotes_the_ledger(place, name, shape, shapes):
    spec = Spec.parse("2-4-3", loss=name)
    state = new_state(place.xp, spec, optimizer("sgd"), to_place(place, initial_params(spec)))
    x, weight = to_place(place, np.ones((8, 2))), to_place(place, np.ones(8))
    batch = Batch(x, to_place(place, np.ones(shape)), weight)
    with pytest.raises(ShapeError) as caught:
        gradient(place.xp, spec, state, batch)
    first, second = str(caught.value).splitlines()
    formula = f"d2 = {name}'(a2, target)"
    assert first.startswith(f"the target is {shape} but the score a2 of layer 2 is (8, 3)")
    assert formula in first
    assert second == f"  ledger: {formula}   {shapes}"


def test_a_mismatched_x_is_named(rng):
    state, batch = state_of(SPEC), batch_of(SPEC, rng, 6)
    with pytest.raises(ShapeError, match=r"x has 4 columns but W1 has 5 rows: layer 1 computes"):
        gradient(np, SPEC, state, batch._replace(x=batch.x[:, :4]))


def test_an_error_leaves_the_state_unchanged(rng):
    state, batch = state_of(SPEC, "adam"), batch_of(SPEC, rng, 6)
    step(np, SPEC, state, batch, "adam")
    parts = [state.step, state.params, state.grad, *state.slots]
    before = copies(*parts)
    with pytest.raises(ShapeError):
        gradient(np, SPEC, state, batch._replace(target=batch.target[:, :1]))
    assert all(map(np.array_equal, parts, before))


def test_dropout_bits_depend_only_on_the_states_step():
    # the words of step t are a function of state.step: nothing else has to be saved
    state = state_of(SPEC)
    key = dropout_keys([0], (), 0).astype("uint32")

    def words_at(now):
        return words(np, *counters(np, key, now, (3, 4)))

    first = words_at(state.step)
    state.step[...] = 5
    assert not np.array_equal(first, words_at(state.step))
    state.step[...] = 0
    assert np.array_equal(first, words_at(state.step))
