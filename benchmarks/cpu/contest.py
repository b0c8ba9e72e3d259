"""Compare contenders: first their results, then their times in interleaved rounds.

Every contender runs in its own process, and only one of them works at a time.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

import numpy as np

import xpmlp
from benchmarks.cpu.problems import Case

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-8  # relative to the largest weight: float64, 20 steps
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # XLA's
)
PAUSE = 0.05  # seconds between two rounds: idle threads spin for a while
EXIT_TIMEOUT = 10  # seconds for a worker, and processes that it started, to end


class Contender(NamedTuple):
    """An entry of the table. The first of a task is ours, which the others are compared with."""

    name: str
    address: str  # "module:name" of a function or class that takes a Problem
    rule: str | None = "adam"  # its library's Adam; None for the floor, which has no result


FLOOR = Contender("products alone (NumPy)", "benchmarks.cpu.floor:Products", None)
OWN: Mapping[str, Sequence[Contender]] = {
    "train": (
        Contender("xpmlp", "benchmarks.cpu.ours:Training"),
        Contender("xpmlp, estimator", "benchmarks.cpu.fits:xpmlp_fit", "adam_sklearn"),
        FLOOR,
        Contender("scikit-learn", "benchmarks.cpu.fits:sklearn_fit", "adam_sklearn"),
    ),
    "population": (
        Contender("xpmlp, at once", "benchmarks.cpu.ours:Population"),
        Contender("scikit-learn, one by one", "benchmarks.cpu.fits:sklearn_fit", "adam_sklearn"),
    ),
    "predict": (
        Contender("xpmlp", "benchmarks.cpu.ours:Prediction"),
        Contender("xpmlp, estimator", "benchmarks.cpu.fits:xpmlp_predictions"),
        Contender("scikit-learn", "benchmarks.cpu.fits:sklearn_predictions"),
    ),
}


class Plan(NamedTuple):
    """How to measure cases."""

    contenders: Mapping[str, Sequence[Contender]] = OWN  # by task
    rounds: int = 7
    seconds: float = 0.5  # of a round
    threads: int | None = None  # None: each library's default
    device: str = "cpu"  # of ours
    folder: Path | None = None  # of contenders' modules outside the checkout


class WorkerError(RuntimeError):
    """A failure of a contender's process, in one line."""


def environment(plan: Plan) -> dict[str, str]:
    """A worker's environment: this process's xpmlp first, and the plan's number of threads."""
    paths = [Path(xpmlp.__file__).parents[1], ROOT, plan.folder, os.environ.get("PYTHONPATH")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}
    if plan.threads is not None:
        variables |= dict.fromkeys(THREAD_VARIABLES, str(plan.threads))
    return variables


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, plan: Plan) -> None:
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.cpu.worker", contender.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env=environment(plan),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.process.communicate(timeout=EXIT_TIMEOUT)  # the end of its input ends it
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.stderr.close()

    def request(self, action: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request; WorkerError if it is a problem, or if the process ended."""
        with suppress(BrokenPipeError):  # it has ended: its last line of stderr says why
            print(json.dumps({"do": action, **arguments}), file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.stderr.seek(0)
            last = self.stderr.read().strip().rpartition("\n")[2]
            raise WorkerError(f"the process ended with {self.process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise WorkerError(answer["problem"])
        return answer

    def result(self, case: Case, device: str, rule: str) -> np.ndarray:
        """Its weights or predictions for `compare`: float64, rows in order."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "result.npy")
            self.request("check", case=case, device=device, rule=rule, out=out)
            result: np.ndarray = np.load(out)
            return result


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected number."""
    if actual.shape != expected.shape:
        return math.inf
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


class Contest:
    """The workers of a case. One that fails is dropped and its problem noted; ours raises."""

    def __init__(self, case: Case, plan: Plan, workers: dict[str, Worker]) -> None:
        self.case, self.plan, self.workers = case, plan, workers
        self.ours, *self.others = plan.contenders[case.task]
        self.problems: dict[str, str] = {}

    def attempt(self, name: str, call: Callable[[Worker], float]) -> float | None:
        """`call` of the worker of that name; None if it failed, now or before."""
        if name not in self.workers:
            return None
        try:
            return call(self.workers[name])
        except WorkerError as error:
            if name == self.ours.name:
                raise
            self.problems[name] = str(error)
            del self.workers[name]
            return None

    def differences(self) -> dict[str, float | None]:
        """By contender, the distance of its result from ours with the same Adam."""
        case, device, ours = self.case, self.plan.device, self.workers[self.ours.name]
        compared = [(other.name, other.rule) for other in self.others if other.rule]
        rules = {rule for _, rule in compared}
        expected = {rule: ours.result(case, device, rule) for rule in rules}

        def compare(worker: Worker, rule: str) -> float:
            difference = distance(worker.result(case, device, rule), expected[rule])
            if not difference <= TOLERANCE:  # NaN fails too
                raise WorkerError(f"computes something else: {difference:.1e} from ours")
            return difference

        return {name: self.attempt(name, partial(compare, rule=rule)) for name, rule in compared}

    def times(self) -> dict[str, list[float]]:
        """By contender, the seconds of each of its rounds, without those that failed."""
        for name in list(self.workers):
            self.attempt(name, self.begin)
        times: dict[str, list[float]] = {name: [] for name in self.workers}
        for name in round_robin(list(self.workers), self.plan.rounds):
            seconds = self.attempt(name, time_round)
            if seconds is not None:
                times[name].append(seconds)
        return {name: times[name] for name in self.workers}

    def begin(self, worker: Worker) -> float:
        arguments = {"case": self.case, "device": self.plan.device, "seconds": self.plan.seconds}
        return float(worker.request("begin", **arguments)["count"])


def time_round(worker: Worker) -> float:
    """Seconds per unit: a step, or a row of a prediction."""
    return float(worker.request("round")["seconds"])


def round_robin(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Every name once a round, each round starting with the next one; pauses before each."""
    for k in range(rounds):
        first = k % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(PAUSE)
            yield name


def measure(case: Case, plan: Plan) -> dict[str, Any]:
    """A case's table as plain data. Raises WorkerError if ours fails."""
    contenders = plan.contenders[case.task]
    with ExitStack() as stack:
        workers = {c.name: stack.enter_context(Worker(c, plan)) for c in contenders}
        contest = Contest(case, plan, workers)
        differences, times = contest.differences(), contest.times()
    rows = [
        row(c.name, times, contest.ours.name)
        | {"difference": differences.get(c.name), "problem": contest.problems.get(c.name)}
        for c in contenders
    ]
    return {**case._asdict(), "rows": rows}


def row(name: str, times: Mapping[str, list[float]], ours: str) -> dict[str, Any]:
    """A contender's entry: seconds of every round, minimum, median, ratio and share.

    ratio: its minimum over ours, so above 1 if ours is faster. share: the floor's over its.
    """
    entry: dict[str, Any] = {"contender": name}
    if name not in times:
        return entry
    seconds, floor = times[name], times.get(FLOOR.name)
    return entry | {
        "seconds": seconds,
        "min": min(seconds),
        "median": median(seconds),
        "ratio": min(seconds) / min(times[ours]),
        "share": None if floor is None else min(floor) / min(seconds),
    }
