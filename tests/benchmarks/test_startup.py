"""`benchmarks/startup.py` starts every kind of process, and says what its figures are."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "startup.py"


def run(*words):
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_figures_are_those_of_the_seconds():
    done = run("--repeats", "1", "--json")
    told = json.loads(done.stdout)
    seconds, found = told["seconds"], told["found"]
    assert all(value > 0 for value in seconds.values())
    assert found["import xpmlp"] == seconds["import xpmlp"] / seconds["import numpy"]
    assert found["xpmlp shapes 2,3,1"] == seconds["xpmlp shapes 2,3,1"]
    within = all(found[name] <= most for name, most in told["most"].items())
    assert done.returncode == (0 if within else 1)


def test_every_start_has_its_line():
    lines = run("--repeats", "1").stdout.splitlines()
    assert len(lines) == 5
    assert lines[1].endswith("1.00 x import numpy")


def test_no_repeats_are_refused():
    done = run("--repeats", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("--repeats must be at least 1")
