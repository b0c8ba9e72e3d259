"""The same results everywhere: NumPy against every other namespace, and a GPU if there is one."""

import numpy as np
import pytest

from benchmarks.parity import CASES, compare
from xpmlp.devices.namespace import CPU, to_host, to_place
from xpmlp.initializers import initial
from xpmlp.random import counters, dropout_keys, lanes, mask, words
from xpmlp.spec import Spec
from xpmlp.training.batches import epoch_order

# NumPy is the reference. array-api-strict computes with NumPy underneath, so its float32 would
# take minutes and show nothing new.
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
    comparison = compare(place_named(name), case, dtype)
    assert comparison.passed, comparison


def test_initial_weights_are_the_same_bits(place):
    weights = initial(Spec.parse("7-13-3"), 5)
    for dtype in ("float32", "float64"):
        moved = to_host(to_place(place, weights, dtype))
        assert moved.tobytes() == weights.astype(dtype).tobytes()


def test_orders_are_the_same_numbers(place):
    order = epoch_order((3, 4), (2,), 6, 101)
    assert (to_host(to_place(place, order)) == order).all()


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("step", [0, 1, 77, 2**31 + 5])
def test_dropout_masks_are_the_same_bits(place, lead, step):
    seeds = (1, 2, 3)[: 3 if lead else 1]
    masks = []
    for device in (CPU, place):
        keys = to_place(device, dropout_keys(seeds, lead, 2), lanes(device.xp))
        now = to_place(device, np.asarray(step))
        bits = to_host(words(device.xp, *counters(device.xp, keys, now, (16, 9))))
        factors = mask(device.xp, keys, now, 0.3, (16, 9), "float32")
        masks.append((bits.astype(np.int64), to_host(factors)))
    assert (masks[0][0] == masks[1][0]).all()
    assert masks[0][1].tobytes() == masks[1][1].tobytes()
