"""Minibatches, epoch orders and row weights."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp import Spec, new_state, train
from xpmlp.devices.namespace import CPU, to_host, to_place
from xpmlp.initializers import initial
from xpmlp.optimizers import optimizer
from xpmlp.step import gradient
from xpmlp.training.batches import epoch_order, minibatch, sequential_order, windows
from xpmlp.training.data import DeviceRows, StreamedRows, prepare
from xpmlp.training.labels import Labels

EXACT = 1e-12  # relative: the same float64 terms, added in another order


def flat(model):
    return to_host(model.flat)


def prepared_data(spec, X, y, place=CPU, **arguments):
    return prepare(X, y, spec, place, "float64", **arguments)[0]


def initial_params(place, spec, seed=0):
    params = to_place(place, initial(spec, seed), "float64")
    return new_state(place.xp, spec, optimizer("sgd"), params)


def batches(place, data, orders, size, steps=3):
    for gather in windows(place, data, orders, size, steps):
        window = gather()
        for t in range(window.steps):
            yield minibatch(window, t)


def gradient_of(place, spec, data, orders, size):
    """The mean of the batches' gradients and losses, weighted by their share of the rows."""
    state, total, loss = initial_params(place, spec), 0.0, 0.0
    for batch, share, _ in batches(place, data, orders, size):
        value = gradient(place.xp, spec, state, batch)
        total = total + to_host(share) * to_host(state.grad)
        loss = loss + to_host(share) * to_host(value)
    return total, loss


# orders


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(1, 200))
def test_an_order_is_a_permutation(seed, epoch, count):
    assert sorted(epoch_order((seed,), (), epoch, count)) == list(range(count))


def test_unshuffled_rows_keep_their_order_for_every_member():
    assert sequential_order((1, 2), (2,), 5, 4).tolist() == [[0, 1, 2, 3]] * 2
    assert sequential_order((1,), (), 5, 4).tolist() == [0, 1, 2, 3]


def test_take_gives_each_member_its_own_rows(place):
    values = to_place(place, np.arange(12.0).reshape(4, 3))
    index = np.array([[3, 0], [1, 1]])
    index_there = to_place(place, index)
    actual = DeviceRows(place.xp, values).take(index_there)
    assert (to_host(actual) == np.arange(12.0).reshape(4, 3)[index]).all()


@pytest.mark.parametrize("members", [(), (2,)])
def test_streamed_rows_equal_device_rows(place, members, optional):
    csr = optional("scipy.sparse").csr_array
    X = np.round(np.random.default_rng(0).normal(size=(7, 3)))
    expected_rows = DeviceRows(place.xp, to_place(place, X, "float32"))
    index = epoch_order((1,) * (members or (1,))[0], members, 0, 7)[..., :5]
    index_there = to_place(place, index)
    for host_rows in (X, csr(X)):
        streamed = StreamedRows(place, host_rows, "float32")
        assert streamed.shape == expected_rows.shape == (7, 3)
        for actual, expected in (
            (streamed.take(index), expected_rows.take(index_there)),
            (streamed.slice(2, 6), expected_rows.slice(2, 6)),
        ):
            assert actual.dtype == expected.dtype
            assert (to_host(actual) == to_host(expected)).all()


# batches


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_batches_have_one_shape_and_hold_every_row_once(count, size, seed):
    size = min(size, count)
    X = np.arange(count, dtype=float)[:, None]
    data = prepared_data(Spec.parse("1-1"), X, X[:, 0])
    orders = epoch_order((seed,), (), 0, count)
    row_numbers, shares = [], 0.0
    for batch, share, _ in batches(CPU, data, orders, size):
        assert batch.x.shape == batch.target.shape == (size, 1)
        assert batch.weight.shape == (size,)
        assert batch.weight.sum() == pytest.approx(1, rel=EXACT)
        row_numbers += batch.x[batch.weight > 0, 0].tolist()
        shares += share
    assert row_numbers == orders.tolist()
    assert shares == pytest.approx(1, rel=EXACT)


def test_padding_repeats_a_row_with_weight_zero(place):
    data = prepared_data(Spec.parse("1-1"), [[1.0], [2.0], [3.0]], [4.0, 5.0, 6.0], place)
    *_, (last, share, _) = batches(place, data, np.array([2, 0, 1]), 2)
    assert to_host(last.x).tolist() == [[2.0], [2.0]]
    assert to_host(last.target).tolist() == [[5.0], [5.0]]
    assert to_host(last.weight).tolist() == [1.0, 0.0]
    assert float(share) == 1 / 3


def test_members_batches_follow_their_own_orders(place):
    X = np.arange(5.0)[:, None]
    data = prepared_data(Spec.parse("1-1"), X, X[:, 0], place)
    orders = epoch_order((3, 4), (2,), 0, 5)
    for i, (batch, *_) in enumerate(batches(place, data, orders, 2)):
        real = orders[:, 2 * i : 2 * i + 2]
        assert tuple(batch.x.shape) == (2, 2, 1)
        assert (to_host(batch.x)[:, : real.shape[1], 0] == real).all()


# weights


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=25).filter(any),
    st.integers(1, 25),
    st.booleans(),
)
def test_batch_gradients_average_to_the_full_gradient(weights, size, shuffled):
    count = len(weights)
    size = min(size, count)
    rng = np.random.default_rng(count)
    spec = Spec.parse("2-4-2", activation="tanh")
    data = prepared_data(
        spec, rng.normal(size=(count, 2)), rng.normal(size=(count, 2)), sample_weight=weights
    )
    orders = (epoch_order if shuffled else sequential_order)((1,), (), 0, count)
    actual, loss = gradient_of(CPU, spec, data, orders, size)
    full, full_loss = gradient_of(CPU, spec, data, np.arange(count), count)
    assert np.allclose(actual, full, rtol=EXACT, atol=EXACT)
    assert loss == pytest.approx(full_loss, rel=EXACT)


def test_batch_gradients_average_to_the_full_gradient_everywhere(place, rng):
    spec = Spec.parse("2-4-2")
    X, y, weight = rng.normal(size=(11, 2)), rng.normal(size=(11, 2)), rng.uniform(size=11)
    device_data = prepared_data(spec, X, y, place, sample_weight=weight)
    actual, _ = gradient_of(place, spec, device_data, epoch_order((1,), (), 0, 11), 4)
    full, _ = gradient_of(
        CPU, spec, prepared_data(spec, X, y, sample_weight=weight), np.arange(11), 11
    )
    assert np.allclose(actual, full, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_integer_weights_equal_repeated_rows(loss, rng):
    X, times = rng.normal(size=(12, 2)), rng.integers(0, 4, size=12)
    y = (X[:, 0] > 0).astype(int)
    common = {"loss": loss, "epochs": 20, "shuffle": False, "learning_rate": 0.01}
    weighted = train("2-5-1", X, y, sample_weight=times, **common)
    repeated = train("2-5-1", X.repeat(times, axis=0), y.repeat(times), **common)
    assert np.allclose(flat(weighted), flat(repeated), rtol=1e-9, atol=1e-9)  # 20 steps of adam
    assert weighted.history["loss"] == pytest.approx(repeated.history["loss"], rel=1e-9)


def test_only_the_ratio_of_sample_weights_matters(rng):
    X, y, weight = rng.normal(size=(20, 2)), rng.normal(size=20), rng.uniform(size=20)
    expected = train("2-5-1", X, y, sample_weight=weight, epochs=3)
    for factor in (1e-8, 1e8):
        actual = train("2-5-1", X, y, sample_weight=factor * weight, epochs=3)
        assert np.allclose(flat(expected), flat(actual), rtol=1e-9, atol=1e-9)
    even = train("2-5-1", X, y, sample_weight=np.full(20, 3), epochs=3)
    assert (flat(even) == flat(train("2-5-1", X, y, epochs=3))).all()


@pytest.mark.parametrize("scale", [1e-310, 1e308], ids=str)
def test_the_largest_and_smallest_weights_count_the_same(scale, rng):
    X, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    even = train("2-5-1", X, y, epochs=2)
    actual = train("2-5-1", X, y, epochs=2, sample_weight=np.full(20, scale))
    assert np.allclose(flat(actual), flat(even), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_balanced_positives_have_half_of_the_weight(size):
    y = np.zeros(1000, dtype=int)
    y[:10] = 1  # 1% positives
    X = np.ones((1000, 1))
    data = prepared_data(
        Spec.parse("1-1", loss="binary_cross_entropy"), X, y, class_weight="balanced"
    )
    positive = total = 0.0
    for batch, share, _ in batches(CPU, data, epoch_order((0,), (), 0, 1000), size):
        positive += share * (batch.weight * batch.target[:, 0]).sum()
        total += share * batch.weight.sum()
    assert total == pytest.approx(1, rel=1e-9)
    assert positive == pytest.approx(0.5, rel=1e-9)


def test_class_weights_equal_sample_weights(rng):
    X = rng.normal(size=(30, 2))
    y = np.array(["a", "b", "c"])[np.arange(30) % 3]
    common = {"loss": "cross_entropy", "epochs": 3}
    named = train("2-5-3", X, y, class_weight={"a": 3, "c": 0.5}, **common)
    weight = np.array([3, 1, 0.5])[np.arange(30) % 3]
    assert np.allclose(flat(named), flat(train("2-5-3", X, y, sample_weight=weight, **common)))
    combined = train("2-5-3", X, y, class_weight={"a": 3}, sample_weight=weight, **common)
    product = weight * np.array([3, 1, 1])[np.arange(30) % 3]
    assert np.allclose(flat(combined), flat(train("2-5-3", X, y, sample_weight=product, **common)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_batch_of_zero_weights_is_harmless(optimizer, rng):
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    weight = np.array([0.0] * 8 + [1.0] * 4)
    model = train(
        "2-4-1",
        X,
        y,
        sample_weight=weight,
        shuffle=False,
        batch_size=4,
        epochs=4,
        optimizer=optimizer,
    )
    assert np.isfinite(flat(model)).all()
    assert np.isfinite(model.history["loss"]).all()


def test_rows_of_zero_weight_do_not_change_training(rng):
    X, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    weight = np.array([1.0, 0.0] * 6)
    other_targets = np.where(weight > 0, y, 1e6)
    common = {"sample_weight": weight, "epochs": 4, "batch_size": 5}
    assert (
        flat(train("2-4-1", X, y, **common)) == flat(train("2-4-1", X, other_targets, **common))
    ).all()


def test_validation_weights_apply_to_validation_measures(rng):
    X, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    weight = rng.integers(0, 3, size=20)
    weighted = train("2-4-1", X, y, X_val=X, y_val=y, sample_weight_val=weight, epochs=2)
    repeated = train(
        "2-4-1", X, y, X_val=X.repeat(weight, axis=0), y_val=y.repeat(weight), epochs=2
    )
    for name in ("val_loss", "val_score"):
        assert weighted.history[name] == pytest.approx(repeated.history[name], rel=EXACT)


def test_a_float16_array_trains_in_float32_and_integers_in_float64(rng):
    X, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    assert train("2-1", X.astype(np.float16), y, epochs=1).flat.dtype == np.float32
    assert train("2-1", X.astype(int), y, epochs=1).flat.dtype == np.float64
    assert train("2-1", X.tolist(), y, epochs=1).flat.dtype == np.float64


def test_prepare_returns_the_labels_of_y():
    spec = Spec.parse("1-1")
    X = [[1.0], [2.0]]
    assert prepare(X, [1.0, 2.0], spec, CPU, "float64")[1] == Labels(None, True)
    assert prepare(X, [[1.0], [2.0]], spec, CPU, "float64")[1] == Labels(None, False)
