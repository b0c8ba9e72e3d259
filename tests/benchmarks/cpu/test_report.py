"""The printed tables and headings."""

import pytest

from benchmarks.cpu.contest import FLOOR, Plan
from benchmarks.cpu.report import figure, heading, metadata, table
from xpmlp import __version__

ROWS = [
    {"contender": "xpmlp", "min": 2e-5, "median": 3e-5, "ratio": 1.0, "share": 0.4,
     "difference": None, "problem": None},
    {"contender": FLOOR.name, "min": 8e-6, "median": 8e-6, "ratio": 0.4, "share": 1.0,
     "difference": None, "problem": None},
    {"contender": "theirs", "min": 1.5e-4, "median": 1.6e-4, "ratio": 7.5, "share": 0.05,
     "difference": 3e-12, "problem": None},
    {"contender": "absent", "difference": None, "problem": "No module named 'absent'"},
]  # fmt: skip


def test_a_table_has_best_median_ratio_share_and_difference():
    title, head, ours, floor, theirs, absent = table(
        {"task": "train", "shape": "a32", "size": 1, "rows": ROWS}
    ).splitlines()
    assert title == "a32: 1-3-2-1 sigmoid, squared_error, batch 32: training, us per step"
    assert head.split() == ["best", "median", "x", "ours", "floor", "differs"]
    assert ours.split() == ["xpmlp", "20.0", "30.0", "1.00", "40%"]
    assert floor.split()[-3:] == ["8.0", "8.0", "0.40"]
    assert theirs.split() == ["theirs", "150", "160", "7.50", "5%", "3e-12"]
    assert absent.strip() == "absent                      not measured: No module named 'absent'"


@pytest.mark.parametrize(
    ("task", "seconds", "text"),
    [("train", 1.25e-5, "12.5"), ("train", 0.146, "146,000"), ("predict", 1e-5, "100"),
     ("predict", 1e-3, "1.0")],
)  # fmt: skip
def test_figures_are_microseconds_or_thousand_rows(task, seconds, text):
    assert figure(task, seconds) == text


def test_metadata_has_machine_versions_threads_and_command():
    result = metadata(Plan(threads=2), "the command")
    text = heading(result)
    assert result["command"] == "the command"
    assert "threads: 2, " in text
    assert f"xpmlp {__version__}, Python " in text
    assert f"numpy {result['packages']['numpy']}" in text
    assert result["processors"] >= 1
    assert result["processor"] in text
    assert "each library's own" in heading(metadata(Plan(), "the command"))
