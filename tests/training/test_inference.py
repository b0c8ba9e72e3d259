"""Scores in chunks: bounded memory and equal results for any number of rows."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpmlp import Spec, forward, train
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.initializers import initial, initial_population
from xpmlp.layout import windows
from xpmlp.recording import engine
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.training import inference
from xpmlp.training.data import DeviceRows
from xpmlp.training.inference import scores

EXACT = 1e-12  # relative: a matrix product of fewer rows may add up in another order


def network(place, spec, members=None):
    params = initial(spec, 3) if members is None else initial_population(spec, range(members))
    return windows(place.xp, spec, to_place(place, params, "float64"))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 511, 512, 513, 1000])
@pytest.mark.parametrize("members", [None, 3])
def test_chunks_equal_one_pass(monkeypatch, count, members, rng):
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1)  # the smallest chunk: 256 rows
    from xpmlp.devices.namespace import CPU

    spec = Spec.parse("5-8-3")
    params, x = network(CPU, spec, members), rng.normal(size=(count, 5))
    actual = scores(np, spec, params, DeviceRows(np, x))
    whole = forward(np, spec, params, x)[-1].a
    assert actual.shape == whole.shape
    assert np.allclose(actual, whole, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("count", [1, 300])
def test_chunks_in_every_namespace(monkeypatch, place, count, rng):
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1)
    spec, x = Spec.parse("5-8-3"), rng.normal(size=(count, 5))
    rows = DeviceRows(place.xp, to_place(place, x))
    actual = scores(place.xp, spec, network(place, spec), rows)
    from xpmlp.devices.namespace import CPU

    expected = forward(np, spec, network(CPU, spec), x)[-1].a
    assert np.allclose(to_host(actual), expected, rtol=EXACT, atol=EXACT)


def test_the_memory_of_a_prediction_does_not_grow_with_the_rows(rng):
    model = train("4-512-512-1", rng.normal(size=(8, 4)), np.zeros(8), epochs=1)
    X = rng.normal(size=(30_000, 4))

    tracemalloc.start()
    model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # all traces have 30,000 x 4 x 512 numbers; a chunk has CHUNK_BYTES and some scratch arrays
    assert peak < 3 * inference.CHUNK_BYTES < 30_000 * 4 * 512 * 8 / 2


def test_threads_may_predict_at_the_same_time(rng):
    """Each thread has its own buffers, possibly reused from a network of other sizes."""
    models = [train(f"4-{n}-1", rng.normal(size=(8, 4)), np.zeros(8), epochs=1) for n in (7, 64)]
    X = [rng.normal(size=(n, 4)) for n in (3, 700, 1100, 20)]
    expected = [[model.predict(x) for x in X] for model in models]
    copies = [[array.copy() for array in row] for row in expected]

    def predicted(_):
        return [[model.predict(x) for x in X] for model in models]

    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(predicted, range(40)))
    for array in (*actual, copies):  # no returned array was overwritten
        assert all(np.array_equal(a, b) for m, n in zip(array, expected, strict=True)
                   for a, b in zip(m, n, strict=True))  # fmt: skip


def test_predictions_keep_bounded_memory(rng):
    spec = Spec.parse("4-1024-1", activation="mish")  # which has many intermediate arrays
    model = train(spec, rng.normal(size=(8, 4)), np.zeros(8), epochs=1)
    for count in range(150, 200):  # as many shapes
        model.predict(rng.normal(size=(count, 4)))
    assert len(engine.IDLE_BACKENDS) <= 4, "one for each thread at a time"
    for spare in engine.IDLE_BACKENDS:
        assert len(spare.plans) <= engine.MAX_IDLE_PLANS
        scratch = {
            id(value): value.size
            for plan in spare.plans.values()
            for value in plan.run.__globals__.values()
            if plan is not None and isinstance(value, np.ndarray)
        }
        assert scratch
        buffer_bytes = sum(scratch.values()) + sum(buffer.size for buffer in spare.buffers)
        assert buffer_bytes <= spare.size <= engine.MAX_IDLE_SIZE


def test_buffers_are_reused_by_fewer_rows():
    """Neither a smaller last chunk nor the first chunk of the next call allocates memory."""
    space = NumpyBackend()
    first = space.allocate((8, 5), np.dtype("float64"))
    for shape in ((3, 5), (8, 5), (2, 20), (40,)):
        space.restart()
        assert np.shares_memory(first, space.allocate(shape, np.dtype("float64")))
    space.restart()
    assert not np.shares_memory(first, space.allocate((41,), np.dtype("float64")))
