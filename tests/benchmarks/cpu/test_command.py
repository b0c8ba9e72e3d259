"""`scripts/benchmark.py`: its options, and short runs of xpmlp's contenders."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cpu import command
from benchmarks.cpu.contest import FLOOR, OWN
from benchmarks.cpu.peers import ALL
from benchmarks.cpu.problems import Case

SCRIPT = Path(__file__).parents[3] / "scripts" / "benchmark.py"


@pytest.fixture
def main():
    """The script's main, a function of its argv."""
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--shapes", "zz"), "shape 'zz' is unknown"),
        (("--shapes", ","), "--shapes names no shape"),
        (("--rounds", "0"), "--rounds must be"),
        (("--threads", "-1"), "--threads must be"),
        (("--own", "--device", "gqu"), "device 'gqu' is unknown"),
        (("--device", "cpu"), "--device goes with --own"),
        (("--loaded", "--device", "cpu"), "--device goes with --own"),
    ],
)
def test_an_invalid_argument_gives_a_one_line_error(argv, message, tmp_path):
    process = subprocess.run(
        [sys.executable, SCRIPT, *argv, "--out", tmp_path / "new" / "result.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"benchmark.py: {message}")
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_own_and_loaded_are_mutually_exclusive(main, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--own", "--loaded"])
    assert "not allowed with argument --own" in capsys.readouterr().err


@pytest.fixture
def calls(monkeypatch):
    """The cases and plans of a command line, recorded instead of measured."""
    calls = []
    monkeypatch.setattr(
        command, "measure", lambda case, plan: calls.append((case, plan)) or
        {**case._asdict(), "rows": []},
    )  # fmt: skip
    return calls


def test_the_plan_has_the_options(main, calls, capsys):
    argv = ["--shapes", "a32", "--rounds", "5", "--threads", "3", "--quick", "--device", "cpu"]
    assert main(["--own", *argv]) == 0
    assert [case for case, _ in calls] == [Case("train", "a32"), Case("population", "a32", 256)]
    plan = calls[0][1]
    assert (plan.rounds, plan.threads, plan.device) == (5, 3, "cpu")
    assert plan.seconds == command.QUICK["seconds"]
    assert plan.contenders == OWN
    assert "threads: 3, xpmlp on cpu" in capsys.readouterr().out


def test_all_contenders_run_on_the_cpu_by_default(main, calls, capsys):
    assert main(["--shapes", "a1"]) == 0
    ((_, plan),) = calls
    assert (plan.device, plan.contenders) == ("cpu", ALL)
    assert "xpmlp on cpu" in capsys.readouterr().out


def test_own_uses_the_device_of_the_environment(main, calls, monkeypatch, gpu):
    monkeypatch.setenv("XPMLP_DEVICE", "gpu")
    assert main(["--own", "--shapes", "a1"]) == 0
    ((_, plan),) = calls
    assert plan.device == gpu.name
    assert FLOOR not in plan.contenders["train"]


def test_json_goes_to_stdout_and_tables_to_stderr(main, calls, capsys):
    assert main(["--own", "--shapes", "e", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [case["task"] for case in result["cases"]] == ["train", "predict", "predict"]
    assert "e: 1024-2048-2048-10 relu" in err
    assert len(calls) == 3


def test_without_floor_removes_only_the_floor():
    contenders = command.without_floor(command.Plan()).contenders["train"]
    assert FLOOR not in contenders
    assert len(contenders) == len(OWN["train"]) - 1


@pytest.mark.slow
def test_a_quick_run_times_all_contenders(main, capsys):
    argv = ["--own", "--quick", "--shapes", "a32", "--rounds", "1", "--device", "cpu", "--json"]
    assert main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    for case in result["cases"]:
        assert [row["contender"] for row in case["rows"]] == [c.name for c in OWN[case["task"]]]
        for row in case["rows"]:
            assert row["problem"] is None
            assert row["min"] > 0
