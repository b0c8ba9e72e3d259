"""Contenders held against each other, with fakes whose results and times are known."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpmlp
from benchmarks.cpu import contest
from benchmarks.cpu.contest import (
    OWN,
    THREADS,
    Contender,
    Plan,
    Worker,
    WorkerError,
    distance,
    environment,
    measure,
    turns,
)  # fmt: skip
from benchmarks.cpu.problems import Case

CASE = Case("train", "a32")


def by_name(found):
    return {row["contender"]: row for row in found["rows"]}


def test_minimum_median_ratio_and_share(plan):
    found = measure(CASE, plan("Ours", "floor", "Theirs sklearn", rounds=3))
    assert found["task"] == "train"
    assert found["shape"] == "a32"
    rows = by_name(found)
    theirs = rows["Theirs sklearn"]
    assert theirs["seconds"] == pytest.approx([1.5e-3] * 3)  # 3 ms a pass of two units
    assert theirs["min"] == theirs["median"] == pytest.approx(1.5e-3)
    assert theirs["ratio"] == pytest.approx(1.5)
    assert theirs["share"] == pytest.approx(1 / 3)
    assert theirs["difference"] == 0.0
    assert rows["Ours"]["ratio"] == 1.0
    assert rows["Ours"]["share"] == pytest.approx(0.5)
    assert rows[contest.FLOOR.name]["difference"] is None
    assert not any(row["problem"] for row in found["rows"])


def test_a_faster_contender_stays_in(plan):
    rows = by_name(measure(CASE, plan("Ours", "Faster")))
    assert rows["Faster"]["ratio"] == pytest.approx(0.5)
    assert rows["Faster"]["share"] is None  # there is no floor


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Other", "computes something else: 2.0e-07"),
        ("Nothing", "computes something else: nan"),
        ("Longer", "computes something else: inf"),
        ("Raising", "ValueError: the first line"),
        ("Dying", "the process ended with 3: out of luck"),
        ("Tiring", "MemoryError: tired"),
        ("Missing", "AttributeError: "),
    ],
)
def test_who_has_a_problem_gets_no_times(plan, name, words):
    rows = by_name(measure(CASE, plan("Ours", name, "Theirs", rounds=4)))
    assert rows["Theirs"]["ratio"] == pytest.approx(1.5)
    assert rows[name]["problem"].startswith(words)
    assert "min" not in rows[name]


def test_close_is_close_enough(plan):
    rows = by_name(measure(CASE, plan("Ours", "Close")))
    assert rows["Close"]["difference"] == pytest.approx(9e-9, rel=1e-6)
    assert "min" in rows["Close"]


def test_each_is_compared_with_its_own_adam(plan):
    rows = by_name(measure(CASE, plan("Ours", "Scikit sklearn", "Scikit")))
    assert rows["Scikit sklearn"]["problem"] is None
    assert rows["Scikit"]["problem"].startswith("computes something else")


def test_a_library_that_is_missing_is_a_problem_that_says_so(plan):
    made = plan("Ours")
    absent = Contender("absent", "no_such_library:Training")
    rows = by_name(measure(CASE, made._replace(contenders={"train": [
        *made.contenders["train"], absent]})))  # fmt: skip
    assert rows["absent"]["problem"].startswith("ModuleNotFoundError: No module named")


@pytest.mark.parametrize("name", ["Raising", "Dying", "Tiring"])
def test_a_problem_of_ours_is_raised(plan, name):
    with pytest.raises(WorkerError):
        measure(CASE, plan(name, "Theirs", rounds=4))


def test_distance_is_relative_to_the_largest():
    assert distance(np.array([1.0, 100.0]), np.array([2.0, 100.0])) == pytest.approx(0.01)
    assert distance(np.zeros(2), np.zeros(3) + 1) == float("inf")


def test_everyone_has_a_turn_a_round_and_begins_one(monkeypatch):
    monkeypatch.setattr(contest, "REST", 0.0)
    order = list(turns(["a", "b", "c"], 3))
    assert order == list("abcbcacab")


def test_threads_are_alike_for_all_or_left_alone(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert not set(THREADS) & set(environment(Plan()))
    found = environment(Plan(threads=3))
    assert {found[name] for name in THREADS} == {"3"}


def test_a_workers_xpmlp_is_the_one_of_this_process(plan):
    made = plan("Ours")
    first, checkout, folder, *_ = environment(made)["PYTHONPATH"].split(os.pathsep)
    assert Path(first) / "xpmlp" == Path(xpmlp.__file__).parent
    assert (Path(checkout), Path(folder)) == (contest.ROOT, made.folder)
    assert (contest.ROOT / "benchmarks" / "cpu" / "worker.py").is_file()


def test_threads_reach_the_products(plan, optional):
    optional("threadpoolctl")
    ask = "import numpy, threadpoolctl as t; print({p['num_threads'] for p in t.threadpool_info()})"
    done = subprocess.run(
        [sys.executable, "-c", ask],
        env=environment(plan("Ours", threads=1)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "{1}"


def test_a_workers_process_is_gone_afterwards(plan):
    made = plan("Ours")
    with Worker(made.contenders["train"][0], made) as worker:
        assert worker.ask("begin", case=CASE, device="cpu", seconds=0.008) == {"count": 4}
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process.pid, 0)


def test_ours_is_the_first_of_every_task():
    for entries in OWN.values():
        assert entries[0].name.startswith("xpmlp")
        assert len({entry.name for entry in entries}) == len(entries)
