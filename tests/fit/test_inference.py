"""Scores in chunks: any number of rows, bounded memory, the same numbers."""

import tracemalloc

import numpy as np
import pytest

from xpmlp import Spec, forward, train
from xpmlp.backends.namespace import to_host, to_place
from xpmlp.core.initializers import initial, initial_population
from xpmlp.core.layout import windows
from xpmlp.fit import inference
from xpmlp.fit.data import Resident
from xpmlp.fit.inference import scores

EXACT = 1e-12  # relative: a matrix product of fewer rows may add up in another order


def network(place, spec, members=None):
    drawn = initial(spec, 3) if members is None else initial_population(spec, range(members))
    return windows(place.xp, spec, to_place(place, drawn, "float64"))


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 511, 512, 513, 1000])
@pytest.mark.parametrize("members", [None, 3])
def test_chunks_give_what_one_go_gives(monkeypatch, count, members, rng):
    monkeypatch.setattr(inference, "AT_ONCE", 1)  # the smallest chunk: 256 rows
    from xpmlp.backends.namespace import CPU

    spec = Spec.parse("5-8-3")
    params, x = network(CPU, spec, members), rng.normal(size=(count, 5))
    found = scores(np, spec, params, Resident(np, x))
    whole = forward(np, spec, params, x)[-1].a
    assert found.shape == whole.shape
    assert np.allclose(found, whole, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("count", [1, 300])
def test_chunks_in_every_namespace(monkeypatch, place, count, rng):
    monkeypatch.setattr(inference, "AT_ONCE", 1)
    spec, x = Spec.parse("5-8-3"), rng.normal(size=(count, 5))
    rows = Resident(place.xp, to_place(place, x))
    found = scores(place.xp, spec, network(place, spec), rows)
    from xpmlp.backends.namespace import CPU

    expected = forward(np, spec, network(CPU, spec), x)[-1].a
    assert np.allclose(to_host(found), expected, rtol=EXACT, atol=EXACT)


def test_the_memory_of_a_prediction_does_not_grow_with_the_rows(rng):
    model = train("4-512-512-1", rng.normal(size=(8, 4)), np.zeros(8), epochs=1)
    X = rng.normal(size=(30_000, 4))

    tracemalloc.start()
    model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # whole traces would hold 30,000 x 4 x 512 numbers; a chunk holds AT_ONCE and some scratch
    assert peak < 3 * 8 * inference.AT_ONCE < 30_000 * 4 * 512 * 8 / 2
