"""Use a GPU that is lent for minutes: checks, kernels, steps, memory, the benchmark.

The most important results come first, in case the visit is interrupted. Checks run in parallel,
all that is timed one after another. Every result is written at once to the file of its phase;
there are few files, because a lent machine returns only a few.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import contenders, groups, machine, ranking
from benchmarks.gpu.contest import Contest
from benchmarks.gpu.groups import Device, Group
from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.works import WORKS
from xpmlp.storage.atomic import write_atomic

PHASES = ("checks", "profile", "steps", "memory", "benchmark")
CHECKS_SHARE = 0.4  # of the minutes, at most, for the checks if other phases follow
CHECKS_LIMIT = 240.0  # seconds per group of checks
TIMING_LIMIT = 60.0  # seconds per process that measures
CONTENDER_LIMIT = 120.0
RESERVE = 5.0  # seconds for the table at the end
TABLE = "table.txt"


class Plan(NamedTuple):
    """The groups of each phase but the benchmark."""

    checks: tuple[Group, ...]
    profile: tuple[Group, ...]
    steps: tuple[Group, ...]
    memory: tuple[Group, ...]


def standard_plan(quick: bool) -> Plan:
    checks = (*groups.PARALLEL, *groups.parity_groups(quick))
    steps = (*groups.ablation_groups(), *groups.STEPS)
    return Plan(checks, groups.PROFILE, steps, groups.MEMORY)


class Options(NamedTuple):
    """The options of a visit."""

    out: Path
    device: Device
    minutes: float
    jobs: int
    phases: Sequence[str] = PHASES
    command: str = ""


class Visit:
    """A visit in progress: its results by phase, and its deadline."""

    def __init__(self, options: Options, show: Callable[[str], object]) -> None:
        self.options, self.show = options, show
        self.started = time.monotonic()
        self.deadline = self.started + 60 * options.minutes - RESERVE
        self.files: dict[str, ResultFile] = {}

    def begin(self) -> None:
        """Identify the machine; RuntimeError if no GPU can be used."""
        details = machine.examine(self.options.device.device)
        device = self.options.device._replace(device=details["device"])
        self.options = self.options._replace(device=device)
        content = machine.header(device, details, self.options.command)
        content |= {"doctor": details["doctor"], "minutes": self.options.minutes}
        content |= {"phases": {}, "left_out": [], "seconds": 0.0, "complete": False}
        self.files["visit"] = self.file("visit", content)

    def file(self, name: str, content: dict[str, Any]) -> ResultFile:
        return ResultFile(self.options.out / f"{name}.json", content)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return {name: file.content for name, file in self.files.items()}

    def run(self, plan: Plan) -> int:
        """Run every selected phase for which time is left; return 1 if there is a fault, else 0."""
        for name in (name for name in PHASES if name in self.options.phases):
            started = time.monotonic()
            if started >= self.deadline:
                with self.files["visit"].change() as content:
                    content["left_out"].append(f"phase {name}: no time was left")
                continue
            self.show(f"\n{name}, {self.deadline - started:.0f} s left")
            if name == "benchmark":
                self.benchmark()
            else:
                self.groups(name, getattr(plan, name))
            with self.files["visit"].change() as content:
                content["phases"][name] = time.monotonic() - started
            self.write_table()
        with self.files["visit"].change() as content:
            content["complete"] = True
        self.show(f"\n{self.write_table()}")
        items = ranking.rank_items(self.results)
        return int(any(item.severity != "goal" for item in items))

    def groups(self, name: str, plan: Sequence[Group]) -> None:
        """Run a phase of groups: the checks in parallel, all others one after another."""
        parallel = name == "checks"
        share = CHECKS_SHARE if len(self.options.phases) > 1 else 1.0
        checks_end = self.started + share * (self.deadline - self.started)
        self.files[name] = result = self.file(name, {"groups": {}})
        self.show(groups.HEAD)

        def show(group: Group, row: dict[str, Any]) -> None:
            self.show(groups.format_row(row, self.label(group, row)))
            self.write_table()  # a visit may be interrupted at any time

        groups.run_groups(
            plan,
            self.options.device,
            result,
            show,
            limit=CHECKS_LIMIT if parallel else TIMING_LIMIT,
            deadline=min(self.deadline, checks_end) if parallel else self.deadline,
            jobs=self.options.jobs if parallel else 1,
        )

    @staticmethod
    def label(group: Group, row: dict[str, Any]) -> str:
        """A check's name, or its group's if several groups have the same check."""
        name: str = row["name"]
        return group.name if group.name.startswith(f"{name} ") else name

    def benchmark(self) -> None:
        """Run the contenders for which time is left, by priority."""
        device = self.options.device
        content = {key: self.files["visit"].content[key] for key in machine.HEADER}
        content["beneath"] = {
            row["name"]: row
            for _, row in ranking.rows(self.results)
            if row["name"] in groups.LOW_LEVEL
        }
        self.files["benchmark"] = result = self.file("benchmark", content)
        pairs = contenders.pairs(WORKS, contenders.CONTENDERS)
        pairs = contenders.by_priority(pairs)
        if device.quick:
            pairs = pairs[: len(contenders.PRIORITY)]
        with tempfile.TemporaryDirectory() as folder:
            contest = Contest(
                result, device, Path(folder),
                limit=CONTENDER_LIMIT, deadline=self.deadline, show=self.show,
            )  # fmt: skip
            contest.measure(pairs)

    def write_table(self) -> str:
        """Write the table of the results so far; return it."""
        with self.files["visit"].change() as content:
            content["seconds"] = time.monotonic() - self.started
        text = ranking.table(self.results)
        write_atomic(self.options.out / TABLE, text.encode())
        return text


def run(options: Options, show: Callable[[str], object], plan: Plan | None = None) -> int:
    """Run a visit; the exit status is 1 for a fault, else 0. RuntimeError without a usable GPU."""
    visit = Visit(options, show)
    visit.begin()
    return visit.run(plan or standard_plan(options.device.quick))
