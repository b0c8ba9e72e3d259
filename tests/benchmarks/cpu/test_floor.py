"""The matrix products of a step."""

import numpy as np
import pytest

from benchmarks.cpu.floor import Products
from benchmarks.cpu.problems import SHAPES, Case, timing_problem
from xpmlp.shape_ledger import ledger


@pytest.mark.parametrize("name", ["a32", "b32", "c"])
def test_products_match_the_ledger_of_a_step(name):
    shape = SHAPES[name]
    floor = Products(timing_problem(Case("train", name), "cpu"))
    assert floor.units == shape.steps
    assert floor.seconds(1) > 0
    lines = str(ledger(shape.spec, batch_size=shape.batch)).splitlines()
    assert len(floor.products) == sum(") @ (" in line for line in lines)
    for a, b, out in floor.products:
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-3)
