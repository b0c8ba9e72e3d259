"""Comparing contenders, with fakes of known results and times."""

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
    THREAD_VARIABLES,
    Contender,
    Plan,
    Worker,
    WorkerError,
    distance,
    environment,
    measure,
    round_robin,
)  # fmt: skip
from benchmarks.cpu.problems import Case

CASE = Case("train", "a32")


def by_name(result):
    return {row["contender"]: row for row in result["rows"]}


def test_minimum_median_ratio_and_share(plan):
    result = measure(CASE, plan("Ours", "floor", "Slower sklearn", rounds=3))
    assert result["task"] == "train"
    assert result["shape"] == "a32"
    rows = by_name(result)
    slower = rows["Slower sklearn"]
    assert slower["seconds"] == pytest.approx([1.5e-3] * 3)  # 3 ms a pass of two units
    assert slower["min"] == slower["median"] == pytest.approx(1.5e-3)
    assert slower["ratio"] == pytest.approx(1.5)
    assert slower["share"] == pytest.approx(1 / 3)
    assert slower["difference"] == 0.0
    assert rows["Ours"]["ratio"] == 1.0
    assert rows["Ours"]["share"] == pytest.approx(0.5)
    assert rows[contest.FLOOR.name]["difference"] is None
    assert not any(row["problem"] for row in result["rows"])


def test_a_faster_contender_is_included(plan):
    rows = by_name(measure(CASE, plan("Ours", "Faster")))
    assert rows["Faster"]["ratio"] == pytest.approx(0.5)
    assert rows["Faster"]["share"] is None  # there is no floor


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Different", "computes something else: 2.0e-07"),
        ("NotANumber", "computes something else: nan"),
        ("WrongShape", "computes something else: inf"),
        ("Raising", "ValueError: the first line"),
        ("Exiting", "the process ended with 3: fatal error"),
        ("FailingLater", "MemoryError: too many passes"),
        ("Missing", "AttributeError: "),
    ],
)
def test_a_contender_that_fails_has_no_times(plan, name, message):
    rows = by_name(measure(CASE, plan("Ours", name, "Slower", rounds=4)))
    assert rows["Slower"]["ratio"] == pytest.approx(1.5)
    assert rows[name]["problem"].startswith(message)
    assert "min" not in rows[name]


def test_a_difference_within_the_tolerance_passes(plan):
    rows = by_name(measure(CASE, plan("Ours", "Close")))
    assert rows["Close"]["difference"] == pytest.approx(9e-9, rel=1e-6)
    assert "min" in rows["Close"]


def test_contenders_are_compared_with_the_same_variant_of_adam(plan):
    rows = by_name(measure(CASE, plan("Ours", "SklearnAdam sklearn", "SklearnAdam")))
    assert rows["SklearnAdam sklearn"]["problem"] is None
    assert rows["SklearnAdam"]["problem"].startswith("computes something else")


def test_a_missing_library_is_reported_as_a_problem(plan):
    base = plan("Ours")
    absent = Contender("absent", "no_such_library:Training")
    rows = by_name(measure(CASE, base._replace(contenders={"train": [
        *base.contenders["train"], absent]})))  # fmt: skip
    assert rows["absent"]["problem"].startswith("ModuleNotFoundError: No module named")


@pytest.mark.parametrize("name", ["Raising", "Exiting", "FailingLater"])
def test_a_failure_of_ours_raises(plan, name):
    with pytest.raises(WorkerError):
        measure(CASE, plan(name, "Slower", rounds=4))


def test_distance_is_relative_to_the_largest():
    assert distance(np.array([1.0, 100.0]), np.array([2.0, 100.0])) == pytest.approx(0.01)
    assert distance(np.zeros(2), np.zeros(3) + 1) == float("inf")


def test_every_round_has_all_names_and_starts_with_the_next(monkeypatch):
    monkeypatch.setattr(contest, "PAUSE", 0.0)
    order = list(round_robin(["a", "b", "c"], 3))
    assert order == list("abcbcacab")


def test_thread_variables_are_set_only_with_a_number_of_threads(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not set(THREAD_VARIABLES) & set(environment(Plan()))
    variables = environment(Plan(threads=3))
    assert {variables[name] for name in THREAD_VARIABLES} == {"3"}


def test_a_worker_imports_the_xpmlp_of_this_process(plan):
    base = plan("Ours")
    first, checkout, folder, *_ = environment(base)["PYTHONPATH"].split(os.pathsep)
    assert Path(first) / "xpmlp" == Path(xpmlp.__file__).parent
    assert (Path(checkout), Path(folder)) == (contest.ROOT, base.folder)
    assert (contest.ROOT / "benchmarks" / "cpu" / "worker.py").is_file()


def test_products_use_the_number_of_threads(plan, optional):
    optional("threadpoolctl")
    code = "import numpy, threadpoolctl as t;print({p['num_threads'] for p in t.threadpool_info()})"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(plan("Ours", threads=1)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == "{1}"


def test_a_workers_process_ends_with_its_context(plan):
    base = plan("Ours")
    with Worker(base.contenders["train"][0], base) as worker:
        assert worker.request("begin", case=CASE, device="cpu", seconds=0.008) == {"count": 4}
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process.pid, 0)


def test_ours_is_first_in_every_task_and_names_are_unique():
    for entries in OWN.values():
        assert entries[0].name.startswith("xpmlp")
        assert len({entry.name for entry in entries}) == len(entries)
