"""The script that shows a prediction's memory, with fewer rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "predict_memory.py"


def run(*words):
    command = [sys.executable, SCRIPT, "--device", "cpu", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_prediction_adds_less_than_its_rows(capsys):
    done = run("--rows", "1000000", "--json", "--limit", "120")
    assert done.returncode == 0, done.stderr
    found = {row["who"]: row for row in json.loads(done.stdout)["rows"]}
    assert found["xpmlp"]["data"] == 200_000_000
    assert found["xpmlp"]["added"] < 120e6 < found["scikit-learn"]["added"]
    assert "predict adds" in done.stderr


def test_bad_arguments_are_named():
    done = run("--rows", "10")
    assert done.returncode == 2
    assert "--rows must be at least 1000" in done.stderr
