"""Which rows are held out: at random, by group, or the latest."""

from typing import Any, NamedTuple

import numpy as np

from xpmlp.random import Stream, generator


class Split(NamedTuple):
    """Row numbers, without a row in common."""

    learn: np.ndarray
    held: np.ndarray


def at_random(labels: Any, share: float, seed: int, step: int, count: int) -> Split:
    """`share` of the rows, of every class its share where `labels` (N,) are given."""
    rng = generator(seed, Stream.SPLIT, step)
    order = rng.permutation(count)
    if labels is None:
        held = max(1, round(share * count))
        return Split(order[held:], order[:held])
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # rank of each row within its class, in the random order: the first share of each is held
    taken, rank = np.zeros(len(sizes), dtype=np.int64), np.empty(count, dtype=np.int64)
    for row in order:
        rank[row] = taken[codes[row]]
        taken[codes[row]] += 1
    held_of = np.round(share * sizes).astype(np.int64)
    if not held_of.any():
        held_of[np.argmax(sizes)] = 1
    chosen = rank[order] < held_of[codes[order]]
    return Split(order[~chosen], order[chosen])


def by_group(groups: list[Any], share: float, seed: int) -> Split:
    """Whole groups, drawn until they hold at least `share` of the rows."""
    names, codes = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    if len(names) < 2:
        raise ValueError("--group needs at least two groups; there is one")
    order = generator(seed, Stream.SPLIT).permutation(len(names))
    sizes = np.cumsum(np.bincount(codes)[order])
    count = min(int(np.searchsorted(sizes, share * len(codes))) + 1, len(names) - 1)
    held = np.isin(codes, order[:count])
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def by_time(moments: np.ndarray, share: float) -> Split:
    """The latest `share` of the rows."""
    order = np.argsort(moments, kind="stable")
    held = max(1, round(share * len(order)))
    return Split(order[:-held], order[-held:])
