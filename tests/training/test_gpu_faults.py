"""What a GPU would make slow or keep, seen on the stand-in: each was a fault once."""

import gc
from collections import Counter
from functools import partial

import numpy as np
import pytest

import xpmlp
from xpmlp.devices.graphs import obstacle
from xpmlp.devices.namespace import to_host
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.training import batches, trainer
from xpmlp.training.batches import epoch_order
from xpmlp.training.train import finish, make_trainer

pytest.importorskip("sklearn")
GPU = "gpu:0"
D2H = 2  # a cudaMemcpyKind


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(40, 3)).astype("float32")
    return X, (X[:, 0] * X[:, 1]).astype("float32")


# Many quantiles


LEVELS = [round((i + 1) / 12, 3) for i in range(11)]


def test_many_quantiles_are_captured(card, rows):
    spec, measure = f"3-5-{len(LEVELS)}", f"quantile:{','.join(map(str, LEVELS))}"
    models = [
        xpmlp.train(spec, *rows, loss=measure, device=device, epochs=40) for device in (GPU, "cpu")
    ]
    assert set(models[0].history["executor"]) == {"captured"}
    assert set(models[1].history["executor"]) == {"replayed"}
    np.testing.assert_allclose(models[0].predict(rows[0]), models[1].predict(rows[0]), atol=1e-5)


# Orders that are drawn ahead


@pytest.fixture
def events(card, monkeypatch):
    """What happens, in order: ("draw", epoch), and "work", "wait" and "read" of the card."""
    seen = []

    def noting(owner, name, word):
        real = getattr(owner, name)

        def noted(*given):
            found = word(given) if callable(word) else word
            seen.extend([found] if found else [])
            return real(*given)

        monkeypatch.setattr(owner, name, noted)

    noting(batches, "epoch_order", lambda given: ("draw", given[2]))
    noting(card, "submit", lambda given: given[1] == "kernel" and "work")
    noting(card, "graphLaunch", "work")
    noting(card, "streamSynchronize", "wait")
    noting(card, "memcpyAsync", lambda given: given[3] == D2H and "read")
    return seen


def draws(events):
    return [one for one in events if isinstance(one, tuple)]


EPOCHS = 40


@pytest.mark.parametrize("more", [{}, {"members": 3}, {"capture": False}], ids=str)
def test_the_next_order_is_drawn_while_the_card_works(more, events, rows):
    run = make_trainer("3-5-1", *rows, device=GPU, epochs=EPOCHS, **more)
    finish(run, [])
    assert draws(events) == [("draw", e) for e in range(EPOCHS)]
    for epoch in range(1, EPOCHS):
        own, following = (events.index(("draw", e)) for e in (epoch - 1, epoch))
        between = events[own + 1 : following]
        waits = [i for i, one in enumerate(between) if one in ("read", "wait")]
        steps = between[waits[-1] + 1 if waits else 0 :]
        # a graph and what fills its window, or every kernel of both steps
        assert steps.count("work") >= (10 if "capture" in more else 4)


def test_an_order_is_not_drawn_for_an_epoch_that_will_not_come(events, rows):
    est = xpmlp.MLPRegressor(hidden_layer_sizes=(5,), random_state=0, device=GPU)
    for _ in range(3):
        est.partial_fit(*rows)
    assert draws(events) == [("draw", e) for e in range(3)]


def test_a_host_draws_no_order_before_its_epoch(events, rows):
    for report in xpmlp.epochs("3-5-1", *rows, device="cpu", epochs=4):
        assert draws(events) == [("draw", e) for e in range(report.epoch)]
        if report.epoch == 2:
            break


@pytest.fixture
def used(monkeypatch):
    """The orders that epochs were trained in, as far as they were left."""
    seen, windows = [], trainer.windows

    def watched(place, data, order, *rest):
        seen.append(np.array(order))
        return windows(place, data, order, *rest)

    monkeypatch.setattr(trainer, "windows", watched)
    return seen


@pytest.mark.parametrize("members", [None, 3])
def test_orders_that_were_drawn_ahead_are_the_epochs_own(members, used, card, rows, tmp_path):
    arguments = {"epochs": 6, "members": members, "device": GPU, "batch_size": 10, "capture": False}
    seeds, lead = (tuple(range(members)), (members,)) if members else ((0,), ())
    expected = [epoch_order(seeds, lead, epoch, 40) for epoch in range(6)]
    whole = xpmlp.train("3-5-1", *rows, **arguments)
    np.testing.assert_array_equal(used, expected)

    run, path = make_trainer("3-5-1", *rows, **arguments), tmp_path / "run.ckpt"
    turns = run.counter.turns
    used.clear()

    def counted(steps, first=0):
        for t in turns(steps, first):
            run.counter.stop_signal = 2 * (
                int(run.state.step) == 9
            )  # in the third epoch's second step
            yield t

    run.counter.turns = counted
    following = xpmlp.Checkpoint(path).opened(run, resume=False)
    with following as write, pytest.raises(KeyboardInterrupt):
        finish(run, [], write)
    assert (run.epoch, run.counter.in_epoch) == (2, 2)
    assert run.next_order is None
    resumed = xpmlp.train("3-5-1", *rows, checkpoint=path, resume=True, **arguments)
    np.testing.assert_array_equal(used[:3], expected[:3])
    np.testing.assert_array_equal(used[3], expected[2][..., 20:])
    np.testing.assert_array_equal(used[4:], expected[3:])
    assert to_host(resumed.flat).tobytes() == to_host(whole.flat).tobytes()


# Questions of truth


@pytest.fixture
def launches(card):
    """A function to the names of the kernels that were launched."""
    card.launches.clear()
    return lambda: Counter(launch.name for launch in card.launches)


WIDE = 130  # more numbers in a row than a block of CuPy's has threads


@pytest.mark.parametrize("name", ["plain", "held out", "alike", "population", "labels", "diverged"])
def test_no_reduction_of_truths_is_compiled(name, launches, rng):
    X, y = rng.normal(size=(2, 150, WIDE))
    more = {"epochs": 2, "device": GPU, "batch_size": 75}
    spec = f"{WIDE}-4-1"
    if name == "held out":
        more |= {"X_val": X, "y_val": y[:, 0]}
    if name == "alike":
        X[:2] = 1.0
    if name == "population":
        more |= {"members": WIDE, "callbacks": [lambda report: report.loss > 1e9]}
    if name == "labels":
        spec, more = f"{WIDE}-4-{WIDE}", more | {"loss": "binary_cross_entropy"}
        more |= {"X_val": X, "y_val": y > 0}
    if name == "diverged":
        rates = [1e30] + [1e-3] * (WIDE - 1)  # the first member alone
        more |= {
            "members": WIDE,
            "learning_rate": rates,
            "optimizer": "sgd",
            "on_divergence": "restore",
        }
    target = y > 0 if name == "labels" else y[:, 0]
    model = xpmlp.train(spec, X, target, **more)
    model.predict(X.astype("float32") if name == "plain" else X)
    if name == "diverged":
        assert np.any(model.history["restored"])
    assert not {"cupy_all", "cupy_any"} & launches().keys()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_estimators_compile_no_reduction_of_truths(solver, launches, rng):
    import cupy

    X = rng.normal(size=(150, WIDE))
    given = {"hidden_layer_sizes": (4,), "device": GPU, "max_iter": 2, "random_state": 0}
    given |= {"tol": 1e9} if solver == "lbfgs" else {"early_stopping": True}
    X[:2] = 1.0
    est = xpmlp.MLPClassifier(solver=solver, **given)
    est.fit(cupy.asarray(X), X[:, 5] > 0)
    est.predict(X)
    est.predict_proba(cupy.asarray(X))
    assert not {"cupy_all", "cupy_any"} & launches().keys()


# Windows of steps that run one by one


def test_eager_windows_are_large_on_a_gpu(card, rng, monkeypatch):
    taken, take = [], batches.DeviceRows.take

    def counted(rows, index):
        taken.append(index.shape)
        return take(rows, index)

    monkeypatch.setattr(batches.DeviceRows, "take", counted)
    X = rng.normal(size=(1280, 1023)).astype("float32")
    run = make_trainer("1023-2-1", X, X[:, 0], batch_size=128, epochs=1, device=GPU, capture=False)
    finish(run, [])
    gathers = len(taken) / 3  # of rows, targets and weights
    assert gathers == 1, taken
    assert CudaGraphExecutor.UNROLLED > 10 == run.steps_per_epoch


# Memory that is given back


def test_pinned_memory_is_given_back(card, rng):
    X = rng.normal(size=(4000, 100)).astype("float32")
    train = partial(xpmlp.train, "100-2-1", X, X[:, 0], epochs=1, device=GPU, batch_size=1000)
    import cupy

    cupy.get_default_pinned_memory_pool().free_all_blocks()
    before = card.pinned_bytes
    train()
    assert card.pinned_bytes - before < X.nbytes / 10


def bytes_by_size(card):
    return Counter(block.size for block in card.blocks.values())


SHORT = {"device": GPU, "batch_size": 5, "epochs": 8}  # steps that are just worth a graph


def captured_training(rows):
    xpmlp.train("3-5-1", *rows, **SHORT, X_val=rows[0], y_val=rows[1])


def generator(rows):
    for report in xpmlp.epochs("3-5-1", *rows, **SHORT):
        report.model()


def generator_left_early(rows):
    for report in xpmlp.epochs("3-5-1", *rows, **SHORT):
        if report.epoch == 2:
            break


def failing(rows):
    def fail(report):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        xpmlp.train("3-5-1", *rows, **SHORT, callbacks=[fail])


def run_by_itself(rows):
    finish(make_trainer("3-5-1", *rows, **SHORT, members=3, l2=0.1), [])


def estimator(rows):
    given = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 20, "tol": 0}
    est = xpmlp.MLPRegressor(device=GPU, n_iter_no_change=99, early_stopping=True, **given)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        est.fit(*rows)
    est.partial_fit(*rows, X_val=rows[0], y_val=rows[1])
    est.predict(rows[0])


def probe(rows):
    from cupy import cuda

    from xpmlp.devices.words import place_for

    assert obstacle(place_for(GPU), cuda) is None


WORKS = [
    captured_training, generator, generator_left_early, failing, run_by_itself, estimator, probe,
]  # fmt: skip


@pytest.mark.slow  # several seconds each
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_memory_comes_back_after_every_training(work, card, rows):
    used = []
    for _ in range(8):
        work(rows)
        gc.collect()
        used.append(bytes_by_size(card))
    assert used[-1] == used[2], used[-1] - used[2]
    assert not card.graphs
    assert not card.executables
