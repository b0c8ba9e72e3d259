"""A sharded population, trained by several threads, learns as one without shards."""

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
    """Two BLAS threads, used for populations of any size."""
    optional("threadpoolctl")
    monkeypatch.setattr(setup, "blas_threads", lambda max_threads=None: max_threads or 2)
    monkeypatch.setattr(members, "MIN_THREADED_SIZE", 0)


def train_population(rng_seed=3, *, dropout=0.0, **options):
    rng = np.random.default_rng(rng_seed)
    X = rng.normal(size=(40, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=40)
    spec = Spec.parse("4-6-3-1", dropout=dropout)
    arguments = {"members": 5, "batch_size": 8, "epochs": 20} | options
    return train(spec, X, y, X_val=X[:9], y_val=y[:9], **arguments)


def assert_close(actual, expected):
    """Compare weights and histories up to accumulated rounding."""
    np.testing.assert_allclose(actual.flat, expected.flat, rtol=1e-9, atol=1e-12)
    for name, values in expected.history.items():
        if name not in ("seconds", "executor"):
            np.testing.assert_allclose(
                np.array(actual.history[name]), np.array(values), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_shards_train_as_the_population(setting, size, threads, monkeypatch):
    unsharded = train_population(**SETTINGS[setting], capture=False)
    assert {*unsharded.history["executor"]} == {"eager"}
    monkeypatch.setattr(members, "SHARD_SIZE", SIZES[size])
    shards = []
    monkeypatch.setattr(
        setup,
        "shard_indices",
        lambda *arguments: shards.append(shard_indices(*arguments)) or shards[-1],
    )
    model = train_population(**SETTINGS[setting])
    assert len(shards[0]) in {"one by one": [5], "some at a time": [2, 4], "by halves": [2]}[size]
    assert {*model.history["executor"]} == {"replayed"}
    assert_close(model, unsharded)


@pytest.mark.parametrize("setting", ["plain", "dropout"])
def test_a_shard_of_one_member_equals_the_single_network(setting, threads, monkeypatch):
    monkeypatch.setattr(members, "SHARD_SIZE", 1)
    population = train_population(**SETTINGS[setting], keep="last")
    for k in range(5):
        single = train_population(**SETTINGS[setting], keep="last", members=None, seed=k)
        assert population.member(k).flat.tobytes() == single.flat.tobytes()


def test_the_number_of_threads_does_not_change_the_result(threads, monkeypatch):
    two_blas_threads = train_population()
    monkeypatch.setattr(setup, "blas_threads", lambda max_threads=None: 1)
    assert_close(train_population(), two_blas_threads)


class Stop(Exception):
    pass


def stopping(report):
    raise Stop


@pytest.mark.parametrize("window", [1, pytest.param(2, marks=pytest.mark.slow), 9])
@pytest.mark.parametrize("setting", ["dropout", "patience", "restored", "a tail"])
def test_a_resumed_training_has_the_same_bits(setting, window, threads, tmp_path, monkeypatch):
    """Stopped by a signal within an epoch, or after an epoch."""
    monkeypatch.setattr(members, "MAX_WINDOW", 3)
    monkeypatch.setattr(members, "SHARD_SIZE", 2_700)
    uninterrupted, path = train_population(**SETTINGS[setting]), tmp_path / "run.ckpt"
    run, windows, stops = ShardedExecutor.run, [], 0

    def counted(self, step, gather, counter):
        epoch = int(step.state.step) // step.steps_per_epoch
        run(self, step, gather, counter)
        windows.append(1)
        if len(windows) % window == 0 and epoch < 19:
            counter.stop_signal = 2

    monkeypatch.setattr(ShardedExecutor, "run", counted)
    while True:
        last = [stopping] if stops % 5 == 4 else []
        try:
            options = SETTINGS[setting] | {"callbacks": last}
            model = train_population(**options, checkpoint=path, resume=True)
        except (KeyboardInterrupt, Stop):
            stops += 1
            continue
        break
    assert stops > 3
    assert model.flat.tobytes() == uninterrupted.flat.tobytes()
    np.testing.assert_array_equal(model.history["loss"], uninterrupted.history["loss"])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("size", [1, 1000, 2**20])
@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_every_member_is_in_one_shard(count, size, n_threads):
    members_per_shard = [
        np.atleast_1d(np.arange(count)[index[0]]) for index in shard_indices(count, size, n_threads)
    ]
    assert np.concatenate(members_per_shard).tolist() == list(range(count))
    sizes = {len(shard) for shard in members_per_shard}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * size <= max(members.SHARD_SIZE, size)


def test_user_functions_are_called_by_one_thread(threads):
    thread_ids = set()

    def value(xp, score, target):
        thread_ids.add(threading.get_ident())
        return xp.sum((score - target) ** 2, axis=-1)

    def delta(xp, score, target):
        return 2 * (score - target)

    model = train_population(loss=Loss(value, delta, lambda xp, score: score))
    assert {*model.history["executor"]} == {"eager"}
    assert thread_ids == {threading.get_ident()}


def test_an_error_in_a_worker_thread_propagates(threads, monkeypatch):
    def broken(self, *arguments):
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError("over there")
        return work(self, *arguments)

    work = ShardedExecutor.run_shards
    monkeypatch.setattr(ShardedExecutor, "run_shards", broken)
    with pytest.raises(ZeroDivisionError, match="over there"):
        train_population()


def test_threads_end_with_the_training(threads):
    before = threading.active_count()
    train_population()
    X = np.ones((40, 4)) * np.arange(40)[:, None] / 40
    reports = epochs("4-3-1", X, X[:, 0], members=4, batch_size=8, epochs=20)
    for _ in range(2):  # the first epoch is recorded
        next(reports)
    assert threading.active_count() == before + 1
    reports.close()
    assert threading.active_count() == before


def test_the_thread_count_of_products_is_restored(optional):
    """A product has one thread while the shards run in several."""
    pools = optional("threadpoolctl")

    def counts():
        return [p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"]

    before, inside = counts(), []
    executor = ShardedExecutor([(0, ...), (1, ...)], 2, lambda run, index: None)
    with executor.open():
        inside += counts()
    assert set(inside) <= {1}
    assert counts() == before


@contextmanager
def thread_limit_in_another_thread(limit):
    """Another thread sets a thread limit."""
    entered, finished = threading.Event(), threading.Event()

    def hold():
        with products.limit_threads(limit):
            entered.set()
            finished.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    try:
        yield
    finally:
        finished.set()
        thread.join()


@pytest.fixture
def two_blas_threads(optional):
    """Two BLAS threads, set by a thread that has ended."""
    optional("threadpoolctl")

    def set_threads(count):
        limits = {"limits": count, "user_api": "blas"}
        thread = threading.Thread(target=products.controller().limit, kwargs=limits)
        thread.start()
        thread.join()

    before = products.current_thread_count()
    if before is None:
        pytest.skip("threadpoolctl knows no BLAS here")
    set_threads(2)
    yield
    set_threads(before)


def test_limits_of_several_threads_restore_the_count(two_blas_threads, optional):
    """The first limit applies; every thread sees its own maximum."""
    pools = optional("threadpoolctl")

    def counts():
        return {p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"}

    before, max_threads = counts(), products.blas_threads()
    assert max_threads == 2
    other_limit = thread_limit_in_another_thread(1)
    other_limit.__enter__()
    assert counts() == {1}
    assert products.blas_threads() == max_threads  # the limit of the other thread is not counted
    with products.limit_threads(1), products.limit_threads(None):
        assert products.blas_threads() == 1
        other_limit.__exit__(None, None, None)  # in the order of entry
    assert counts() == before
    with products.limit_threads(1), thread_limit_in_another_thread(1):
        assert counts() == {1}
    assert counts() == before
    assert products.blas_threads() == max_threads


def test_the_limit_of_another_training_does_not_change_shards(two_blas_threads, monkeypatch):
    monkeypatch.setattr(members, "MIN_THREADED_SIZE", 0)
    shards = []
    monkeypatch.setattr(
        setup,
        "shard_indices",
        lambda *arguments: shards.append(shard_indices(*arguments)) or shards[-1],
    )
    train_population(epochs=70)
    with thread_limit_in_another_thread(1):
        train_population(epochs=70)
    with products.limit_threads(1):
        train_population(epochs=70)
    assert [len(indices) for indices in shards] == [2, 2, 1]


def test_without_threadpoolctl_there_is_one_thread(monkeypatch):
    monkeypatch.setattr(products, "controller", lambda: None)
    assert products.blas_threads() == 1
    assert EagerExecutor.name not in train_population().history["executor"]


# Single networks


def thread_counts(optional, monkeypatch, spec, **options):
    """The number of BLAS threads during and after the training of a network."""
    pools = optional("threadpoolctl")

    def counts():
        return {p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas"}

    during, windows = [], Trainer.windows

    def watched(trainer):
        during.extend(counts())
        yield from windows(trainer)

    monkeypatch.setattr(Trainer, "windows", watched)
    with pools.threadpool_limits(2, user_api="blas"):
        before = counts()
        rng = np.random.default_rng(0)
        X = rng.normal(size=(300, int(spec.partition("-")[0])))
        train(spec, X, X[:, 0], **{"epochs": 1} | options)
        assert counts() == before
    return max(during), max(before)


def test_small_products_use_one_thread_and_large_ones_all(optional, monkeypatch):
    assert thread_counts(optional, monkeypatch, "64-100-1", batch_size=200)[0] == 1
    during, before = thread_counts(optional, monkeypatch, "200-100-1", batch_size=300)
    assert during == before


def test_n_threads_limits_products(optional, monkeypatch):
    large = {"batch_size": 300}
    assert thread_counts(optional, monkeypatch, "200-100-1", n_threads=1, **large)[0] == 1
    during, before = thread_counts(optional, monkeypatch, "200-100-1", n_threads=64, **large)
    assert during == before


def test_n_threads_limits_products_of_shards(optional, monkeypatch):
    monkeypatch.setattr(members, "SHARD_SIZE", 1)
    large = {"batch_size": 300, "members": 3, "epochs": 70}
    assert thread_counts(optional, monkeypatch, "200-100-1", n_threads=1, **large)[0] == 1


def test_n_threads_limits_the_evaluation_of_rows(two_blas_threads, optional, monkeypatch):
    pools, during, measure = optional("threadpoolctl"), [], Trainer.measure

    def watched(*arguments):
        during.extend(p["num_threads"] for p in pools.threadpool_info() if p["user_api"] == "blas")
        return measure(*arguments)

    monkeypatch.setattr(Trainer, "measure", watched)
    X = np.random.default_rng(0).normal(size=(300, 200))
    for n_threads in (1, None):
        during.clear()
        train(
            "200-100-1",
            X,
            X[:, 0],
            X_val=X,
            y_val=X[:, 0],
            batch_size=300,
            epochs=2,
            n_threads=n_threads,
        )
        assert set(during) == {n_threads or 2}


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
def test_an_invalid_n_threads_raises(value):
    with pytest.raises(ValueError, match="n_threads must be"):
        train_population(n_threads=value)


def test_n_threads_needs_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ImportError, match=r"xpmlp\[fast\]"):
        train_population(n_threads=1)
