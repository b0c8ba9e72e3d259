"""The scripts that measure against other libraries and write the README's tables."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cpu.peers import ALL

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load("benchmark")


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The table script, whose ROOT is a folder with a README and no results."""
    module = load("benchmark_table")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    return module


def run(*arguments):
    command = [sys.executable, SCRIPTS / "benchmark.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# Measuring ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--shapes", "zz"), "shape 'zz' is unknown"), (("--rounds", "0"), "--rounds must be")],
)
def test_a_bad_argument_is_a_one_line_error(arguments, message):
    process = run(*arguments)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"benchmark.py: {message}")
    assert process.stderr.count("\n") == 1


def test_a_missing_library_is_no_failure_but_a_wrong_result_is(script):
    def content(problem):
        return {"cases": [{"rows": [{"problem": None}, {"problem": problem}]}]}

    assert not script.failed(content(None))
    assert not script.failed(content("ModuleNotFoundError: No module named 'jax'"))
    assert script.failed(content("computes something else: 1e-3 from ours"))
    assert not script.failed({"loaded": []})


@pytest.mark.slow
def test_a_short_run_measures_the_installed_libraries(tmp_path):
    out = tmp_path / "new" / "result.json"
    process = run("--quick", "--shapes", "a32", "--rounds", "1", "--json", "--out", out)
    assert process.returncode == 0, process.stderr
    content = json.loads(process.stdout)
    assert content == json.loads(out.read_text())
    assert content["command"].startswith("python scripts/benchmark.py --quick --shapes a32")
    for case in content["cases"]:
        names = [contender.name for contender in ALL[case["task"]]]
        assert [row["contender"] for row in case["rows"]] == names
        measured = [row for row in case["rows"] if not row["problem"]]
        assert all(row["min"] > 0 for row in measured)
        assert len(measured) >= 2


@pytest.mark.slow
def test_a_short_run_with_a_busy_process():
    process = run("--quick", "--shapes", "a32", "--rounds", "1", "--json", "--loaded")
    assert process.returncode == 0, process.stderr
    content = json.loads(process.stdout)
    assert content["threads"] is None
    (row,) = content["loaded"]
    assert row["ratio"] == pytest.approx(row["loaded"][0] / row["idle"][0])
    assert row["ratio_one_thread"] == pytest.approx(row["one_thread"][0] / row["idle"][0])


# The README's tables -----------------------------------------------------------------------


def test_the_readme_matches_the_results():
    process = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark_table.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


def row(name, minimum=None, ratio=None):
    times = {} if minimum is None else {"min": minimum, "ratio": ratio}
    return {"contender": name, **times, "problem": None if times else "not here"}


def result(date, **changes):
    cases = [
        {"task": "train", "shape": "a32", "size": 1,
         "rows": [row("ours", 2e-5, 1.0), row("theirs", 1e-5, 0.5), row("absent")]},
        {"task": "train", "shape": "c", "size": 1,
         "rows": [row("ours", 1e-3, 1.0), row("theirs", 2.5e-3, 2.5), row("absent")]},
        {"task": "predict", "shape": "c", "size": 1024, "rows": [row("ours", 1e-5, 1.0)]},
    ]  # fmt: skip
    return {
        "date": date, "cases": cases, "processor": "A Processor", "processors": 2, "threads": 2,
        "rounds": 7, "xpmlp": "0", "python": "3", "packages": {"numpy": "2"}, "blas": "a BLAS",
        "command": "python scripts/benchmark.py --rounds 7",
    } | changes  # fmt: skip


def write(tables, name, content):
    (tables.ROOT / "benchmarks" / "results" / name).write_text(json.dumps(content))


def call(tables, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark_table.py", *arguments])
    return tables.main(), (tables.ROOT / "README.md").read_text()


def test_the_newest_result_is_written_once(tables, monkeypatch, capsys):
    write(tables, "a.json", result("2026-02-01T00:00:00"))
    write(tables, "b.json", result("2026-01-01T00:00:00", command="the older"))
    write(tables, "c.json", {"date": "2027-01-01T00:00:00", "loaded": []})
    status, stale = call(tables, monkeypatch, "--check")
    assert status == 1
    assert "\nold\n" in stale
    status, readme = call(tables, monkeypatch)
    assert status == 0
    assert "the older" not in readme
    assert readme.startswith("before\n")
    assert readme.endswith("\nafter\n")
    assert call(tables, monkeypatch, "--check") == (0, readme)
    assert call(tables, monkeypatch) == (0, readme)
    assert capsys.readouterr().out == "wrote README.md\n"


def test_slower_and_missing_cells_are_shown(tables):
    lines = tables.section(result("2026-02-01T00:00:00")).splitlines()
    assert lines[:5] == [
        "| Training, µs per step | a32 | c |",
        "| --- | --- | --- |",
        "| ours | 20.0 | 1,000 |",
        "| theirs | 10.0 (0.50) | 2,500 (2.50) |",
        "| absent | - | - |",
    ]
    assert "| Prediction, thousand rows per second | c, 1,024 rows |" in lines
    assert "| ours | 100 |" in lines


def test_machine_versions_threads_date_and_command_are_below_the_tables(tables):
    text = tables.section(result("2026-02-01T00:00:00"))
    for part in ("A Processor", "threads: 2", "2026-02-01", "numpy 2", "a32 = 1-3-2-1 sigmoid"):
        assert part in text
    assert text.endswith("\n\n    python scripts/benchmark.py --rounds 7")
    assert "each library's own" in tables.section(result("2026", threads=None))


def test_without_a_result_the_page_shows_the_command(tables, monkeypatch):
    status, readme = call(tables, monkeypatch)
    assert status == 0
    assert "python scripts/benchmark.py --out benchmarks/results/NAME.json" in readme


def test_a_readme_without_markers_is_refused(tables, monkeypatch):
    (tables.ROOT / "README.md").write_text("nothing here\n")
    with pytest.raises(ValueError, match=r"README\.md must have"):
        call(tables, monkeypatch)
