"""The same math everywhere: NumPy against every other namespace, and against a GPU where one is."""

import numpy as np
import pytest

from benchmarks.parity import CASES, compare
from xpmlp.devices.namespace import CPU, to_host, to_place
from xpmlp.initializers import initial
from xpmlp.random import counters, dropout_keys, lanes, mask, words
from xpmlp.spec import Spec
from xpmlp.training.batches import epoch_order

# NumPy is what the others are compared with. array-api-strict computes with NumPy underneath, so
# its float32 adds minutes and no news.
PLACES = [
    ("strict", "float64"),
    ("strict-device1", "float64"),
    ("torch", "float64"),
    ("torch", "float32"),
    pytest.param("cupy", "float64", marks=pytest.mark.slow),
    ("cupy", "float32"),
]


@pytest.mark.parametrize(("name", "dtype"), PLACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_is_the_same_on(place_named, name, dtype, case):
    found = compare(place_named(name), case, dtype)
    assert found.passed, found


def test_initial_weights_are_the_same_bits(place):
    drawn = initial(Spec.parse("7-13-3"), 5)
    for dtype in ("float32", "float64"):
        moved = to_host(to_place(place, drawn, dtype))
        assert moved.tobytes() == drawn.astype(dtype).tobytes()


def test_orders_are_the_same_numbers(place):
    order = epoch_order((3, 4), (2,), 6, 101)
    assert (to_host(to_place(place, order)) == order).all()


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("step", [0, 1, 77, 2**31 + 5])
def test_dropout_masks_are_the_same_bits(place, lead, step):
    seeds = (1, 2, 3)[: 3 if lead else 1]
    drawn = []
    for where in (CPU, place):
        keys = to_place(where, dropout_keys(seeds, lead, 2), lanes(where.xp))
        now = to_place(where, np.asarray(step))
        bits = to_host(words(where.xp, *counters(where.xp, keys, now, (16, 9))))
        factors = mask(where.xp, keys, now, 0.3, (16, 9), "float32")
        drawn.append((bits.astype(np.int64), to_host(factors)))
    assert (drawn[0][0] == drawn[1][0]).all()
    assert drawn[0][1].tobytes() == drawn[1][1].tobytes()
