"""Columns to numbers that train well. What is learnt from the data is arrays, and JSON."""

from typing import NamedTuple, Self

import numpy as np


class MinMax(NamedTuple):
    """Each column's smallest and largest value, which are mapped to 0 and 1.

    >>> scale = MinMax.fit(np.array([[2.0], [4.0], [10.0]]))
    >>> scale.transform(np.array([[4.0]])), scale.inverse(np.array([[0.5]]))
    (array([[0.25]]), array([[6.]]))
    """

    low: np.ndarray  # (columns,)
    high: np.ndarray  # (columns,)

    @classmethod
    def fit(cls, values: np.ndarray) -> Self:
        """Learn from values (N, columns)."""
        return cls(values.min(axis=0), values.max(axis=0))

    @property
    def span(self) -> np.ndarray:
        """high - low, and 1 for a constant column, which is mapped to 0."""
        span = self.high - self.low
        return np.where(span > 0, span, 1.0)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Values (N, columns) in units of the range that was learnt."""
        return np.asarray((values - self.low) / self.span)

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """What `transform` was given."""
        return np.asarray(scaled * self.span + self.low)
