"""Files and frames to columns: Polars reads files, narwhals takes any frame.

A column is float64 numbers or a list of strings. Its kind is inferred in training, and required in
prediction.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from xpmlp.devices.extras import import_extra
from xpmlp.names import nearest
from xpmlp.shapes import many
from xpmlp.training.labels import is_missing
from xpmlp.types import Array

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
NULL_VALUES = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"]
NUMERIC, DATE, TEXT = "number", "date", "category"
NESTED = ("List", "Array", "Struct", "Binary")  # dtypes whose cells are not scalars


HALF = sys.float_info.max / 2


class Column(NamedTuple):
    """One column of a table."""

    kind: str  # "number" (booleans too), "date" (seconds since 1970) or "category"
    values: Any  # (N,) float64 with NaN where missing; a list of str or None for a category
    dtype: str  # of the frame, such as "Int64", for messages
    native_kind: str  # the kind of that dtype, whatever kind was requested

    def take(self, rows: Array) -> "Column":
        """The column of those rows."""
        values = self.values
        selected = [values[i] for i in rows] if isinstance(values, list) else values[rows]
        return self._replace(values=selected)


class TableError(ValueError):
    """An invalid table; the message names the file or column and the problem."""


def read_table(
    path: str | os.PathLike[str], *, min_rows: int = 2, strings: Sequence[str] = ()
) -> Any:
    """The table in a file as a Polars frame; TableError naming the path if it is invalid.

    min_rows: two for training and scores, one for predictions. strings: columns to read as strings
    even if every cell is a number: "007" is not 7.
    """
    polars, name = import_extra("polars", "table"), os.fspath(path)
    file = Path(path)
    if not file.exists():
        raise TableError(f"{name} does not exist")
    if file.is_dir():
        raise TableError(f"{name} is a directory, not a table")
    if not file.name.lower().endswith(SUFFIXES):
        raise TableError(f"{name} must end in one of {', '.join(SUFFIXES)}")
    if file.stat().st_size == 0:
        raise TableError(f"{name} is empty")
    try:
        frame = read_file(polars, file, strings)
    except (polars.exceptions.PolarsError, OSError, UnicodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TableError(f"{name} is not a readable table: {reason}") from None
    if frame.height == 0:
        raise TableError(f"{name} has a header but no rows")
    if frame.height < min_rows:
        raise TableError(f"{name} has one row: at least two are needed")
    return frame


def read_file(polars: Any, file: Path, strings: Sequence[str]) -> Any:
    """Read by the file's suffix; all rows are read before a column's dtype is inferred.

    A time of day stays a string: otherwise "9:05" would become "09:05:00".
    """
    if file.name.lower().endswith(".parquet"):
        return polars.read_parquet(file)
    separator = "\t" if file.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    read = partial(
        polars.read_csv,
        file,
        separator=separator,
        null_values=NULL_VALUES,
        infer_schema_length=None,
        try_parse_dates=True,
    )
    frame = read()
    strings = [
        name
        for name, dtype in frame.schema.items()
        if dtype == polars.Time or (name in strings and dtype != polars.String)
    ]
    if strings:
        frame = read(schema_overrides=dict.fromkeys(strings, polars.String))
    if any(
        "_duplicated_" in name for name in frame.columns
    ):  # Polars renames a second column of a name
        header = polars.read_csv(file, separator=separator, has_header=False, n_rows=1).row(0)
        duplicates = sorted({str(name) for name in header if header.count(name) > 1})
        if duplicates:
            raise TableError(f"{file}: two columns are named {duplicates[0]!r}")
    return frame


def to_narwhals(frame: Any) -> Any:
    """Any frame as a narwhals frame; TypeError if it is not a frame."""
    narwhals = import_extra("narwhals", "table")
    try:
        return narwhals.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(
            f"a table must be a pandas, polars or pyarrow frame; got {type(frame).__name__}"
        ) from None


@dataclass(frozen=True)
class Table:
    """A frame with its decoded columns: each column is decoded once, on first use."""

    frame: Any
    decoded: dict[str, Column] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(to_narwhals(self.frame))

    def column(self, name: str, kind: str | None = None) -> Column:
        """The decoded column, see `decode_column`."""
        column = self.decoded.get(name)
        if column is None or kind not in (None, column.kind):
            column = self.decoded[name] = decode_column(self.frame, name, kind)
        return column

    def cells(self, name: str) -> list[Any]:
        """The cells of a column that has no missing ones, as Python objects."""
        series = get_series(self.frame, name)
        is_string = str(series.dtype) == "String"
        return list(self.column(name).values if is_string else series.to_list())

    def take(self, rows: Array) -> "Table":
        """The table of those rows."""
        frame = to_narwhals(self.frame)[rows.tolist(), :].to_native()
        return Table(frame, {name: column.take(rows) for name, column in self.decoded.items()})


def as_table(frame: Any) -> Table:
    return frame if isinstance(frame, Table) else Table(frame)


def column_names(frame: Any) -> list[str]:
    """The frame's column names, which must be unique."""
    try:
        return list(map(str, to_narwhals(frame).columns))
    except import_extra("narwhals.exceptions", "table").DuplicateError as error:
        reason = " ".join(str(error).split())  # one line
        raise TableError(f"column names are not unique: {reason}") from None


def decode_column(frame: Any, name: str, kind: str | None = None) -> Column:
    """Decode a column as the kind it had in training, or by its dtype.

    TableError naming the column (and the row, from 1) if that is not possible.
    """
    series = get_series(frame, name)
    dtype = series.dtype
    native = kind_of(dtype)
    type_name = str(dtype)
    if type_name.startswith(NESTED):
        raise TableError(f"column {name!r} holds {type_name}, not numbers, strings or dates")
    if kind is None or kind == native or (native, kind) == (NUMERIC, TEXT):
        kind = kind or native
    elif not (native == TEXT and series.null_count() == len(series)):
        raise TableError(f"column {name!r} was a {kind} in training; here it holds {type_name}")
    if kind == TEXT:
        return Column(TEXT, to_strings(series), type_name, native)
    return Column(kind, check_finite(to_numbers(series, native), name), type_name, native)


def get_series(frame: Any, name: str) -> Any:
    """The series of a column; TableError with the nearest name if there is none."""
    names = column_names(frame)
    if name not in names:
        raise TableError(f"there is no column {name!r}{nearest(name, names)}")
    return to_narwhals(frame)[name]


def kind_of(dtype: Any) -> str:
    narwhals = import_extra("narwhals", "table")
    if dtype.is_numeric() or dtype in (narwhals.Boolean, narwhals.Duration):
        return NUMERIC
    return DATE if dtype in (narwhals.Date, narwhals.Datetime) else TEXT


def string_columns(frame: Any) -> list[str]:
    """The names of the columns of strings."""
    return [name for name in column_names(frame) if kind_of(get_series(frame, name).dtype) == TEXT]


def to_numbers(series: Any, native: str) -> Array:
    """Float64, NaN where missing; dates as seconds since 1970, durations as seconds."""
    narwhals = import_extra("narwhals", "table")
    if native == TEXT:  # every cell is missing
        series = series.cast(narwhals.String)
    elif native == DATE:
        if series.dtype == narwhals.Date:
            series = series.cast(narwhals.Datetime("us"))
        series = series.dt.timestamp("us") / 1e6
    elif series.dtype == narwhals.Duration:
        series = series.dt.total_microseconds() / 1e6
    return series.cast(narwhals.Float64).fill_null(float("nan")).to_numpy()


def check_finite(values: Array, name: str) -> Array:
    """`values`; TableError naming column and row if one is infinite or their range overflows."""
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
            f"column {name!r} has a range from {known.min():g} to {known.max():g}, which "
            "overflows float64: scale it"
        )
    return values


def to_strings(series: Any) -> list[str | None]:
    """Strings, None where missing."""
    nulls = series.is_null().to_list()  # comparing pandas' NA gives neither true nor false
    return [
        None if null or is_missing(item) else str(item)
        for item, null in zip(series.to_list(), nulls, strict=True)
    ]


def check_no_missing(values: Any, what: str, hint: str) -> None:
    """TableError with the count and the first row if cells are missing."""
    missing = [i for i, value in enumerate(values) if is_missing(value)]
    if missing:
        raise TableError(
            f"{what} has {many(len(missing), 'missing cell')}, the first in row {missing[0] + 1}; "
            f"{hint}"
        )


def first_non_number(values: Sequence[str | None]) -> int | None:
    """The first row that is not a number if at least 90 % are, such as "-" for a missing cell."""
    present = [i for i, value in enumerate(values) if value is not None]
    words = [i for i in present if not is_number(values[i])]
    return words[0] if words and len(words) * 10 <= len(present) else None


def is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def feature_names(frame: Any, excluded: Sequence[str]) -> list[str]:
    """The names of all columns but those in `excluded`, which must exist."""
    for name in excluded:
        get_series(frame, name)
    names = [name for name in column_names(frame) if name not in excluded]
    if not names:
        raise TableError("no column is left to train on")
    return names
