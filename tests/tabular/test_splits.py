"""Which rows are held out: never a row twice, and never a row that the split forbids."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.tabular.splits import at_random, by_group, by_time

SHARE = st.floats(0.05, 0.6)
COUNT = st.integers(2, 80)


def whole(split, count):
    """Every row is on one side, and something is held out."""
    assert sorted([*split.learn, *split.held]) == list(range(count))
    assert len(split.held) > 0


@given(count=COUNT, share=SHARE, seed=st.integers(0, 2**64 - 1))
def test_random_rows_are_as_many_as_asked(count, share, seed):
    split = at_random(None, share, seed, 0, count)
    whole(split, count)
    assert len(split.held) == max(1, round(share * count))


@given(labels=st.lists(st.sampled_from("abc"), min_size=2, max_size=80), share=SHARE)
def test_every_class_is_held_out_in_its_share(labels, share):
    labels = np.array(labels)
    split = at_random(labels, share, 0, 0, len(labels))
    whole(split, len(labels))
    wanted = {label: round(share * (labels == label).sum()) for label in set(labels)}
    found = {label: (labels[split.held] == label).sum() for label in wanted}
    if any(wanted.values()):
        assert found == wanted
    else:
        assert sum(found.values()) == 1


@pytest.mark.parametrize("labels", [None, np.arange(200) % 3])
def test_seed_and_step_decide_which_rows(labels):
    held = {
        (seed, step): frozenset(at_random(labels, 0.2, seed, step, 200).held.tolist())
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(set(held.values())) == 4
    again = at_random(labels, 0.2, 1, 1, 200)
    assert frozenset(again.held.tolist()) == held[1, 1]


def test_held_rows_come_from_everywhere():
    """Not the first nor the last rows, in which a table may be sorted."""
    held = at_random(np.arange(1000) % 2, 0.2, 0, 0, 1000).held
    quarters = np.bincount(held // 250, minlength=4)
    assert quarters.min() > 25  # of about 50; a binomial's six standard deviations below


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda g: len(set(g)) > 1),
    share=SHARE,
    seed=st.integers(0, 99),
)
def test_a_group_is_never_on_both_sides(groups, share, seed):
    split = by_group(groups, share, seed)
    whole(split, len(groups))
    one, other = ({groups[row] for row in rows} for rows in split)
    assert not one & other
    assert one
    if len(other) < len(set(groups)) - 1:  # one group at least is learnt from
        assert len(split.held) >= share * len(groups)
    smallest = min(groups.count(g) for g in other)
    assert len(split.held) - max(groups.count(g) for g in other) < share * len(groups) + smallest


def test_groups_may_be_missing_or_of_any_type():
    split = by_group([None, "a", 1, None, 2.5, "a"], 0.3, 0)
    whole(split, 6)
    assert (0 in split.held) == (3 in split.held)


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="at least two groups"):
        by_group(["a", "a"], 0.2, 0)


@given(moments=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=80), share=SHARE)
def test_the_latest_rows_are_held_out(moments, share):
    moments = np.array(moments)
    split = by_time(moments, share)
    whole(split, len(moments))
    assert len(split.held) == max(1, round(share * len(moments)))
    assert moments[split.learn].max(initial=-np.inf) <= moments[split.held].min()
