"""Held-out rows: a partition of the rows that obeys the kind of split."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.tabular.splits import group_split, random_split, time_split

SHARE = st.floats(0.05, 0.6)
COUNT = st.integers(2, 80)


def check_partition(split, count):
    """Every row is on one side, and at least one row is held out."""
    assert sorted([*split.train, *split.test]) == list(range(count))
    assert len(split.test) > 0


@given(count=COUNT, fraction=SHARE, seed=st.integers(0, 2**64 - 1))
def test_the_number_of_random_rows(count, fraction, seed):
    split = random_split(None, fraction, seed, 0, count)
    check_partition(split, count)
    assert len(split.test) == max(1, round(fraction * count))


@given(labels=st.lists(st.sampled_from("abc"), min_size=2, max_size=80), fraction=SHARE)
def test_a_random_split_is_stratified(labels, fraction):
    labels = np.array(labels)
    split = random_split(labels, fraction, 0, 0, len(labels))
    check_partition(split, len(labels))
    expected = {label: round(fraction * (labels == label).sum()) for label in set(labels)}
    actual = {label: (labels[split.test] == label).sum() for label in expected}
    if any(expected.values()):
        assert actual == expected
    else:
        assert sum(actual.values()) == 1


@pytest.mark.parametrize("labels", [None, np.arange(200) % 3])
def test_a_split_depends_on_seed_and_step(labels):
    held_out_rows = {
        (seed, step): frozenset(random_split(labels, 0.2, seed, step, 200).test.tolist())
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(set(held_out_rows.values())) == 4
    repeated = random_split(labels, 0.2, 1, 1, 200)
    assert frozenset(repeated.test.tolist()) == held_out_rows[1, 1]


def test_held_out_rows_are_spread_over_the_table():
    """Not the first nor the last rows, in which a table may be sorted."""
    held_out = random_split(np.arange(1000) % 2, 0.2, 0, 0, 1000).test
    quarters = np.bincount(held_out // 250, minlength=4)
    assert quarters.min() > 25  # of about 50; a binomial's six standard deviations below


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda g: len(set(g)) > 1),
    fraction=SHARE,
    seed=st.integers(0, 99),
)
def test_a_group_is_never_on_both_sides(groups, fraction, seed):
    split = group_split(groups, fraction, seed)
    check_partition(split, len(groups))
    training_groups, test_groups = ({groups[row] for row in rows} for rows in split)
    assert not training_groups & test_groups
    assert training_groups
    if len(test_groups) < len(set(groups)) - 1:  # one group at least is learnt from
        assert len(split.test) >= fraction * len(groups)
    smallest = min(groups.count(g) for g in test_groups)
    assert (
        len(split.test) - max(groups.count(g) for g in test_groups)
        < fraction * len(groups) + smallest
    )


def test_groups_may_be_missing_or_of_any_type():
    split = group_split([None, "a", 1, None, 2.5, "a"], 0.3, 0)
    check_partition(split, 6)
    assert (0 in split.test) == (3 in split.test)


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="at least two groups"):
        group_split(["a", "a"], 0.2, 0)


@given(moments=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=80), fraction=SHARE)
def test_the_latest_rows_are_held_out(moments, fraction):
    moments = np.array(moments)
    split = time_split(moments, fraction)
    check_partition(split, len(moments))
    assert len(split.test) == max(1, round(fraction * len(moments)))
    assert moments[split.train].max(initial=-np.inf) <= moments[split.test].min()
