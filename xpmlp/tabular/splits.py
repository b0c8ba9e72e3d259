"""Splits of rows into train and test: at random, by group, or by time."""

from typing import Any, NamedTuple

import numpy as np

from xpmlp.random import Stream, generator


class Split(NamedTuple):
    """Disjoint row indices."""

    train: np.ndarray
    test: np.ndarray


def random_split(labels: Any, fraction: float, seed: int, step: int, count: int) -> Split:
    """Hold out `fraction` of the rows, stratified if `labels` (N,) are given."""
    rng = generator(seed, Stream.SPLIT, step)
    order = rng.permutation(count)
    if labels is None:
        n_test = max(1, round(fraction * count))
        return Split(order[n_test:], order[:n_test])
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # rank of each row within its class, in the random order: the first ones are held out
    seen, rank = np.zeros(len(sizes), dtype=np.int64), np.empty(count, dtype=np.int64)
    for row in order:
        rank[row] = seen[codes[row]]
        seen[codes[row]] += 1
    n_test_of_class = np.round(fraction * sizes).astype(np.int64)
    if not n_test_of_class.any():
        n_test_of_class[np.argmax(sizes)] = 1
    is_test = rank[order] < n_test_of_class[codes[order]]
    return Split(order[~is_test], order[is_test])


def group_split(groups: list[Any], fraction: float, seed: int) -> Split:
    """Hold out random groups until they have at least `fraction` of the rows."""
    names, codes = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    if len(names) < 2:
        raise ValueError("--group needs at least two groups; there is one")
    order = generator(seed, Stream.SPLIT).permutation(len(names))
    sizes = np.cumsum(np.bincount(codes)[order])
    count = min(int(np.searchsorted(sizes, fraction * len(codes))) + 1, len(names) - 1)
    is_test = np.isin(codes, order[:count])
    return Split(np.flatnonzero(~is_test), np.flatnonzero(is_test))


def time_split(times: np.ndarray, fraction: float) -> Split:
    """Hold out the latest `fraction` of the rows."""
    order = np.argsort(times, kind="stable")
    n_test = max(1, round(fraction * len(order)))
    return Split(order[:-n_test], order[-n_test:])
