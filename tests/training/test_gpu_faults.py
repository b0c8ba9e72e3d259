"""Regressions in the speed and memory use of a GPU, found on the stand-in."""

import gc
from collections import Counter
from functools import partial

import numpy as np
import pytest

import xpmlp
from xpmlp.devices.graphs import recording_problem
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


# Epoch orders drawn ahead


@pytest.fixture
def events(card, monkeypatch):
    """Events in order: ("draw", epoch), and "work", "wait" and "read" of the card."""
    recorded = []

    def record(owner, name, word):
        real = getattr(owner, name)

        def recording(*arguments):
            event = word(arguments) if callable(word) else word
            recorded.extend([event] if event else [])
            return real(*arguments)

        monkeypatch.setattr(owner, name, recording)

    record(batches, "epoch_order", lambda arguments: ("draw", arguments[2]))
    record(card, "submit", lambda arguments: arguments[1] == "kernel" and "work")
    record(card, "graphLaunch", "work")
    record(card, "streamSynchronize", "wait")
    record(card, "memcpyAsync", lambda arguments: arguments[3] == D2H and "read")
    return recorded


def draws(events):
    return [event for event in events if isinstance(event, tuple)]


EPOCHS = 40


@pytest.mark.parametrize("options", [{}, {"members": 3}, {"capture": False}], ids=str)
def test_the_next_order_is_drawn_while_the_gpu_works(options, events, rows):
    run = make_trainer("3-5-1", *rows, device=GPU, epochs=EPOCHS, **options)
    finish(run, [])
    assert draws(events) == [("draw", e) for e in range(EPOCHS)]
    for epoch in range(1, EPOCHS):
        drawn_at, next_drawn_at = (events.index(("draw", e)) for e in (epoch - 1, epoch))
        between = events[drawn_at + 1 : next_drawn_at]
        waits = [i for i, event in enumerate(between) if event in ("read", "wait")]
        steps = between[waits[-1] + 1 if waits else 0 :]
        # a graph and the copies into its window, or every kernel of both steps
        assert steps.count("work") >= (10 if "capture" in options else 4)


def test_no_order_is_drawn_beyond_the_last_epoch(events, rows):
    est = xpmlp.MLPRegressor(hidden_layer_sizes=(5,), random_state=0, device=GPU)
    for _ in range(3):
        est.partial_fit(*rows)
    assert draws(events) == [("draw", e) for e in range(3)]


def test_on_the_cpu_orders_are_drawn_at_their_epoch(events, rows):
    for report in xpmlp.epochs("3-5-1", *rows, device="cpu", epochs=4):
        assert draws(events) == [("draw", e) for e in range(report.epoch)]
        if report.epoch == 2:
            break


@pytest.fixture
def trained_orders(monkeypatch):
    """The orders of the trained epochs; of a resumed epoch, the rest of its order."""
    orders, windows = [], trainer.windows

    def recording(place, data, order, *arguments):
        orders.append(np.array(order))
        return windows(place, data, order, *arguments)

    monkeypatch.setattr(trainer, "windows", recording)
    return orders


@pytest.mark.parametrize("members", [None, 3])
def test_orders_drawn_ahead_are_those_of_their_epochs(
    members, trained_orders, card, rows, tmp_path
):
    arguments = {"epochs": 6, "members": members, "device": GPU, "batch_size": 10, "capture": False}
    seeds, lead = (tuple(range(members)), (members,)) if members else ((0,), ())
    expected = [epoch_order(seeds, lead, epoch, 40) for epoch in range(6)]
    uninterrupted = xpmlp.train("3-5-1", *rows, **arguments)
    np.testing.assert_array_equal(trained_orders, expected)

    run, path = make_trainer("3-5-1", *rows, **arguments), tmp_path / "run.ckpt"
    steps_of = run.counter.steps
    trained_orders.clear()

    def counted(steps, first=0):
        for t in steps_of(steps, first):
            run.counter.stop_signal = 2 * (
                int(run.state.step) == 9
            )  # in the third epoch's second step
            yield t

    run.counter.steps = counted
    checkpoint = xpmlp.Checkpoint(path).opened(run, resume=False)
    with checkpoint as write, pytest.raises(KeyboardInterrupt):
        finish(run, [], write)
    assert (run.epoch, run.counter.in_epoch) == (2, 2)
    assert run.next_order is None
    resumed = xpmlp.train("3-5-1", *rows, checkpoint=path, resume=True, **arguments)
    np.testing.assert_array_equal(trained_orders[:3], expected[:3])
    np.testing.assert_array_equal(trained_orders[3], expected[2][..., 20:])
    np.testing.assert_array_equal(trained_orders[4:], expected[3:])
    assert to_host(resumed.flat).tobytes() == to_host(uninterrupted.flat).tobytes()


# Reductions of booleans


@pytest.fixture
def launches(card):
    """A function that returns a count per name of the launched kernels."""
    card.launches.clear()
    return lambda: Counter(launch.name for launch in card.launches)


WIDE = 130  # more numbers in a row than a block of CuPy's has threads


@pytest.mark.parametrize("name", ["plain", "held out", "alike", "population", "labels", "diverged"])
def test_no_boolean_reduction_is_compiled(name, launches, rng):
    X, y = rng.normal(size=(2, 150, WIDE))
    options = {"epochs": 2, "device": GPU, "batch_size": 75}
    spec = f"{WIDE}-4-1"
    if name == "held out":
        options |= {"X_val": X, "y_val": y[:, 0]}
    if name == "alike":
        X[:2] = 1.0
    if name == "population":
        options |= {"members": WIDE, "callbacks": [lambda report: report.loss > 1e9]}
    if name == "labels":
        spec, options = f"{WIDE}-4-{WIDE}", options | {"loss": "binary_cross_entropy"}
        options |= {"X_val": X, "y_val": y > 0}
    if name == "diverged":
        rates = [1e30] + [1e-3] * (WIDE - 1)  # only the first member
        options |= {
            "members": WIDE,
            "learning_rate": rates,
            "optimizer": "sgd",
            "on_divergence": "restore",
        }
    target = y > 0 if name == "labels" else y[:, 0]
    model = xpmlp.train(spec, X, target, **options)
    model.predict(X.astype("float32") if name == "plain" else X)
    if name == "diverged":
        assert np.any(model.history["restored"])
    assert not {"cupy_all", "cupy_any"} & launches().keys()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_estimators_compile_no_boolean_reduction(solver, launches, rng):
    import cupy

    X = rng.normal(size=(150, WIDE))
    options = {"hidden_layer_sizes": (4,), "device": GPU, "max_iter": 2, "random_state": 0}
    options |= {"tol": 1e9} if solver == "lbfgs" else {"early_stopping": True}
    X[:2] = 1.0
    est = xpmlp.MLPClassifier(solver=solver, **options)
    est.fit(cupy.asarray(X), X[:, 5] > 0)
    est.predict(X)
    est.predict_proba(cupy.asarray(X))
    assert not {"cupy_all", "cupy_any"} & launches().keys()


# Windows of eager steps


def test_eager_windows_are_large_on_a_gpu(card, rng, monkeypatch):
    shapes, take = [], batches.DeviceRows.take

    def counted(rows, index):
        shapes.append(index.shape)
        return take(rows, index)

    monkeypatch.setattr(batches.DeviceRows, "take", counted)
    X = rng.normal(size=(1280, 1023)).astype("float32")
    run = make_trainer("1023-2-1", X, X[:, 0], batch_size=128, epochs=1, device=GPU, capture=False)
    finish(run, [])
    gathers = len(shapes) / 3  # of rows, targets and weights
    assert gathers == 1, shapes
    assert CudaGraphExecutor.MAX_STEPS > 10 == run.steps_per_epoch


# Memory that is released


def test_pinned_memory_is_released(card, rng):
    X = rng.normal(size=(4000, 100)).astype("float32")
    train = partial(xpmlp.train, "100-2-1", X, X[:, 0], epochs=1, device=GPU, batch_size=1000)
    import cupy

    cupy.get_default_pinned_memory_pool().free_all_blocks()
    before = card.pinned_bytes
    train()
    assert card.pinned_bytes - before < X.nbytes / 10


def bytes_by_size(card):
    return Counter(block.size for block in card.blocks.values())


SHORT = {"device": GPU, "batch_size": 5, "epochs": 8}  # just enough steps for a graph


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
    options = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 20, "tol": 0}
    est = xpmlp.MLPRegressor(device=GPU, n_iter_no_change=99, early_stopping=True, **options)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        est.fit(*rows)
    est.partial_fit(*rows, X_val=rows[0], y_val=rows[1])
    est.predict(rows[0])


def probe(rows):
    from cupy import cuda

    from xpmlp.devices.words import place_for

    assert recording_problem(place_for(GPU), cuda) is None


WORKS = [
    captured_training, generator, generator_left_early, failing, run_by_itself, estimator, probe,
]  # fmt: skip


@pytest.mark.slow  # several seconds each
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_memory_is_released_after_every_training(work, card, rows):
    allocations = []
    for _ in range(8):
        work(rows)
        gc.collect()
        allocations.append(bytes_by_size(card))
    assert allocations[-1] == allocations[2], allocations[-1] - allocations[2]
    assert not card.graphs
    assert not card.executables
