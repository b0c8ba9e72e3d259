"""The GPU's checklist, as far as it goes without one: the table, the result, the names it uses."""

import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.backends.gpu_bench import (
    FAULT,
    FIGURE,
    NOTE,
    OK,
    Check,
    Result,
    Setting,
    held_to,
    perform,
)  # fmt: skip
from xpmlp.backends.graphs import CaptureWarning

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"
SETTING = Setting(SimpleNamespace(device=None, name="nowhere"), 0, True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raising(on):
    raise RuntimeError("the card\nfell out")


REGISTRY = (
    Check(1, "passing", lambda on: held_to(1e-9, 1e-6)),
    Check(2, "failing", lambda on: held_to(1e-3, 1e-6, "too far")),
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


def test_without_a_gpu_one_line_names_the_stage_and_the_mend():
    done = command()
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu_check.py: no usable GPU: stage ")
    assert "To mend it: " in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "gem-out"), "did you mean 'gemm-out'"),
        (("--only", ","), "names no check"),
        (("--device", "cpu"), "--device must be gpu"),
        (("--seed", "-1"), "--seed must be"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(arguments, words):
    done = command(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_checks_are_chosen_by_name_and_by_number(script):
    def names(asked):
        return [check.name for check in script.select(REGISTRY, asked)]

    assert names(None) == [check.name for check in REGISTRY]
    assert names("timing, 2") == ["failing", "raising", "timing"]
    with pytest.raises(ValueError, match="'passin' is unknown; did you mean 'passing'"):
        names("passin")


def test_a_fault_is_a_row_and_the_rest_go_on():
    rows = list(perform(REGISTRY, SETTING))
    assert [row.verdict for row in rows] == [OK, FAULT, FAULT, NOTE, FIGURE]
    assert rows[1].detail == "too far"
    assert rows[2].detail == "RuntimeError: the card"
    assert all(row.seconds >= 0 for row in rows)


def test_steps_that_are_not_recorded_are_a_fault():
    def run(on):
        warnings.warn("one by one", CaptureWarning, stacklevel=2)

    (row,) = perform([Check(4, "quiet", run)], SETTING)
    assert row.verdict == FAULT
    assert row.detail == "CaptureWarning: one by one"


def test_nan_never_passes():
    assert held_to(float("nan"), 1.0).verdict == FAULT
    assert held_to(1.0, 1.0).verdict == OK


def test_table_and_result_hold_every_row(script, tmp_path):
    table, out = io.StringIO(), tmp_path / "result.json"
    result = script.run(REGISTRY, SETTING, {"device": "gpu:0"}, table, str(out))
    lines = table.getvalue().splitlines()
    assert lines[0].split() == ["no", "check", "figure", "allowed", "verdict", "sec"]
    assert "    fault: RuntimeError: the card" in lines
    assert "    note: one is missing" in lines
    assert lines[-1].startswith("2 faults in 5 checks")
    written = json.loads(out.read_text())
    assert written["device"] == "gpu:0"
    assert written["faults"] == result["faults"] == 2
    assert [row["name"] for row in written["checks"]] == [check.name for check in REGISTRY]
    keys = {"number", "name", "figure", "allowed", "verdict", "detail", "seconds", "figures"}
    assert all(set(row) == keys for row in written["checks"])
    assert written["checks"][4]["figures"] == {"us": 7}


@pytest.mark.parametrize(("count", "status"), [(1, 0), (3, 1)])
def test_json_goes_to_standard_output_and_the_table_aside(
    script, monkeypatch, capsys, count, status
):
    monkeypatch.setattr(script, "place_for", lambda word: SETTING.place)
    monkeypatch.setattr(script.gpu_machine, "identity", lambda place: {"name": "a card"})
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--json", "--quick"])
    assert script.main(REGISTRY[:count]) == status
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["machine"] == {"name": "a card"}
    assert {"xpmlp", "commit", "date", "device", "seed", "quick", "checks"} <= set(result)
    assert "passing" in said.err


def test_the_checklist_is_whole_and_its_names_differ(script):
    assert {check.number for check in script.CHECKS} == set(range(1, 12))
    names = [check.name for check in script.CHECKS]
    assert len(set(names)) == len(names)
    assert not any(name.isdecimal() or "," in name for name in names)
    for check in script.CHECKS:
        inspect.signature(check.run).bind(SETTING)
