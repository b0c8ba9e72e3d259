"""The GPU checklist, as far as it runs without a GPU: its rows, groups and arguments."""

import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu.checklist.check import (
    FAULT,
    FIGURE,
    NOTE,
    OK,
    Check,
    Result,
    Setting,
    check_bound,
    perform,
)  # fmt: skip
from xpmlp.recording.captured import CaptureWarning

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"
SETTING = Setting(SimpleNamespace(device=None, name="nowhere"), 0, True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # makes the folder benchmarks importable
    return module


@pytest.fixture
def checks(script):
    return import_module("benchmarks.gpu.checks")


def raising(on):
    raise RuntimeError("the card\nfell out")


REGISTRY = (
    Check(1, "passing", lambda on: check_bound(1e-9, 1e-6)),
    Check(2, "failing", lambda on: check_bound(1e-3, 1e-6, "too far")),
    Check(2, "raising", raising),
    Check(3, "noting", lambda on: Result("3 of 4", "4", NOTE, "one is missing")),
    Check(4, "timing", lambda on: Result("7 us", verdict=FIGURE, figures={"us": np.float64(7)})),
)


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_one_line_names_the_stage_and_the_fix():
    result = command()
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("gpu_check.py: no usable GPU: stage ")
    assert "To mend it: " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "gem-out"), "did you mean 'gemm-out'"),
        (("--only", ","), "names no check"),
        (("--device", "cpu"), "--device must be gpu"),
        (("--seed", "-1"), "--seed must be"),
    ],
)
def test_a_wrong_argument_is_a_one_line_error(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_checks_are_chosen_by_name_and_by_number(checks):
    def names(selection):
        return [check.name for check in checks.select(REGISTRY, selection)]

    assert names(None) == [check.name for check in REGISTRY]
    assert names("timing, 2") == ["failing", "raising", "timing"]
    with pytest.raises(ValueError, match="'passin' is unknown; did you mean 'passing'"):
        names("passin")


def test_a_fault_is_a_row_and_the_other_checks_run():
    rows = list(perform(REGISTRY, SETTING))
    assert [row.verdict for row in rows] == [OK, FAULT, FAULT, NOTE, FIGURE]
    assert rows[1].detail == "too far"
    assert rows[2].detail == "RuntimeError: the card"
    assert all(row.seconds >= 0 for row in rows)


def test_a_fault_of_the_device_ends_the_remaining_checks(checks):
    """A kernel is run after every check: only if that fails, too, is the device broken."""
    problems = iter([None, None, "CUDARuntimeError: cudaErrorIllegalAddress"])
    rows = list(checks.until_device_fault(REGISTRY, SETTING, lambda place: next(problems)))
    assert [row.verdict for row in rows] == [OK, FAULT, FAULT, "not run", "not run"]
    assert rows[2].detail == "device fault: RuntimeError: the card"
    assert {row.detail for row in rows[3:]} == {"device fault"}


def test_a_device_that_breaks_after_a_passed_check_is_a_fault_of_that_check(checks):
    (row, *_) = checks.until_device_fault(REGISTRY, SETTING, lambda place: "no kernel runs")
    assert (row.verdict, row.detail) == (FAULT, "device fault: no kernel runs")


def test_steps_that_are_not_recorded_are_a_fault():
    def run(on):
        warnings.warn("one by one", CaptureWarning, stacklevel=2)

    (row,) = perform([Check(4, "quiet", run)], SETTING)
    assert row.verdict == FAULT
    assert row.detail == "CaptureWarning: one by one"


def test_nan_never_passes():
    assert check_bound(float("nan"), 1.0).verdict == FAULT
    assert check_bound(1.0, 1.0).verdict == OK


@pytest.fixture
def without_processes(script, monkeypatch):
    """The script with REGISTRY as its checklist and every child process run in this process."""
    groups, processes = (import_module(f"benchmarks.gpu.{n}") for n in ("groups", "processes"))

    def run(module, request, keep, *, limit, environment=None):
        if module == "machine":
            keep({"device": "gpu:0", "machine": {"name": "a card"}})
            return
        selected = [check for check in REGISTRY if check.name in request["names"]]
        for row in perform(selected, SETTING):
            keep(json.loads(json.dumps(row._asdict() | {"figures": dict(row.figures)})))
        return

    monkeypatch.setattr(processes, "run", run)
    parallel = groups.Group("parallel", ("passing", "failing", "raising"))
    monkeypatch.setattr(script, "PARALLEL", (parallel,))
    monkeypatch.setattr(groups, "SEQUENTIAL", (groups.Group("sequential", ("noting", "timing")),))
    monkeypatch.setattr(script, "CHECKS", REGISTRY)
    return script


def main(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
    return script.main()


def test_table_and_result_have_every_row(without_processes, monkeypatch, tmp_path):
    out, table = tmp_path / "result.json", io.StringIO()
    monkeypatch.setattr(sys, "stdout", table)
    assert main(without_processes, monkeypatch, "--out", str(out)) == 1
    lines = table.getvalue().splitlines()
    assert lines[0].split() == ["check", "figure", "allowed", "verdict", "sec"]
    assert "    fault: RuntimeError: the card" in lines
    assert "    note: one is missing" in lines
    assert lines[-2] == "2 faults in 5 checks"
    content = json.loads(out.read_text())
    assert content["device"] == "gpu:0"
    assert (content["faults"], content["not_run"]) == (2, 0)
    rows = [row for group in content["groups"].values() for row in group["rows"]]
    assert [row["name"] for row in rows] == [check.name for check in REGISTRY]
    keys = {"number", "name", "figure", "allowed", "verdict", "detail", "seconds", "figures"}
    assert all(set(row) == keys for row in rows)
    assert rows[4]["figures"] == {"us": 7}


@pytest.mark.parametrize(("only", "status"), [("passing,noting", 0), ("1,2", 1)])
def test_json_goes_to_standard_output_and_the_table_to_standard_error(
    without_processes, monkeypatch, capsys, only, status
):
    assert main(without_processes, monkeypatch, "--json", "--quick", "--only", only) == status
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["machine"] == {"name": "a card"}
    assert {"xpmlp", "commit", "date", "device", "seed", "quick", "groups"} <= set(result)
    assert "passing" in captured.err


def test_the_checklist_is_complete_and_its_names_are_unique(checks):
    assert {check.number for check in checks.CHECKS} == set(range(1, 12))
    names = [check.name for check in checks.CHECKS]
    assert len(set(names)) == len(names)
    assert not any(name.isdecimal() or "," in name for name in names)
    for check in checks.CHECKS:
        inspect.signature(check.run).bind(SETTING)


def test_every_check_is_in_one_group(script, checks):
    groups = [*script.PARALLEL, *import_module("benchmarks.gpu.groups").SEQUENTIAL]
    names = [name for group in groups for name in group.checks]
    assert sorted(names) == sorted(check.name for check in checks.CHECKS)
