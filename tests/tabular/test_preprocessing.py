"""Column encoders: fitting, encoding and storage."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from xpmlp.tabular.preprocessing import (
    MAX_CATEGORIES,
    encode,
    fit_column,
    from_config,
    robust_scale,
    smooth_clip,
    to_arrays,
    to_config,
)

nan = float("nan")
REAL = st.floats(-1e6, 1e6)
CELLS = arrays(np.float64, st.integers(1, 30), elements=REAL | st.just(nan))
ROUNDING = 1e-6  # relative, of float32 inputs


def numeric(values):
    return fit_column("a", "number", np.array(values, dtype=float))


# Numbers


def test_numbers_are_centered_on_the_median_and_scaled_by_the_quartiles():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    column = numeric(values)
    assert (column.center, column.scale, column.gaps, column.width) == (2.0, 0.5, False, 1)
    z = (values - 2) / 2
    x, unknown = encode(column, values)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[:, 0], z / np.sqrt(1 + (z / 3) ** 2), rtol=ROUNDING)
    assert unknown == 0


def test_equal_quartiles_use_the_range():
    assert robust_scale(np.array([0.0] * 9 + [4.0])) == 2 / 4
    assert robust_scale(np.full(9, 7.0)) == 0
    assert robust_scale(np.zeros(0)) == 0
    assert robust_scale(np.array([0.0, 1e-310])) == 0


@given(values=CELLS)
def test_inputs_are_finite_bounded_and_ordered_as_the_cells(values):
    known = fit_column("a", "number", values)
    x, _ = encode(known, values)
    assert x.shape == (len(values), known.width)
    assert np.isfinite(x).all()
    assert (abs(x[:, 0]) <= 3).all()
    there = ~np.isnan(values)
    order = np.argsort(values[there], kind="stable")
    assert (np.diff(x[there, 0][order]) >= 0).all()


@given(values=CELLS, scale=st.floats(0.01, 100), shift=REAL)
def test_the_unit_of_a_column_does_not_matter(values, scale, shift):
    present = values[~np.isnan(values)]
    if len(present) < 2 or np.ptp(present) < 1:  # the result would depend on rounding
        return
    if 0 < np.subtract(*np.quantile(present, [0.75, 0.25])) < 1:
        return
    expected, _ = encode(fit_column("a", "number", values), values)
    moved = values * scale + shift
    two, _ = encode(fit_column("a", "number", moved), moved)
    # cells up to 1e6 with a spread from 0.01: the shift loses eight of sixteen digits
    np.testing.assert_allclose(expected, two, atol=1e-4)


@pytest.mark.parametrize("huge", [1e300, -1e300, 1e160])
def test_an_outlier_of_any_size_stays_at_the_bound(huge):
    x, _ = encode(numeric([0.0, 1.0, 2.0]), np.array([huge]))
    assert x[0, 0] == np.sign(huge) * 3


@given(z=st.floats(-1e3, 1e3))
def test_smooth_clip_matches_its_formula(z):
    assert smooth_clip(np, np.array(z)) == pytest.approx(z / np.sqrt(1 + (z / 3) ** 2), rel=1e-12)


def test_a_missing_cell_is_the_median_and_is_flagged():
    column = numeric([1.0, nan, 3.0, 5.0])
    assert (column.center, column.gaps, column.width) == (3.0, True, 2)
    x, _ = encode(column, np.array([nan, 3.0, 5.0]))
    assert x[:, 0].tolist()[:2] == [0, 0]
    assert x[2, 0] > 0
    assert x[:, 1].tolist() == [1, 0, 0]


def test_a_missing_cell_in_a_column_without_gaps_is_the_median():
    x, unknown = encode(numeric([1.0, 3.0, 5.0]), np.array([nan, 3.0]))
    assert x.tolist() == [[0], [0]]
    assert unknown == 0


@pytest.mark.parametrize("values", [[7.0, 7.0], [nan, nan]])
def test_a_constant_column_is_encoded_as_zeros(values):
    column = numeric(values)
    x, _ = encode(column, np.array([7.0, 8.0, nan]))
    assert (x[:, 0] == 0).all()
    assert column.scale == 0


# Categories


def test_every_category_has_its_input():
    column = fit_column("a", "category", ["y", "x", "y"])
    assert column.categories == ("y", "x")  # the more frequent one first
    x, unknown = encode(column, ["x", "y", "x"])
    assert x.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert unknown == 0


def test_an_unknown_category_is_counted_and_has_no_input():
    column = fit_column("a", "category", ["x", "y"])
    x, unknown = encode(column, ["z", "x", "w", "z"])
    assert x.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert unknown == 3


def test_a_missing_category_is_flagged_if_training_had_one():
    column = fit_column("a", "category", ["x", None, "y"])
    x, unknown = encode(column, [None, "x", "z"])
    assert x.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert unknown == 1
    x, unknown = encode(fit_column("a", "category", ["x", "y"]), [None])
    assert (x.tolist(), unknown) == ([[0, 0]], 0)


def test_rare_categories_share_an_input():
    cells = [f"c{i}" for i in range(MAX_CATEGORIES + 10)] + [f"c{i}" for i in range(MAX_CATEGORIES)]
    column = fit_column("a", "category", cells)
    assert set(column.categories) == {f"c{i}" for i in range(MAX_CATEGORIES)}
    assert (column.rest, column.width) == (True, MAX_CATEGORIES + 1)
    x, _ = encode(column, [f"c{MAX_CATEGORIES}", f"c{MAX_CATEGORIES + 9}", "c0"])
    assert x[:, -1].tolist() == [1, 1, 0]
    assert (x.sum(axis=1) == 1).all()


def test_the_maximum_number_of_categories_needs_no_rare_input():
    column = fit_column("a", "category", [f"c{i}" for i in range(MAX_CATEGORIES)])
    assert (column.rest, column.width) == (False, MAX_CATEGORIES)


@given(cells=st.lists(st.sampled_from(["x", "y", "z", None]), min_size=1), seed=st.integers(0, 9))
def test_an_encoder_does_not_depend_on_the_order_of_rows(cells, seed):
    mixed = [cells[i] for i in np.random.default_rng(seed).permutation(len(cells))]
    assert fit_column("a", "category", cells) == fit_column("a", "category", mixed)


@given(cells=st.lists(st.sampled_from(["x", "y", None]), min_size=1))
def test_rows_are_encoded_independently(cells):
    """The inputs of a row do not depend on the other rows."""
    column = fit_column("a", "category", ["x", "y", None, "y"])
    expected, _ = encode(column, cells)
    single_rows = np.concatenate([encode(column, [cell])[0] for cell in cells])
    assert expected.tolist() == single_rows.tolist()


# Storage


@pytest.fixture
def columns():
    return (
        numeric([1.0, nan, 1 / 3]),
        fit_column("b", "category", ['say "x"', "é", None]),
        fit_column("c", "date", np.array([1e9, 2e9])),
        fit_column("d", "category", [f"c{i}" for i in range(MAX_CATEGORIES + 1)]),
    )


def test_encoders_round_trip_through_arrays_and_json(columns):
    config = json.loads(json.dumps(to_config(columns)))
    assert from_config(config, to_arrays(columns)) == columns


def without(key):
    return lambda entry: {name: value for name, value in entry.items() if name != key}


MUTATIONS = {
    "no name": without("name"),
    "a name that is not a string": lambda entry: entry | {"name": 3},
    "one more key": lambda entry: entry | {"more": 1},
    "another kind": lambda entry: entry | {"kind": "colour"},
    "gaps that are not boolean": lambda entry: entry | {"gaps": 1},
    "a rest that is not boolean": lambda entry: entry | {"rest": "no"},
    "categories that are not strings": lambda entry: entry | {"categories": [1]},
    "no categories": lambda entry: entry | {"categories": None},
    "a category twice": lambda entry: entry | {"categories": ["x", "x"]},
    "the name of another column": lambda entry: entry | {"name": "b"},
    "not an object": lambda entry: "a",
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_changed_configuration_is_refused(kind, columns):
    config = to_config(columns)
    config[0] = MUTATIONS[kind](config[0])
    with pytest.raises((ValueError, TypeError, KeyError)):
        from_config(config, to_arrays(columns))


@pytest.mark.parametrize("name", ["table.center", "table.scale"])
@pytest.mark.parametrize("array", [None, np.zeros(2), np.zeros((4, 1)), np.array([0, 0, nan, 0])])
def test_changed_arrays_are_refused(name, array, columns):
    stored = to_arrays(columns)
    if array is None:
        del stored[name]
    else:
        stored[name] = array
    with pytest.raises(ValueError, match="column"):
        from_config(to_config(columns), stored)
