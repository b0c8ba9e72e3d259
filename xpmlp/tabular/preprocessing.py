"""Columns to network inputs. The fitted encoders are saved as arrays and JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpmlp.types import Array, Namespace

MAX_CATEGORIES = 64  # of a column; rarer ones share one input
NUMERIC = ("number", "date")


class ColumnEncoder(NamedTuple):
    """A fitted encoder: how the cells of a column become network inputs."""

    name: str
    kind: str  # "number", "date" or "category"
    center: float  # median
    scale: float  # 1 / (interquartile range), 0 for a constant column
    gaps: bool  # whether training had missing cells: one more input flags them
    categories: tuple[str, ...]  # most frequent first; one input each
    rest: bool  # whether there are rarer categories: they share one more input

    @property
    def width(self) -> int:
        """Number of network inputs."""
        inputs = 1 if self.kind in NUMERIC else len(self.categories) + self.rest
        return inputs + self.gaps


def fit_column(name: str, kind: str, values: Any) -> ColumnEncoder:
    """Fit an encoder to a column of the training rows."""
    if kind in NUMERIC:
        known = values[~np.isnan(values)]
        gaps = len(known) < len(values)
        center = float(np.median(known)) if len(known) else 0.0
        return ColumnEncoder(name, kind, center, robust_scale(known), gaps, (), False)
    present = [value for value in values if value is not None]
    counts = Counter(present)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    categories, gaps = tuple(ordered[:MAX_CATEGORIES]), len(present) < len(values)
    return ColumnEncoder(name, kind, 0.0, 0.0, gaps, categories, len(ordered) > MAX_CATEGORIES)


def robust_scale(values: np.ndarray) -> float:
    """1 / interquartile range; where that is 0, 2 / range; 0 for a constant (as RealMLP)."""
    if not len(values):
        return 0.0
    low, high = np.quantile(values, [0.25, 0.75])
    spread = high - low if high > low else (values.max() - values.min()) / 2
    with np.errstate(over="ignore"):  # of 1 / 1e-310
        scale = 1 / spread if spread > 0 else 0.0
    return float(scale) if np.isfinite(scale) else 0.0


def smooth_clip(xp: Namespace, z: Array) -> Array:
    """z / sqrt(1 + (z / 3)^2): near z for small z, bounded by 3 (as RealMLP)."""
    return z / xp.hypot(xp.ones_like(z), z / 3)  # hypot: the square of 1e200 overflows


def clip_infinite(xp: Namespace, z: Array) -> Array:
    """z with infinities replaced by the largest finite floats."""
    top = float(np.finfo(np.float64).max)
    return xp.minimum(xp.maximum(z, -top), top)


def scale_numbers(xp: Namespace, column: ColumnEncoder, values: Array, missing: Array) -> Array:
    """The first input (N,) of a number or date: 0 where `missing` (N,)."""
    z = clip_infinite(xp, clip_infinite(xp, values - column.center) * column.scale)
    return smooth_clip(xp, xp.where(missing, xp.zeros_like(z), z))


def category_indices(column: ColumnEncoder) -> tuple[dict[str, int], int, int]:
    """The input of each category, of any other string, and of a missing cell; `width` for none."""
    index = {value: i for i, value in enumerate(column.categories)}
    rest = len(index) if column.rest else column.width
    return index, rest, len(index) + column.rest if column.gaps else column.width


def encode(column: ColumnEncoder, values: Any) -> tuple[np.ndarray, int]:
    """A column's inputs (N, width) in float32, and the number of cells of an unknown category."""
    if column.kind in NUMERIC:
        missing = np.isnan(values)
        with np.errstate(over="ignore"):
            z = scale_numbers(np, column, values, missing)
        parts = [z[:, None]] + ([missing[:, None]] if column.gaps else [])
        return np.concatenate(parts, axis=1).astype(np.float32), 0
    index, rest, missing = category_indices(column)
    indices = [missing if value is None else index.get(value, rest) for value in values]
    unknown = sum(value is not None and value not in index for value in values)
    one_hot = np.zeros((len(indices), column.width + 1), dtype=np.float32)
    one_hot[np.arange(len(indices)), indices] = 1
    return one_hot[:, : column.width], 0 if column.rest else unknown


def to_arrays(columns: Sequence[ColumnEncoder]) -> dict[str, np.ndarray]:
    """Centers and scales as the arrays of a model file."""
    return {
        "table.center": np.array([column.center for column in columns]),
        "table.scale": np.array([column.scale for column in columns]),
    }


def to_config(columns: Sequence[ColumnEncoder]) -> list[dict[str, Any]]:
    """All other fields as the JSON of a model file."""
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


def from_config(config: Any, arrays: Mapping[str, np.ndarray]) -> tuple[ColumnEncoder, ...]:
    """The inverse of `to_config` and `to_arrays`; ValueError for anything else."""
    center, scale = (arrays.get(name, np.zeros(0)) for name in ("table.center", "table.scale"))
    if not isinstance(config, list) or not (center.shape == scale.shape == (len(config),)):
        raise ValueError("its columns do not fit their arrays")
    if not (center.dtype == scale.dtype == np.float64):
        raise ValueError("its columns' arrays are not float64")
    if not (np.isfinite(center).all() and np.isfinite(scale).all()):
        raise ValueError("a column's center or scale is not finite")
    columns = []
    for entry, c, s in zip(config, center.tolist(), scale.tolist(), strict=True):
        if not isinstance(entry["categories"], list):
            raise ValueError("a column's categories are not a list")
        column = ColumnEncoder(
            center=c, scale=s, **{**entry, "categories": tuple(entry["categories"])}
        )
        strings = [column.name, column.kind, *column.categories]
        if not all(isinstance(text, str) for text in strings) or not all(
            isinstance(flag, bool) for flag in (column.gaps, column.rest)
        ):
            raise ValueError("a field of a column has the wrong type")
        if column.kind not in (*NUMERIC, "category"):
            raise ValueError(f"column {column.name!r} is of unknown kind {column.kind!r}")
        if column.kind in NUMERIC and (column.categories or column.rest):
            raise ValueError(f"column {column.name!r} holds numbers, but has categories")
        if len(set(column.categories)) < len(column.categories):
            raise ValueError(f"column {column.name!r} has a duplicate category")
        columns.append(column)
    if len({column.name for column in columns}) < len(columns):
        raise ValueError("column names are not unique")
    return tuple(columns)
