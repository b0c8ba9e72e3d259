"""Shapes, cases and their numbers."""

import numpy as np
import pytest

from benchmarks.cpu.problems import (
    CASES,
    CHECK_EPOCHS,
    CHECK_STEPS,
    SHAPES,
    Case,
    compared,
    joined,
    rows,
    select,
    timed,
)  # fmt: skip


def test_shapes_are_selected_in_every_task():
    chosen = select("c, a32")
    assert {case.shape for case in chosen} == {"a32", "c"}
    assert {case.task for case in chosen} == {"train", "population", "predict"}
    assert chosen == [case for case in CASES if case in chosen]
    assert select(None) == list(CASES)


def test_every_shape_is_trained():
    assert [case.shape for case in CASES if case.task == "train"] == list(SHAPES)


@pytest.mark.parametrize(
    ("asked", "words"),
    [("b20", "shape 'b20' is unknown; did you mean 'b200'?"), ("c,zz", "'zz'"), (" ,", "no shape")],
)
def test_a_bad_shape_is_named(asked, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        select(asked)


@pytest.mark.parametrize("name", SHAPES)
def test_rows_are_the_same_every_time_and_hold_every_class(name):
    shape = SHAPES[name]
    X, y = rows(shape, 64, "float32")
    again = rows(shape, 64, "float32")
    assert X.shape == (64, shape.sizes[0])
    assert (again[0] == X).all()
    assert (y == again[1]).all()
    if shape.loss == "cross_entropy":
        assert set(y) == set(range(shape.sizes[-1]))


def test_timed_is_single_and_shuffled_and_compared_is_double_and_in_order():
    case, shape = Case("train", "c"), SHAPES["c"]
    one, other = timed(case, "cpu"), compared(case, "cpu", "adam_sklearn")
    assert (one.X.dtype, one.y.dtype, one.shuffle) == (np.float32, np.float32, True)
    assert len(one.X) == shape.batch * shape.steps
    assert (other.X.dtype, other.y.dtype, other.shuffle) == (np.float64, np.float64, False)
    assert (other.rule, len(other.X)) == ("adam_sklearn", shape.batch * CHECK_STEPS)
    assert CHECK_EPOCHS * CHECK_STEPS == 20
    assert timed(Case("predict", "c", 32), "cpu").X.shape == (32, 50)


def test_joined_is_every_weight_in_order():
    layers = [(np.array([[1, 2]]), np.array([3, 4])), (np.array([[5], [6]]), np.array([7]))]
    assert joined(layers).tolist() == [1, 2, 3, 4, 5, 6, 7]
