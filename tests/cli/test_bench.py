"""`xpmlp bench`: its options, and a short run."""

import json

import pytest

from xpmlp.bench.contest import FLOOR, OWN
from xpmlp.bench.problems import Case
from xpmlp.cli import bench
from xpmlp.cli.main import main


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--shapes", "zz"), "shape 'zz' is unknown"),
        (("--shapes", ","), "--shapes names no shape"),
        (("--rounds", "0"), "--rounds must be"),
        (("--threads", "-1"), "--threads must be"),
        (("--device", "gqu"), "device 'gqu' is unknown"),
    ],
)
def test_bad_input_is_one_line(words, named, capsys):
    assert main(["bench", "--device", "cpu", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"xpmlp bench: {named}")
    assert err.count("\n") == 1


@pytest.fixture
def asked(monkeypatch):
    """The cases and plans that a command line comes to, without measuring."""
    found = []
    monkeypatch.setattr(
        bench, "measure", lambda case, plan: found.append((case, plan)) or
        {**case._asdict(), "rows": []},
    )  # fmt: skip
    return found


def test_options_reach_the_plan(asked, capsys):
    words = ["--shapes", "a32", "--rounds", "5", "--threads", "3", "--quick", "--device", "cpu"]
    assert main(["bench", *words]) == 0
    assert [case for case, _ in asked] == [Case("train", "a32"), Case("population", "a32", 256)]
    plan = asked[0][1]
    assert (plan.rounds, plan.threads, plan.device) == (5, 3, "cpu")
    assert plan.seconds == bench.QUICK["seconds"]
    assert plan.contenders == OWN
    assert "threads: 3, xpmlp on cpu" in capsys.readouterr().out


def test_json_goes_to_standard_output_and_tables_aside(asked, capsys):
    assert main(["bench", "--shapes", "e", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [case["task"] for case in found["cases"]] == ["train", "predict", "predict"]
    assert "e: 1024-2048-2048-10 relu" in err
    assert len(asked) == 3


def test_the_floor_is_no_measure_of_a_gpu():
    kept = bench.without_floor(bench.Plan()).contenders["train"]
    assert FLOOR not in kept
    assert len(kept) == len(OWN["train"]) - 1


@pytest.mark.slow
def test_a_short_run_measures_everyone(capsys):
    words = ["bench", "--quick", "--shapes", "a32", "--rounds", "1", "--device", "cpu", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    for case in found["cases"]:
        assert [row["contender"] for row in case["rows"]] == [c.name for c in OWN[case["task"]]]
        for row in case["rows"]:
            assert row["problem"] is None
            assert row["min"] > 0
