"""`benchmarks/scaling.py`: every size has its figures, and a bound that is broken is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scaling

SCRIPT = Path(scaling.__file__)


def run(*words):
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_decade_of_each_keeps_to_its_memory(tmp_path):
    done = run("--quick", "--json", "--plot", str(tmp_path / "picture.png"))
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert [(row["axis"], row[row["axis"]]) for row in told["found"]] == [
        (axis, getattr(size, axis)) for axis, sizes in scaling.AXES.items() for size in sizes[:3]
    ]
    assert all(row["per_row"] > 0 for row in told["found"])
    weighed = [row for row in told["found"] if "added" in row]
    assert len(weighed) == 8
    assert [row for row in weighed if row["added"] > row["limit"]] == []
    assert max(row["added"] for row in weighed) > 8_000_000  # 100,000 rows of 21 numbers
    assert done.returncode == (1 if told["broken"] else 0)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def row(axis, size, **more):
    return {"axis": axis, axis: size, "per_row": 1.0, **more}


def test_what_breaks_a_bound_is_named():
    kept = [row("rows", 10), row("rows", 100, per_row=1.5), row("width", 40, per_row=9.0)]
    assert scaling.broken(kept) == []
    slow, large = row("rows", 1000, per_row=1.6), row("depth", 100, added=3e6, limit=2e6)
    assert scaling.broken([*kept, slow]) == ["rows: 1.60 x the fastest row, at most 1.5"]
    assert scaling.broken([*kept, large]) == ["depth 100: 3 MB beyond the imports, at most 2"]


def test_the_limit_is_the_sum_of_its_parts():
    size = scaling.Size(rows=1000, width=30, depth=2, members=4, batch=50)
    one = (21 * 30) + (31 * 30) + (31 * 1)
    assert size.parameters == 4 * one
    numbers = 1000 * 21 + 6 * 4 * one + 2 * 4 * 50 * (20 + 30 + 30 + 1)
    assert size.limit == 64_000_000 + 4 * numbers


def test_bad_arguments_are_named():
    done = run("--rounds", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--rounds must be at least 1" in done.stderr
