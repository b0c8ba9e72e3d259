"""The program that prints what comes of hostile inputs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bad_inputs.py"


def run(*words):
    command = [sys.executable, SCRIPT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def missing(package):
    return importlib.util.find_spec(package) is None


@pytest.mark.slow
def test_both_columns_are_printed_with_totals():
    done = run("--only", "estimators fit, values: X: a")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["xpmlp", "scikit-learn"]
    assert any(line.endswith("silent") and "named error" in line for line in lines)
    totals = dict(line.rsplit(maxsplit=2)[:2] for line in lines[-6:])
    absent = sum("is not installed" in line for line in lines)
    assert absent == 0 or any(map(missing, ("torch", "array_api_strict", "pyarrow")))
    assert int(totals["not there"]) == absent
    assert int(totals["named error"]) + absent == len(lines) - 7


@pytest.mark.slow
def test_json_is_one_object_with_every_input():
    done = run("--only", "estimators fit, batch", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == 0
    assert {row["xpmlp"] for row in found["rows"]} == {"accepted, right"}
    assert found["totals"]["xpmlp"]["accepted, right"] == len(found["rows"])


def test_a_hang_is_told_and_ends():
    done = run("--only", "core fit, batch: a batch of n", "--seconds", "0")
    assert done.returncode == 1
    assert "hang" in done.stdout


def test_a_word_that_no_input_has_is_named():
    done = run("--only", "nothing of the kind")
    assert done.returncode == 2
    assert "no input has 'nothing of the kind'" in done.stderr
