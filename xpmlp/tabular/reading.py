"""Files and frames to plain columns: Polars reads files, narwhals takes any frame.

A column is (kind, values, missing): numbers as float64, texts as a list of strings. What a
column is for (its kind) is seen in training and asked for again in prediction.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from xpmlp.devices.extras import import_extra
from xpmlp.names import nearest
from xpmlp.shapes import many
from xpmlp.training.labels import is_missing
from xpmlp.types import Array

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
NUMERIC, DATE, TEXT = "number", "date", "category"
NESTED = ("List", "Array", "Struct", "Binary")  # types whose cells are no single value


HALF = sys.float_info.max / 2


class Column(NamedTuple):
    """One column of a table."""

    kind: str  # "number" (booleans too), "date" (seconds since 1970) or "category"
    values: Any  # (N,) float64 with NaN where missing; a list of str or None for a category
    type: str  # what the frame called it, such as "Int64", for messages
    looks: str  # the kind that its type is of, whatever it was asked for as


class TableError(ValueError):
    """A table that cannot be used: names the file or column, and what is wrong."""


def read_table(path: str | os.PathLike[str], *, fewest: int = 2, texts: Sequence[str] = ()) -> Any:
    """The table in a file as a Polars frame; TableError naming the path otherwise.

    fewest: the rows that it must have: two to learn or to compare, one to predict. texts: columns
    to read as they stand, even where every cell looks like a number: "007" is not 7.
    """
    polars, name = import_extra("polars", "table"), os.fspath(path)
    file = Path(path)
    if not file.exists():
        raise TableError(f"{name}: there is no such file")
    if file.is_dir():
        raise TableError(f"{name} is a directory, not a table")
    if not file.name.lower().endswith(ENDINGS):
        raise TableError(f"{name} must end in one of {', '.join(ENDINGS)}")
    if file.stat().st_size == 0:
        raise TableError(f"{name} is empty")
    try:
        frame = read_any(polars, file, texts)
    except (polars.exceptions.PolarsError, OSError, UnicodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TableError(f"{name} is no readable table: {reason}") from None
    if frame.height == 0:
        raise TableError(f"{name} has a header but no rows")
    if frame.height < fewest:
        raise TableError(f"{name} has one row: there is nothing to learn or to compare")
    return frame


def read_any(polars: Any, file: Path, texts: Sequence[str]) -> Any:
    """By the file's ending. Every row is looked at before a column's type is decided.

    A time of day stays the text that it is: "9:05" would else come back as "09:05:00".
    """
    if file.name.lower().endswith(".parquet"):
        return polars.read_parquet(file)
    separator = "\t" if file.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    reading = partial(
        polars.read_csv,
        file,
        separator=separator,
        null_values=MISSING,
        infer_schema_length=None,
        try_parse_dates=True,
    )
    frame = reading()
    other = [
        name
        for name, dtype in frame.schema.items()
        if dtype == polars.Time or (name in texts and dtype != polars.String)
    ]
    if other:
        frame = reading(schema_overrides=dict.fromkeys(other, polars.String))
    if any("_duplicated_" in name for name in frame.columns):  # Polars's own way out
        head = polars.read_csv(file, separator=separator, has_header=False, n_rows=1).row(0)
        twice = sorted({str(name) for name in head if head.count(name) > 1})
        if twice:
            raise TableError(f"{file}: two columns are named {twice[0]!r}")
    return frame


def narwhal(frame: Any) -> Any:
    """Any frame as narwhals knows it; TypeError for what is none."""
    narwhals = import_extra("narwhals", "table")
    try:
        return narwhals.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(
            f"a table must be a pandas, polars or pyarrow frame; got {type(frame).__name__}"
        ) from None


def names_of(frame: Any) -> list[str]:
    """The frame's column names, which must differ."""
    try:
        return list(map(str, narwhal(frame).columns))
    except import_extra("narwhals.exceptions", "table").DuplicateError as error:
        said = " ".join(str(error).split())  # one line
        raise TableError(f"two columns have one name: {said}") from None


def column(frame: Any, name: str, kind: str | None = None) -> Column:
    """A column, as the kind it was trained as, or as what it looks like.

    TableError naming the column (and the row, from 1) where it cannot be that.
    """
    series = find(frame, name)
    dtype = series.dtype
    found = kind_of(dtype)
    type_name = str(dtype)
    if type_name.startswith(NESTED):
        raise TableError(f"column {name!r} holds {type_name}: numbers, texts or dates are learnt")
    if kind is None or kind == found or (found, kind) == (NUMERIC, TEXT):
        kind = kind or found
    elif not (found == TEXT and series.null_count() == len(series)):
        raise TableError(f"column {name!r} was a {kind} in training; here it holds {type_name}")
    if kind == TEXT:
        return Column(TEXT, texts(series), type_name, found)
    return Column(kind, finite(numbers(series, found), name), type_name, found)


def find(frame: Any, name: str) -> Any:
    """The series of that name; TableError with the nearest name otherwise."""
    names = names_of(frame)
    if name not in names:
        raise TableError(f"there is no column {name!r}{nearest(name, names)}")
    return narwhal(frame)[name]


def kind_of(dtype: Any) -> str:
    narwhals = import_extra("narwhals", "table")
    if dtype.is_numeric() or dtype in (narwhals.Boolean, narwhals.Duration):
        return NUMERIC
    return DATE if dtype in (narwhals.Date, narwhals.Datetime) else TEXT


def texts_of(frame: Any) -> list[str]:
    """The names of the columns that hold texts."""
    return [name for name in names_of(frame) if kind_of(find(frame, name).dtype) == TEXT]


def numbers(series: Any, found: str) -> Array:
    """Float64, NaN where missing; dates as seconds since 1970, durations as seconds."""
    narwhals = import_extra("narwhals", "table")
    if found == TEXT:  # every cell is missing
        series = series.cast(narwhals.String)
    elif found == DATE:
        if series.dtype == narwhals.Date:
            series = series.cast(narwhals.Datetime("us"))
        series = series.dt.timestamp("us") / 1e6
    elif series.dtype == narwhals.Duration:
        series = series.dt.total_microseconds() / 1e6
    return series.cast(narwhals.Float64).fill_null(float("nan")).to_numpy()


def finite(values: Array, name: str) -> Array:
    """`values` where none is infinite; TableError naming column and row otherwise.

    So is a range beyond the largest number: nothing could be said of where in it a value is.
    """
    infinite = abs(values) == float("inf")
    if infinite.any():
        rows = infinite.nonzero()[0]
        raise TableError(
            f"column {name!r} has {many(len(rows), 'infinite value')}, the first in row "
            f"{rows[0] + 1}"
        )
    known = values[values == values]  # noqa: PLR0124 - NaN
    if len(known) and known.max() / 2 - known.min() / 2 > HALF:
        raise TableError(
            f"column {name!r} has a range from {known.min():g} to {known.max():g}, which no "
            "number holds: scale it"
        )
    return values


def texts(series: Any) -> list[str | None]:
    """Strings, None where missing: as they stand, or as they are written."""
    gaps = series.is_null().to_list()  # pandas' NA compares as neither true nor false
    return [
        None if gap or is_missing(item) else str(item)
        for item, gap in zip(series.to_list(), gaps, strict=True)
    ]


def refuse_gaps(values: Any, what: str, instead: str) -> None:
    """TableError with the count and the first row where a cell is missing."""
    gaps = [i for i, value in enumerate(values) if is_missing(value)]
    if gaps:
        raise TableError(
            f"{what} has {many(len(gaps), 'missing cell')}, the first in row {gaps[0] + 1}; "
            f"{instead}"
        )


def stray(values: Sequence[str | None]) -> int | None:
    """The first row whose text is no number, where nine in ten are: such as "-" for a gap."""
    present = [i for i, value in enumerate(values) if value is not None]
    words = [i for i in present if not is_number(values[i])]
    return words[0] if words and len(words) * 10 <= len(present) else None


def is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def features(frame: Any, leave: Sequence[str]) -> list[str]:
    """The names of the columns to learn from: all but those in `leave`, which must exist."""
    for name in leave:
        find(frame, name)
    kept = [name for name in names_of(frame) if name not in leave]
    if not kept:
        raise TableError("no column is left to learn from")
    return kept
