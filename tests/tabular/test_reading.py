"""Tables: every kind of file and frame gives the same columns."""

import gzip
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest

from xpmlp.tabular.reading import (
    NULL_VALUES,
    TableError,
    column_names,
    decode_column,
    feature_names,
    first_non_number,
    read_table,
    string_columns,
)

polars = pytest.importorskip("polars")

CELLS = {
    "whole": [3, 1, None, 2],
    "real": [0.5, None, -1.5, 2.0],
    "text": ["x", None, "y, z", "x"],
    "yes": [True, False, None, True],
    "day": [date(1970, 1, 2), date(2026, 11, 23), None, date(1969, 12, 31)],
    "moment": [datetime(1970, 1, 1, 0, 0, 1), None, datetime(2000, 1, 1), datetime(1970, 1, 1)],
}
nan = float("nan")


@pytest.fixture
def frame():
    return polars.DataFrame(CELLS)


def write_table(frame, path):
    """Write a frame in the format of the file's name."""
    name = path.name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
        return path
    data = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def expected(name):
    """The expected kind and values of a column of CELLS."""
    if name == "text":
        return "category", CELLS["text"]
    kind = "date" if name in ("day", "moment") else "number"
    return kind, [nan if cell is None else to_number(cell) for cell in CELLS[name]]


def to_number(cell):
    if isinstance(cell, datetime):
        return (cell - datetime(1970, 1, 1)) / timedelta(seconds=1)
    return float((cell - date(1970, 1, 1)).days * 86400 if isinstance(cell, date) else cell)


def assert_same(column, name):
    kind, values = expected(name)
    assert column.kind == kind
    if kind == "category":
        assert column.values == values
    else:
        assert column.values.dtype == np.float64
        np.testing.assert_array_equal(column.values, values)


ENDINGS = ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "A.CSV", "my.tsv.csv"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_file_format_gives_the_same_columns(ending, frame, tmp_path):
    if ending == "my.tsv.csv":  # only the last suffix counts
        path = tmp_path / ending
        path.write_bytes(frame.write_csv().encode())
    else:
        path = write_table(frame, tmp_path / ending)
    table = read_table(path)
    assert column_names(table) == list(CELLS)
    for name in CELLS:
        assert_same(decode_column(table, name), name)


def frames(kind, optional):
    if kind == "polars":
        return polars.DataFrame(CELLS)
    if kind == "pyarrow":
        return optional("pyarrow").table(CELLS)
    pandas = optional("pandas")
    pandas_frame = pandas.DataFrame(CELLS)
    for name in ("day", "moment"):
        pandas_frame[name] = pandas.to_datetime(pandas_frame[name])
    if kind == "pandas":
        return pandas_frame.assign(yes=pandas_frame["yes"].astype("boolean"))
    return pandas_frame.convert_dtypes().assign(text=pandas_frame["text"].astype("category"))


@pytest.mark.parametrize("kind", ["polars", "pandas", "pandas-nullable", "pyarrow"])
def test_every_frame_gives_the_same_columns(kind, optional):
    table = frames(kind, optional)
    for name in CELLS:
        assert_same(decode_column(table, name), name)


def test_gaps_of_a_pandas_string_column(optional):
    pandas = optional("pandas")
    table = pandas.DataFrame({"text": pandas.Series(CELLS["text"], dtype="string")})
    assert_same(decode_column(table, "text"), "text")


@pytest.mark.parametrize("word", NULL_VALUES)
def test_null_values_are_missing(word, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n1,x\n{word},{word}\n3,y\n")
    table = read_table(path)
    np.testing.assert_array_equal(decode_column(table, "a").values, [1, nan, 3])
    assert decode_column(table, "b").values == ["x", None, "y"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv"])
def test_strings_are_read_unchanged(ending, tmp_path):
    frame = polars.DataFrame({"code": ["007", "010", None], "flag": ["true"] * 3, "a": [1, 2, 3]})
    path = write_table(frame, tmp_path / f"a.{ending}")
    default, as_strings = read_table(path), read_table(path, strings=["code", "flag", "not there"])
    assert [decode_column(default, name).kind for name in frame.columns] == ["number"] * 3
    assert decode_column(as_strings, "code").values == ["007", "010", None]
    assert decode_column(as_strings, "flag").values == ["true"] * 3
    assert decode_column(as_strings, "a").kind == "number"
    assert string_columns(as_strings) == ["code", "flag"]


def test_a_time_of_day_is_a_string(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("at,on,a\n9:05,2020-01-01,1\n12:30,2020-01-02,2\n,2020-01-03,3\n")
    for table in (read_table(path), read_table(path, strings=["at"])):
        assert decode_column(table, "at").values == ["9:05", "12:30", None]
        assert [decode_column(table, name).kind for name in ("on", "a")] == ["date", "number"]


@pytest.mark.parametrize("library", ["polars", "pandas", "pyarrow"])
def test_times_with_a_time_zone_are_seconds_since_1970(library, optional):
    zone = timezone(timedelta(hours=2))
    moments = [datetime(1970, 1, 1, 3, 0, 0, 250_000, zone), None]
    frame = optional(library)
    if library == "polars":
        table = frame.DataFrame({"at": moments}, schema={"at": frame.Datetime("us", "Europe/Rome")})
    elif library == "pandas":
        table = frame.DataFrame({"at": frame.to_datetime(moments)})
        assert table["at"].dtype.tz is not None
    else:
        table = frame.table({"at": frame.array(moments, frame.timestamp("us", "Europe/Rome"))})
    kind, values, _, _ = decode_column(table, "at")
    assert kind == "date"
    np.testing.assert_array_equal(values, [3600.25, nan])


def test_the_first_non_number():
    numbers = [str(i / 2) for i in range(40)]
    assert first_non_number([*numbers, None, "-", "?"]) == 41
    assert first_non_number(numbers) is None
    assert first_non_number(["x", "y", "1", "2"]) is None
    assert first_non_number([]) is None


def test_a_dtype_is_inferred_from_all_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n" + "1\n" * 2000 + "word\n")
    assert decode_column(read_table(path), "a").kind == "category"


@pytest.mark.parametrize("dtype", ["Duration", "Decimal", "UInt8", "Float32"])
def test_numeric_dtypes(dtype):
    cells = [timedelta(seconds=2), None] if dtype == "Duration" else [2, None]
    polars_dtype = polars.Decimal(9, 1) if dtype == "Decimal" else getattr(polars, dtype)
    series = polars.Series(cells).cast(polars_dtype)
    column = decode_column(polars.DataFrame({"a": series}), "a")
    assert column.kind == "number"
    np.testing.assert_array_equal(column.values, [2, nan])


# The kind of column in training


def test_numbers_are_accepted_as_strings():
    column = decode_column(polars.DataFrame({"a": [1, None, 2]}), "a", "category")
    assert column.values == ["1", None, "2"]


@pytest.mark.parametrize("kind", ["number", "date", "category"])
def test_an_empty_column_may_be_of_any_kind(kind):
    frame = polars.DataFrame({"a": [None, None]}, schema={"a": polars.String})
    column = decode_column(frame, "a", kind)
    assert column.kind == kind
    assert [value is None or np.isnan(value) for value in column.values] == [True, True]


MISFITS = {"number": ["x", "y"], "date": [1, 2]}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_column_of_another_kind_than_in_training_is_refused(kind):
    frame = polars.DataFrame({"speed": MISFITS[kind]})
    with pytest.raises(TableError, match=f"column 'speed' was a {kind} in training"):
        decode_column(frame, "speed", kind)


# Errors


def test_a_missing_column_is_named_with_the_nearest():
    frame = polars.DataFrame({"price": [1, 2], "size": [1, 2]})
    with pytest.raises(TableError, match=r"no column 'prise'; did you mean 'price'\?"):
        decode_column(frame, "prise")


@pytest.mark.parametrize("infinite", [float("inf"), float("-inf")])
def test_an_infinite_cell_is_refused_with_column_and_row(infinite):
    frame = polars.DataFrame({"a": [1.0, 2.0, infinite, infinite]})
    with pytest.raises(TableError, match="column 'a' has 2 infinite values, the first in row 3"):
        decode_column(frame, "a")


def test_two_columns_of_one_name_are_refused(optional):
    frame = optional("pandas").DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(TableError, match=r"column names are not unique: .*'a'"):
        decode_column(frame, "a")


@pytest.mark.parametrize("value", [[1, 2], {"a": [1]}, np.zeros((2, 2)), None])
def test_only_a_frame_is_accepted(value):
    with pytest.raises(
        TypeError, match=f"pandas, polars or pyarrow frame; got {type(value).__name__}"
    ):
        decode_column(value, "a")


def test_features_are_all_columns_except_the_excluded():
    frame = polars.DataFrame({"b": [1], "a": [1], "c": [1]})
    assert feature_names(frame, ["a"]) == ["b", "c"]
    with pytest.raises(TableError, match="no column is left"):
        feature_names(frame, ["a", "b", "c"])
    with pytest.raises(TableError, match="no column 'd'"):
        feature_names(frame, ["d"])


BAD = {
    "not there": ("a.csv", None, "does not exist"),
    "empty": ("a.csv", b"", "is empty"),
    "blank": ("a.csv", b"\n\n", "is not a readable table"),
    "another ending": ("a.xlsx", b"PK", r"must end in one of \.csv, "),
    "a header": ("a.csv", b"a,b\n", "has a header but no rows"),
    "one row": ("a.csv", b"a,b\n1,2\n", "has one row"),
    "a row too long": ("a.csv", b"a,b\n1,2\n1,2,3\n", "is not a readable table"),
    "noise": ("a.csv", bytes(range(128, 256)) * 2 + b"\n\xff,\xfe\n", "is not a readable table"),
    "noise in Parquet": ("a.parquet", bytes(range(256)), "is not a readable table"),
    "a cut Parquet": ("a.parquet", b"PAR1", "is not a readable table"),
    "half a gzip": ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:30], "is not a readable table"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_file_is_refused_in_one_line(kind, tmp_path):
    name, data, message = BAD[kind]
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TableError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(TableError, match="is a directory, not a table"):
        read_table(tmp_path)


def test_min_rows_of_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    assert len(read_table(path, min_rows=1)) == 1
