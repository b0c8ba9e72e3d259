"""The program that prints the outcomes of hostile inputs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bad_inputs.py"


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def missing(package):
    return importlib.util.find_spec(package) is None


@pytest.mark.slow
def test_both_columns_are_printed_with_totals():
    result = run("--only", "estimators fit, values: X: a")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["xpmlp", "scikit-learn"]
    assert any(line.endswith("silent") and "named error" in line for line in lines)
    totals = dict(line.rsplit(maxsplit=2)[:2] for line in lines[-6:])
    absent = sum("is not installed" in line for line in lines)
    assert absent == 0 or any(map(missing, ("torch", "array_api_strict", "pyarrow")))
    assert int(totals["not there"]) == absent
    assert int(totals["named error"]) + absent == len(lines) - 7


@pytest.mark.slow
def test_json_is_one_object_with_every_input():
    result = run("--only", "estimators fit, batch", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == 0
    assert {row["xpmlp"] for row in report["rows"]} == {"accepted, right"}
    assert report["totals"]["xpmlp"]["accepted, right"] == len(report["rows"])


def test_a_hang_is_reported_and_killed():
    result = run("--only", "core fit, batch: a batch of n", "--seconds", "0")
    assert result.returncode == 1
    assert "hang" in result.stdout


def test_a_word_that_matches_no_input_is_named():
    result = run("--only", "nothing of the kind")
    assert result.returncode == 2
    assert "no input has 'nothing of the kind'" in result.stderr
