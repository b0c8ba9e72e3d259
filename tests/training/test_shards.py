"""A population run section by section, on several threads, learns what it learns as a whole."""

import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from xpmlp import Spec, epochs, plateau, train
from xpmlp.devices import threads as products
from xpmlp.losses import Loss
from xpmlp.recording import sharded as members
from xpmlp.recording.executors import EagerExecutor
from xpmlp.recording.sharded import ShardedExecutor, shard_indices
from xpmlp.training import setup
from xpmlp.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.* diverged and (is|are) stopped")

SIZES = {"one by one": 1, "some at a time": 2_700, "by halves": 2**20}
SETTINGS = {
    "plain": {},
    "dropout": {"dropout": 0.2},
    "rates of their own": {"learning_rate": [0.1, 0.02, 0.01, 0.03, 0.05], "schedule": "cosine"},
    "penalties": {"l1": [0.0, 0.01, 0.02, 0.0, 0.1], "l2": 0.1, "clip": 0.5},
    "decay": {"optimizer": "adamw", "weight_decay": [0.0, 0.1, 0.2, 0.3, 0.4]},
    "decay for all": {"optimizer": "adamw", "weight_decay": 0.1},
    "optimizer_params": {"optimizer_params": {"beta2": [0.9, 0.95, 0.99, 0.999, 0.98]}},
    "patience": {"patience": 2, "keep": "best"},
    "callbacks": {"callbacks": [plateau(patience=1)]},
    "one that diverges": {"optimizer": "sgd", "learning_rate": [0.1, 1e30, 0.1, 0.1, 0.1]},
    "restored": {
        "optimizer": "sgd", "learning_rate": [0.1, 1e30, 0.1, 0.1, 0.1], "on_divergence": "restore",
    },
    "a tail": {"batch_size": 7},
}  # fmt: skip


@pytest.fixture
def threads(monkeypatch, optional):
    """BLAS has two threads, and a population of any size is worth them."""
    optional("threadpoolctl")
    monkeypatch.setattr(setup, "blas_threads", lambda most=None: most or 2)
    monkeypatch.setattr(members, "MIN_THREADED_SIZE", 0)


def learned(rng_seed=3, *, dropout=0.0, **more):
    rng = np.random.default_rng(rng_seed)
    X = rng.normal(size=(40, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=40)
    spec = Spec.parse("4-6-3-1", dropout=dropout)
    given = {"members": 5, "batch_size": 8, "epochs": 20} | more
    return train(spec, X, y, X_val=X[:9], y_val=y[:9], **given)


def close(one, other):
    """To what the last bit of a step grows to, in history too."""
    np.testing.assert_allclose(one.flat, other.flat, rtol=1e-9, atol=1e-12)
    for name, values in other.history.items():
        if name not in ("seconds", "executor"):
            np.testing.assert_allclose(
                np.array(one.history[name]), np.array(values), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_sections_learn_what_the_population_learns(setting, size, threads, monkeypatch):
    whole = learned(**SETTINGS[setting], capture=False)
    assert {*whole.history["executor"]} == {"eager"}
    monkeypatch.setattr(members, "SHARD_SIZE", SIZES[size])
    cuts = []
    monkeypatch.setattr(
        setup, "shard_indices", lambda *given: cuts.append(shard_indices(*given)) or cuts[-1]
    )
    model = learned(**SETTINGS[setting])
    assert len(cuts[0]) in {"one by one": [5], "some at a time": [2, 4], "by halves": [2]}[size]
    assert {*model.history["executor"]} == {"replayed"}
    close(model, whole)


@pytest.mark.parametrize("setting", ["plain", "dropout"])
def test_a_section_of_one_is_the_network_alone_bit_for_bit(setting, threads, monkeypatch):
    monkeypatch.setattr(members, "SHARD_SIZE", 1)
    population = learned(**SETTINGS[setting], keep="last")
    for k in range(5):
        alone = learned(**SETTINGS[setting], keep="last", members=None, seed=k)
        assert population.member(k).flat.tobytes() == alone.flat.tobytes()


def test_another_number_of_threads_learns_the_same(threads, monkeypatch):
    two = learned()
    monkeypatch.setattr(setup, "blas_threads", lambda most=None: 1)
    close(learned(), two)


class Stop(Exception):
    pass


def stopping(report):
    raise Stop


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize("setting", ["dropout", "patience", "restored", "a tail"])
def test_a_training_that_is_resumed_has_the_same_bits(
    setting, window, threads, tmp_path, monkeypatch
):
    """Stopped by a signal in a window of some of an epoch's steps, or after an epoch."""
    monkeypatch.setattr(members, "MAX_WINDOW", 3)
    monkeypatch.setattr(members, "SHARD_SIZE", 2_700)
    through, kept = learned(**SETTINGS[setting]), tmp_path / "run.ckpt"
    run, made, stops = ShardedExecutor.run, [], 0

    def counted(self, step, gather, counter):
        epoch = int(step.state.step) // step.steps_per_epoch
        run(self, step, gather, counter)
        made.append(1)
        if len(made) % window == 0 and epoch < 19:
            counter.stop_signal = 2

    monkeypatch.setattr(ShardedExecutor, "run", counted)
    while True:
        last = [stopping] if stops % 5 == 4 else []
        try:
            with_them = SETTINGS[setting] | {"callbacks": last}
            model = learned(**with_them, checkpoint=kept, resume=True)
        except (KeyboardInterrupt, Stop):
            stops += 1
            continue
        break
    assert stops > 3
    assert model.flat.tobytes() == through.flat.tobytes()
    np.testing.assert_array_equal(model.history["loss"], through.history["loss"])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("each", [1, 1000, 2**20])
@pytest.mark.parametrize("among", [1, 2, 4])
def test_every_member_is_in_one_section(count, each, among):
    found = [
        np.atleast_1d(np.arange(count)[index[0]]) for index in shard_indices(count, each, among)
    ]
    assert np.concatenate(found).tolist() == list(range(count))
    sizes = {len(one) for one in found}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * each <= max(members.SHARD_SIZE, each)


def test_functions_of_a_users_are_called_by_one_thread(threads):
    seen = set()

    def value(xp, score, target):
        seen.add(threading.get_ident())
        return xp.sum((score - target) ** 2, axis=-1)

    def delta(xp, score, target):
        return 2 * (score - target)

    model = learned(loss=Loss(value, delta, lambda xp, score: score))
    assert {*model.history["executor"]} == {"eager"}
    assert seen == {threading.get_ident()}


def test_an_error_in_another_thread_is_this_ones(threads, monkeypatch):
    def broken(self, *given):
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError("over there")
        return work(self, *given)

    work = ShardedExecutor.run_shards
    monkeypatch.setattr(ShardedExecutor, "run_shards", broken)
    with pytest.raises(ZeroDivisionError, match="over there"):
        learned()


def test_threads_end_with_the_training(threads):
    before = threading.active_count()
    learned()
    X = np.ones((40, 4)) * np.arange(40)[:, None] / 40
    reports = epochs("4-3-1", X, X[:, 0], members=4, batch_size=8, epochs=20)
    for _ in range(2):  # the first epoch records
        next(reports)
    assert threading.active_count() == before + 1
    reports.close()
    assert threading.active_count() == before


def test_products_have_their_threads_again(optional):
    """They have one while the sections have several."""
    pools = optional("threadpoolctl")

    def counts():
        return [p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"]

    before, seen = counts(), []
    way = ShardedExecutor([(0, ...), (1, ...)], 2, lambda run, index: None)
    with way.open():
        seen += counts()
    assert set(seen) <= {1}
    assert counts() == before


@contextmanager
def elsewhere(most):
    """Another thread has that limit."""
    entered, over = threading.Event(), threading.Event()

    def hold():
        with products.limit_threads(most):
            entered.set()
            over.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert entered.wait(60)
    try:
        yield
    finally:
        over.set()
        other.join()


@pytest.fixture
def two(optional):
    """BLAS has two threads, and no thread is in charge of that."""
    optional("threadpoolctl")

    def have(count):
        given = {"limits": count, "user_api": "blas"}
        other = threading.Thread(target=products.controller().limit, kwargs=given)
        other.start()
        other.join()

    before = products.current_thread_count()
    if before is None:
        pytest.skip("threadpoolctl knows no BLAS here")
    have(2)
    yield
    have(before)


def test_limits_of_several_threads_leave_the_count_as_it_was(two, optional):
    """Whoever comes first has its limit; all know what they may have themselves."""
    pools = optional("threadpoolctl")

    def counts():
        return {p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"}

    before, most = counts(), products.blas_threads()
    assert most == 2
    other = elsewhere(1)
    other.__enter__()
    assert counts() == {1}
    assert products.blas_threads() == most  # that limit is not ours
    with products.limit_threads(1), products.limit_threads(None):
        assert products.blas_threads() == 1
        other.__exit__(None, None, None)  # in the order of entry
    assert counts() == before
    with products.limit_threads(1), elsewhere(1):
        assert counts() == {1}
    assert counts() == before
    assert products.blas_threads() == most


def test_the_limit_of_another_training_changes_no_section(two, monkeypatch):
    monkeypatch.setattr(members, "MIN_THREADED_SIZE", 0)
    cuts = []
    monkeypatch.setattr(
        setup, "shard_indices", lambda *given: cuts.append(shard_indices(*given)) or cuts[-1]
    )
    learned(epochs=70)
    with elsewhere(1):
        learned(epochs=70)
    with products.limit_threads(1):
        learned(epochs=70)
    assert [len(each) for each in cuts] == [2, 2, 1]


def test_without_threadpoolctl_there_is_one_thread(monkeypatch):
    monkeypatch.setattr(products, "controller", lambda: None)
    assert products.blas_threads() == 1
    assert EagerExecutor.name not in learned().history["executor"]


# one network


def asked_for(optional, monkeypatch, spec, **more):
    """How many threads products have while a network is trained, and afterwards."""
    pools = optional("threadpoolctl")

    def counts():
        return {p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"}

    seen, windows = [], Trainer.windows

    def watched(trainer):
        seen.extend(counts())
        yield from windows(trainer)

    monkeypatch.setattr(Trainer, "windows", watched)
    with pools.threadpool_limits(2, user_api="blas"):
        before = counts()
        rng = np.random.default_rng(0)
        X = rng.normal(size=(300, int(spec.partition("-")[0])))
        train(spec, X, X[:, 0], **{"epochs": 1} | more)
        assert counts() == before
    return max(seen), max(before)


def test_small_products_have_one_thread_and_large_ones_all(optional, monkeypatch):
    assert asked_for(optional, monkeypatch, "64-100-1", batch_size=200)[0] == 1
    seen, before = asked_for(optional, monkeypatch, "200-100-1", batch_size=300)
    assert seen == before


def test_n_threads_is_the_most_that_a_product_has(optional, monkeypatch):
    large = {"batch_size": 300}
    assert asked_for(optional, monkeypatch, "200-100-1", n_threads=1, **large)[0] == 1
    seen, before = asked_for(optional, monkeypatch, "200-100-1", n_threads=64, **large)
    assert seen == before


def test_n_threads_is_the_most_that_a_product_of_sections_has(optional, monkeypatch):
    monkeypatch.setattr(members, "SHARD_SIZE", 1)
    large = {"batch_size": 300, "members": 3, "epochs": 70}
    assert asked_for(optional, monkeypatch, "200-100-1", n_threads=1, **large)[0] == 1


def test_n_threads_is_the_most_where_rows_are_measured_too(two, optional, monkeypatch):
    pools, seen, measure = optional("threadpoolctl"), [], Trainer.measure

    def watched(*given):
        seen.extend(p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas")
        return measure(*given)

    monkeypatch.setattr(Trainer, "measure", watched)
    X = np.random.default_rng(0).normal(size=(300, 200))
    for most in (1, None):
        seen.clear()
        train(
            "200-100-1",
            X,
            X[:, 0],
            X_val=X,
            y_val=X[:, 0],
            batch_size=300,
            epochs=2,
            n_threads=most,
        )
        assert set(seen) == {most or 2}


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
def test_n_threads_that_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match="n_threads must be"):
        learned(n_threads=value)


def test_n_threads_needs_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ImportError, match=r"xpmlp\[fast\]"):
        learned(n_threads=1)
