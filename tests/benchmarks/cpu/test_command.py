"""`scripts/benchmark.py`: its options, and short runs of our own contenders."""

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
    """The script's main, a function of its words."""
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(
    ("words", "named"),
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
def test_bad_input_is_one_line(words, named, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, *words, "--out", tmp_path / "new" / "found.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"benchmark.py: {named}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_own_and_loaded_exclude_each_other(main, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--own", "--loaded"])
    assert "not allowed with argument --own" in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch):
    """The cases and plans that a command line comes to, without measuring."""
    found = []
    monkeypatch.setattr(
        command, "measure", lambda case, plan: found.append((case, plan)) or
        {**case._asdict(), "rows": []},
    )  # fmt: skip
    return found


def test_options_reach_the_plan(main, asked, capsys):
    words = ["--shapes", "a32", "--rounds", "5", "--threads", "3", "--quick", "--device", "cpu"]
    assert main(["--own", *words]) == 0
    assert [case for case, _ in asked] == [Case("train", "a32"), Case("population", "a32", 256)]
    plan = asked[0][1]
    assert (plan.rounds, plan.threads, plan.device) == (5, 3, "cpu")
    assert plan.seconds == command.QUICK["seconds"]
    assert plan.contenders == OWN
    assert "threads: 3, xpmlp on cpu" in capsys.readouterr().out


def test_without_own_everyone_is_asked_on_the_cpu(main, asked, capsys):
    assert main(["--shapes", "a1"]) == 0
    ((_, plan),) = asked
    assert (plan.device, plan.contenders) == ("cpu", ALL)
    assert "xpmlp on cpu" in capsys.readouterr().out


def test_own_runs_on_the_device_of_the_environment(main, asked, monkeypatch, gpu):
    monkeypatch.setenv("XPMLP_DEVICE", "gpu")
    assert main(["--own", "--shapes", "a1"]) == 0
    ((_, plan),) = asked
    assert plan.device == gpu.name
    assert FLOOR not in plan.contenders["train"]


def test_json_goes_to_standard_output_and_tables_aside(main, asked, capsys):
    assert main(["--own", "--shapes", "e", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [case["task"] for case in found["cases"]] == ["train", "predict", "predict"]
    assert "e: 1024-2048-2048-10 relu" in err
    assert len(asked) == 3


def test_the_floor_is_no_measure_of_a_gpu():
    kept = command.without_floor(command.Plan()).contenders["train"]
    assert FLOOR not in kept
    assert len(kept) == len(OWN["train"]) - 1


@pytest.mark.slow
def test_a_short_run_measures_everyone(main, capsys):
    words = ["--own", "--quick", "--shapes", "a32", "--rounds", "1", "--device", "cpu", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    for case in found["cases"]:
        assert [row["contender"] for row in case["rows"]] == [c.name for c in OWN[case["task"]]]
        for row in case["rows"]:
            assert row["problem"] is None
            assert row["min"] > 0
