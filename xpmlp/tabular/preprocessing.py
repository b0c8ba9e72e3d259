"""Columns to numbers that train well. What is learnt from the data is arrays, and JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from xpmlp.types import Array, Namespace


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


CATEGORIES = 64  # more values of a column than this are rare ones, encoded together
NUMERIC = ("number", "date")


class Encoded(NamedTuple):
    """What a column was learnt to be: how its cells become numbers."""

    name: str
    kind: str  # "number", "date" or "category"
    center: float  # median
    scale: float  # 1 / (interquartile range), 0 for a constant column
    gaps: bool  # whether training had missing cells: one more input says so
    categories: tuple[str, ...]  # most frequent first; one input each
    rest: bool  # whether rarer categories were left out: one more input stands for them

    @property
    def width(self) -> int:
        """How many inputs the column becomes."""
        inputs = 1 if self.kind in NUMERIC else len(self.categories) + self.rest
        return inputs + self.gaps


def learn(name: str, kind: str, values: Any) -> Encoded:
    """What training's cells say of a column: numbers' place and spread, or categories."""
    if kind in NUMERIC:
        known = values[~np.isnan(values)]
        gaps = len(known) < len(values)
        center = float(np.median(known)) if len(known) else 0.0
        return Encoded(name, kind, center, robust_scale(known), gaps, (), False)
    present = [value for value in values if value is not None]
    counts = Counter(present)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    kept, gaps = tuple(ordered[:CATEGORIES]), len(present) < len(values)
    return Encoded(name, kind, 0.0, 0.0, gaps, kept, len(ordered) > CATEGORIES)


def robust_scale(values: np.ndarray) -> float:
    """1 / interquartile range; where that is 0, 2 / range; 0 for a constant (RealMLP's)."""
    if not len(values):
        return 0.0
    low, high = np.quantile(values, [0.25, 0.75])
    spread = high - low if high > low else (values.max() - values.min()) / 2
    return float(1 / spread) if spread > 0 and np.isfinite(1 / spread) else 0.0


def smooth_clip(xp: Namespace, z: Array) -> Array:
    """z / sqrt(1 + (z / 3)^2): near z in the middle, never beyond 3 (RealMLP's)."""
    return z / xp.hypot(xp.ones_like(z), z / 3)  # hypot: the square of 1e200 is no float


def within(xp: Namespace, z: Array) -> Array:
    """z, and where that is no float the largest of its sign."""
    top = float(np.finfo(np.float64).max)
    return xp.minimum(xp.maximum(z, -top), top)


def scaled(xp: Namespace, column: Encoded, values: Array, gap: Array) -> Array:
    """The first input (N,) of a number or date: 0 where there is a gap (N,) of truths."""
    z = within(xp, within(xp, values - column.center) * column.scale)
    return smooth_clip(xp, xp.where(gap, xp.zeros_like(z), z))


def places(column: Encoded) -> tuple[dict[str, int], int, int]:
    """Which input each category has, which any other text, and which a missing cell; one beyond
    the last stands for none."""
    known = {value: i for i, value in enumerate(column.categories)}
    rest = len(known) if column.rest else column.width
    return known, rest, len(known) + column.rest if column.gaps else column.width


def encode(column: Encoded, values: Any) -> tuple[np.ndarray, int]:
    """A column's inputs (N, width) in float32, and how many cells had an unknown category."""
    if column.kind in NUMERIC:
        gap = np.isnan(values)
        with np.errstate(over="ignore"):
            z = scaled(np, column, values, gap)
        parts = [z[:, None]] + ([gap[:, None]] if column.gaps else [])
        return np.concatenate(parts, axis=1).astype(np.float32), 0
    place, rest, gap = places(column)
    index = [gap if value is None else place.get(value, rest) for value in values]
    unknown = sum(value is not None and value not in place for value in values)
    hot = np.zeros((len(index), column.width + 1), dtype=np.float32)
    hot[np.arange(len(index)), index] = 1
    return hot[:, : column.width], 0 if column.rest else unknown


def to_arrays(columns: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """The numbers that were learnt, as arrays for a model file."""
    return {
        "table.center": np.array([column.center for column in columns]),
        "table.scale": np.array([column.scale for column in columns]),
    }


def to_config(columns: Sequence[Encoded]) -> list[dict[str, Any]]:
    """All else that was learnt, as JSON for a model file."""
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "gaps": column.gaps,
            "categories": list(column.categories),
            "rest": column.rest,
        }
        for column in columns
    ]


def from_saved(config: Any, arrays: Mapping[str, np.ndarray]) -> tuple[Encoded, ...]:
    """What `to_config` and `to_arrays` gave; ValueError for anything else."""
    center, scale = (arrays.get(name, np.zeros(0)) for name in ("table.center", "table.scale"))
    if not isinstance(config, list) or not (center.shape == scale.shape == (len(config),)):
        raise ValueError("its columns and their numbers do not go together")
    if not (center.dtype == scale.dtype == np.float64):
        raise ValueError("its columns' numbers are not in float64")
    if not (np.isfinite(center).all() and np.isfinite(scale).all()):
        raise ValueError("a column's center or scale is no finite number")
    found = []
    for entry, c, s in zip(config, center.tolist(), scale.tolist(), strict=True):
        if not isinstance(entry["categories"], list):
            raise ValueError("a column's categories are no list")
        column = Encoded(center=c, scale=s, **{**entry, "categories": tuple(entry["categories"])})
        texts = [column.name, column.kind, *column.categories]
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(flag, bool) for flag in (column.gaps, column.rest)
        ):
            raise ValueError("a column is described by values of the wrong type")
        if column.kind not in (*NUMERIC, "category"):
            raise ValueError(f"column {column.name!r} is of unknown kind {column.kind!r}")
        if column.kind in NUMERIC and (column.categories or column.rest):
            raise ValueError(f"column {column.name!r} holds numbers, but has categories")
        if len(set(column.categories)) < len(column.categories):
            raise ValueError(f"column {column.name!r} has a category twice")
        found.append(column)
    if len({column.name for column in found}) < len(found):
        raise ValueError("two columns have one name")
    return tuple(found)
