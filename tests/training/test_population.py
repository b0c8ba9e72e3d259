"""A population of K networks trains as K single networks."""

import numpy as np
import pytest

from xpmlp import DivergedError, Spec, epochs, train
from xpmlp.devices.namespace import to_host
from xpmlp.random import dropout_keys, mask, order
from xpmlp.training.batches import epoch_order

pytestmark = pytest.mark.filterwarnings("ignore:.* diverged and (is|are) stopped")

EXACT = 1e-12  # relative: one product for all members may add up in another order than K products
K = 7
RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


def rows(rng, count=45):
    X = rng.normal(size=(count, 4))
    return X, np.column_stack([np.sin(X).sum(axis=1), X[:, 0] * X[:, 1]])


def is_close(actual, expected):
    return np.allclose(to_host(actual), to_host(expected), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov"])
def test_members_equal_single_runs(optimizer, rng):
    X, y = rows(rng)
    spec = Spec.parse("4-9-5-2", dropout=[0.3, 0.1])
    # 45 rows by 8: 6 steps an epoch, the last one ragged; 54 steps
    common = {
        "epochs": 9, "batch_size": 8, "optimizer": optimizer, "X_val": X[:10], "y_val": y[:10],
        "clip": 5.0,
    }  # fmt: skip
    population = train(spec, X, y, members=K, learning_rate=RATES, seed=100, **common)
    assert population.members == K
    for k, rate in enumerate(RATES):
        single = train(spec, X, y, learning_rate=rate, seed=100 + k, **common)
        assert is_close(population.flat[k], single.flat)
        member = population.member(k)
        assert is_close(member.predict(X), single.predict(X))
        assert is_close(population.predict(X)[k], single.predict(X))
        for name in ("loss", "learning_rate", "grad_norm", "val_loss", "val_score", "best_epoch"):
            assert np.allclose(member.history[name], single.history[name], rtol=1e-10), name
            assert list(map(type, member.history[name])) == list(map(type, single.history[name]))


def test_a_population_in_every_namespace_equals_single_runs(place, rng):
    X, y = rows(rng, 20)
    X, y = (place.xp.asarray(a, device=place.device) for a in (X, y))
    spec = Spec.parse("4-6-2", dropout=0.25)
    common = {"epochs": 6, "batch_size": 8}
    population = train(spec, X, y, members=3, learning_rate=[1e-3, 1e-2, 1e-1], seed=4, **common)
    for k, rate in enumerate([1e-3, 1e-2, 1e-1]):
        single = train(spec, X, y, learning_rate=rate, seed=4 + k, **common)
        assert is_close(population.flat[k, ...], single.flat)


@pytest.mark.parametrize(
    "per_member",
    [
        {"l2": [0.0, 0.1, 1.0]},
        {"l1": [0.0, 0.1, 1.0]},
        {"weight_decay": [0.0, 0.1, 1.0]},
        {"weight_decay": np.array([0.0, 0.1, 1.0])},
        {"learning_rate": np.array([1e-3, 1e-2, 3e-2])},
        {"optimizer_params": {"beta1": [0.0, 0.5, 0.9]}},
        {"optimizer_params": {"beta2": np.array([0.9, 0.99, 0.999]), "eps": [1e-8, 1e-6, 1e-4]}},
    ],
    ids=str,
)
def test_settings_per_member_apply_to_each_member(per_member, rng):
    X, y = rows(rng, 20)
    population = train("4-6-2", X, y, members=3, epochs=5, **per_member)
    for k in range(3):
        member_settings = {
            name: {n: v[k] for n, v in value.items()} if isinstance(value, dict) else value[k]
            for name, value in per_member.items()
        }
        single = train("4-6-2", X, y, seed=k, epochs=5, **member_settings)
        assert is_close(population.flat[k], single.flat)


def test_the_default_is_one_network_without_a_leading_axis(rng):
    X, y = rows(rng, 20)
    single, population = train("4-2", X, y, epochs=2), train("4-2", X, y, epochs=2, members=1)
    assert (single.flat.ndim, population.flat.ndim) == (1, 2)
    assert (single.members, population.members) == (None, 1)
    assert (population.flat[0] == single.flat).all()
    assert population.predict(X).shape == (1, 20, 2)


def test_seeds_may_be_listed(rng):
    X, y = rows(rng, 20)
    listed = train("4-5-2", X, y, epochs=2, members=2, seed=[9, 3])
    for k, seed in enumerate((9, 3)):
        assert is_close(listed.flat[k], train("4-5-2", X, y, epochs=2, seed=seed).flat)


def test_orders_of_a_population_depend_on_its_seeds():
    seeds = tuple(range(50, 57))
    orders = epoch_order(seeds, (K,), 3, 29)
    assert orders.shape == (K, 29)
    for k, seed in enumerate(seeds):
        assert (orders[k] == order(seed, 3, 29)).all()
        assert (orders[k] == epoch_order((seed,), (), 3, 29)).all()
        assert sorted(orders[k]) == list(range(29))
    assert len({tuple(member_order) for member_order in orders}) == K
    assert (epoch_order(seeds, (K,), 4, 29) != orders).any()


def test_masks_of_a_population_depend_on_its_seeds():
    seeds = tuple(range(50, 57))
    population_keys = dropout_keys(seeds, (K,), 1).astype(np.uint32)
    step = np.asarray(12)
    masks = mask(np, population_keys, step, 0.4, (8, 5), "float64")
    for k, seed in enumerate(seeds):
        single_keys = dropout_keys((seed,), (), 1).astype(np.uint32)
        assert (mask(np, single_keys, step, 0.4, (8, 5), "float64") == masks[k]).all()


@pytest.mark.parametrize("held_out", [True, False])
def test_a_diverging_member_disturbs_nobody(held_out, rng):
    X, y = rows(rng)
    val_rows = {"X_val": X[:9], "y_val": y[:9]} if held_out else {}
    common = {"epochs": 12, "optimizer": "sgd", "batch_size": 8} | val_rows
    rates = [1e-3, 1e30, 1e-2]
    population = train("4-6-6-2", X, y, members=3, learning_rate=rates, **common)
    assert np.isfinite(population.flat).all()
    for k in (0, 2):
        single = train("4-6-6-2", X, y, learning_rate=rates[k], seed=k, **common)
        assert is_close(population.flat[k], single.flat)
        assert np.isfinite(population.member(k).history["loss"]).all()
    assert not np.isfinite(population.member(1).history["loss"]).all()
    assert population.member(1).history["learning_rate"][-1] == 0


def test_training_ends_when_every_member_has_diverged(rng):
    X, y = rows(rng)
    with pytest.raises(DivergedError) as caught:
        train("4-6-6-2", X, y, members=2, learning_rate=[1e30, 1e40], optimizer="sgd")
    assert caught.value.model.members == 2
    assert np.isfinite(caught.value.model.flat).all()


def test_each_member_keeps_its_best_weights(rng):
    X, y = rows(rng)
    actual = train(
        "4-8-2",
        X,
        y,
        members=3,
        learning_rate=[0.3, 0.1, 0.01],
        epochs=15,
        X_val=X[:15],
        y_val=y[:15],
    )
    losses = np.array(actual.history["val_loss"])
    assert len(set(losses.argmin(axis=0))) > 1
    measured = 0.5 * ((actual.predict(X[:15]) - y[:15]) ** 2).sum(axis=-1).mean(axis=-1)
    assert np.allclose(measured, losses.min(axis=0), rtol=EXACT)


def test_a_stopped_member_keeps_its_weights_while_others_train(rng):
    X, y = rows(rng)
    weights = {}
    for report in epochs("4-6-2", X, y, members=3, epochs=6, optimizer="momentum"):
        if report.epoch == 2:
            report.stop(np.array([False, True, False]))
        weights[report.epoch] = report.model().flat.copy()
    assert (weights[6][1] == weights[2][1]).all()
    for k in (0, 2):
        assert (weights[6][k] != weights[2][k]).any()
        single = train("4-6-2", X, y, seed=k, epochs=6, optimizer="momentum")
        assert is_close(weights[6][k], single.flat)


def test_patience_acts_per_member(rng):
    X, y = rows(rng)
    common = {"X_val": X, "y_val": -y, "patience": 3, "epochs": 30, "batch_size": 8}
    rates = [0.1, 1e-7, 0.03]
    population = train("4-6-2", X, y, members=3, learning_rate=rates, **common)
    for k, rate in enumerate(rates):
        single = train("4-6-2", X, y, learning_rate=rate, seed=k, **common)
        assert is_close(population.flat[k], single.flat)
        stopped_at = len(single.history["learning_rate"])
        rate_after = [entry[k] for entry in population.history["learning_rate"][stopped_at:]]
        assert all(value == 0 for value in rate_after)


def test_member_returns_a_separate_model(rng):
    X, y = rows(rng)
    population = train("4-6-2", X, y, members=3, epochs=2)
    member = population.member(-1)
    assert member.members is None
    assert (member.flat == population.flat[2]).all()
    assert not np.shares_memory(member.flat, population.flat)
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=str(wrong)):
            population.member(wrong)
    with pytest.raises(IndexError, match="no members"):
        member.member(0)


def test_labels_of_a_population_have_a_leading_axis(rng):
    X = rng.normal(size=(20, 2))
    y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
    for sizes, name in (("2-5-1", "binary_cross_entropy"), ("2-5-2", "cross_entropy")):
        model = train(sizes, X, y, loss=name, members=3, epochs=2)
        assert model.predict(X).shape == (3, 20)
        assert model.predict_proba(X).shape == (3, 20, 2)
        assert (model.predict(X)[1] == model.member(1).predict(X)).all()
