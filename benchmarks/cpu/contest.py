"""Contenders against each other: first that they compute the same, then interleaved rounds.

Every contender is a process of its own and only one of them works at a time.
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
ALLOWED = 1e-8  # of the largest weight: float64, 20 steps
THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # XLA's
)
REST = 0.05  # seconds between two turns: threads that wait for work spin a while
PATIENCE = 10  # seconds that a worker may take to end, with processes of its own


class Contender(NamedTuple):
    """An entry of the table. The first of a task is ours, which the others are held against."""

    name: str
    address: str  # "module:name" of what makes it of a Problem
    rule: str | None = "adam"  # the Adam of its library; None for the floor, which has no result


FLOOR = Contender("products alone (NumPy)", "benchmarks.cpu.floor:Products", None)
OWN: Mapping[str, Sequence[Contender]] = {
    "train": (
        Contender("xpmlp", "benchmarks.cpu.ours:Training"),
        Contender("xpmlp, estimator", "benchmarks.cpu.fits:ours", "adam_sklearn"),
        FLOOR,
        Contender("scikit-learn", "benchmarks.cpu.fits:theirs", "adam_sklearn"),
    ),
    "population": (
        Contender("xpmlp, at once", "benchmarks.cpu.ours:Population"),
        Contender("scikit-learn, one by one", "benchmarks.cpu.fits:theirs", "adam_sklearn"),
    ),
    "predict": (
        Contender("xpmlp", "benchmarks.cpu.ours:Prediction"),
        Contender("xpmlp, estimator", "benchmarks.cpu.fits:our_predictions"),
        Contender("scikit-learn", "benchmarks.cpu.fits:their_predictions"),
    ),
}


class Plan(NamedTuple):
    """How cases are measured."""

    contenders: Mapping[str, Sequence[Contender]] = OWN  # by task
    rounds: int = 7
    seconds: float = 0.5  # of a round
    threads: int | None = None  # None leaves every library its own default
    device: str = "cpu"  # of ours
    folder: Path | None = None  # where contenders' modules lie that are not of the checkout


class WorkerError(RuntimeError):
    """What a contender's process failed at, in one line."""


def environment(plan: Plan) -> dict[str, str]:
    """A worker's variables: this process's xpmlp first, and the threads alike for all."""
    paths = [Path(xpmlp.__file__).parents[1], ROOT, plan.folder, os.environ.get("PYTHONPATH")]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}
    if plan.threads is not None:
        found |= dict.fromkeys(THREADS, str(plan.threads))
    return found


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, plan: Plan) -> None:
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.cpu.worker", contender.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=environment(plan),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.process.communicate(timeout=PATIENCE)  # ends its input, and so the process
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.said.close()

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        """The answer to a request; WorkerError where there is a problem, or none comes."""
        with suppress(BrokenPipeError):  # it has ended: what it said last tells why
            print(json.dumps({"do": what, **request}), file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            last = self.said.read().strip().rpartition("\n")[2]
            raise WorkerError(f"the process ended with {self.process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise WorkerError(answer["problem"])
        return answer

    def result(self, case: Case, device: str, rule: str) -> np.ndarray:
        """What it computes, in float64 and in order."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "result.npy")
            self.ask("check", case=case, device=device, rule=rule, out=out)
            found: np.ndarray = np.load(out)
            return found


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    if found.shape != expected.shape:
        return math.inf
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Contest:
    """The workers of a case. Who has a problem leaves with it noted; ours raises it."""

    def __init__(self, case: Case, plan: Plan, workers: dict[str, Worker]) -> None:
        self.case, self.plan, self.workers = case, plan, workers
        self.ours, *self.others = plan.contenders[case.task]
        self.problems: dict[str, str] = {}

    def attempt(self, name: str, call: Callable[[Worker], float]) -> float | None:
        """What `call` makes of a worker that is still there."""
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
        """By contender how far it is from ours with its own Adam."""
        case, device, ours = self.case, self.plan.device, self.workers[self.ours.name]
        checked = [(other.name, other.rule) for other in self.others if other.rule]
        rules = {rule for _, rule in checked}
        expected = {rule: ours.result(case, device, rule) for rule in rules}

        def compare(worker: Worker, rule: str) -> float:
            found = distance(worker.result(case, device, rule), expected[rule])
            if not found <= ALLOWED:  # NaN never is
                raise WorkerError(f"computes something else: {found:.1e} from ours")
            return found

        return {name: self.attempt(name, partial(compare, rule=rule)) for name, rule in checked}

    def times(self) -> dict[str, list[float]]:
        """By contender the seconds of each of its rounds, for those without a problem."""
        for name in list(self.workers):
            self.attempt(name, self.begin)
        found: dict[str, list[float]] = {name: [] for name in self.workers}
        for name in turns(list(self.workers), self.plan.rounds):
            seconds = self.attempt(name, one_round)
            if seconds is not None:
                found[name].append(seconds)
        return {name: found[name] for name in self.workers}

    def begin(self, worker: Worker) -> float:
        asked = {"case": self.case, "device": self.plan.device, "seconds": self.plan.seconds}
        return float(worker.ask("begin", **asked)["count"])


def one_round(worker: Worker) -> float:
    """Seconds of a unit."""
    return float(worker.ask("round")["seconds"])


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Whose turn it is: everyone once a round, each round beginning with another."""
    for k in range(rounds):
        first = k % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(REST)
            yield name


def measure(case: Case, plan: Plan) -> dict[str, Any]:
    """A case's table as plain data. Raises WorkerError where ours has a problem."""
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
    """A contender's entry: seconds of every round, minimum, median, and what they come to.

    ratio: its minimum over ours, so above 1 where ours is faster. share: the floor's over its.
    """
    found: dict[str, Any] = {"contender": name}
    if name not in times:
        return found
    seconds, floor = times[name], times.get(FLOOR.name)
    return found | {
        "seconds": seconds,
        "min": min(seconds),
        "median": median(seconds),
        "ratio": min(seconds) / min(times[ours]),
        "share": None if floor is None else min(floor) / min(seconds),
    }
