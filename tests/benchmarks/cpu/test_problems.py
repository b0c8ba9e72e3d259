"""Shapes, cases and their data."""

import numpy as np
import pytest

from benchmarks.cpu.problems import (
    CASES,
    CHECK_EPOCHS,
    CHECK_STEPS,
    SHAPES,
    Case,
    check_problem,
    flatten,
    make_data,
    select,
    timing_problem,
)  # fmt: skip


def test_select_returns_all_tasks_of_the_shapes():
    cases = select("c, a32")
    assert {case.shape for case in cases} == {"a32", "c"}
    assert {case.task for case in cases} == {"train", "population", "predict"}
    assert cases == [case for case in CASES if case in cases]
    assert select(None) == list(CASES)


def test_every_shape_has_a_training_case():
    assert [case.shape for case in CASES if case.task == "train"] == list(SHAPES)


@pytest.mark.parametrize(
    ("names", "message"),
    [("b20", "shape 'b20' is unknown; did you mean 'b200'?"), ("c,zz", "'zz'"), (" ,", "no shape")],
)
def test_select_rejects_an_unknown_shape(names, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        select(names)


@pytest.mark.parametrize("name", SHAPES)
def test_data_are_reproducible_and_have_every_class(name):
    shape = SHAPES[name]
    X, y = make_data(shape, 64, "float32")
    X2, y2 = make_data(shape, 64, "float32")
    assert X.shape == (64, shape.sizes[0])
    assert (X2 == X).all()
    assert (y2 == y).all()
    if shape.loss == "cross_entropy":
        assert set(y) == set(range(shape.sizes[-1]))


def test_timing_is_float32_shuffled_and_the_check_float64_in_order():
    case, shape = Case("train", "c"), SHAPES["c"]
    timing = timing_problem(case, "cpu")
    check = check_problem(case, "cpu", "adam_sklearn")
    assert (timing.X.dtype, timing.y.dtype, timing.shuffle) == (np.float32, np.float32, True)
    assert len(timing.X) == shape.batch * shape.steps
    assert (check.X.dtype, check.y.dtype, check.shuffle) == (np.float64, np.float64, False)
    assert (check.rule, len(check.X)) == ("adam_sklearn", shape.batch * CHECK_STEPS)
    assert CHECK_EPOCHS * CHECK_STEPS == 20
    assert timing_problem(Case("predict", "c", 32), "cpu").X.shape == (32, 50)


def test_flatten_returns_every_weight_in_order():
    layers = [(np.array([[1, 2]]), np.array([3, 4])), (np.array([[5], [6]]), np.array([7]))]
    assert flatten(layers).tolist() == [1, 2, 3, 4, 5, 6, 7]
