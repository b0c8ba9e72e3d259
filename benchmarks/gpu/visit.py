"""One visit to a GPU that is lent for minutes: checks, kernels, steps, memory, the benchmark.

At most MINUTES of it, in an order in which whatever ends it leaves the most important results: the
checks side by side, everything that is timed alone on the card. Every result goes to a file of its
phase when it is known; the files are few, because a lent machine gives few back.
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
CHECKS_SHARE = 0.4  # of the minutes, at most, for the checks where other phases follow
CHECKS_LIMIT = 240.0  # seconds for a group of them
ALONE_LIMIT = 60.0  # seconds for a process that measures
CONTENDER_LIMIT = 120.0
END = 5.0  # seconds kept for the table
TABLE = "table.txt"


class Plan(NamedTuple):
    """The groups of each phase but the benchmark."""

    checks: tuple[Group, ...]
    profile: tuple[Group, ...]
    steps: tuple[Group, ...]
    memory: tuple[Group, ...]


def standard_plan(quick: bool) -> Plan:
    checks = (*groups.SIDE_BY_SIDE, *groups.parity_groups(quick))
    steps = (*groups.without_groups(), *groups.STEPS)
    return Plan(checks, groups.PROFILE, steps, groups.MEMORY)


class Options(NamedTuple):
    """What a visit is asked for."""

    out: Path
    device: Device
    minutes: float
    jobs: int
    phases: Sequence[str] = PHASES
    command: str = ""


class Visit:
    """A visit under way: its results, by phase, and the time that is left."""

    def __init__(self, options: Options, show: Callable[[str], object]) -> None:
        self.options, self.show = options, show
        self.started = time.monotonic()
        self.deadline = self.started + 60 * options.minutes - END
        self.files: dict[str, ResultFile] = {}

    def begin(self) -> None:
        """Ask what the machine is; RuntimeError where no GPU can be used."""
        about = machine.examine(self.options.device.device)
        device = self.options.device._replace(device=about["device"])
        self.options = self.options._replace(device=device)
        content = machine.header(device, about, self.options.command)
        content |= {"doctor": about["doctor"], "minutes": self.options.minutes}
        content |= {"phases": {}, "left_out": [], "seconds": 0.0, "complete": False}
        self.files["visit"] = self.file("visit", content)

    def file(self, name: str, content: dict[str, Any]) -> ResultFile:
        return ResultFile(self.options.out / f"{name}.json", content)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return {name: file.content for name, file in self.files.items()}

    def run(self, plan: Plan) -> int:
        """Every phase that is asked for and has time; 1 where there is a fault, else 0."""
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
        items = ranking.ranked(self.results)
        return int(any(item.severity != "goal" for item in items))

    def groups(self, name: str, chosen: Sequence[Group]) -> None:
        """A phase of groups: the checks side by side, all others alone on the card."""
        side_by_side = name == "checks"
        share = CHECKS_SHARE if len(self.options.phases) > 1 else 1.0
        checks_end = self.started + share * (self.deadline - self.started)
        self.files[name] = result = self.file(name, {"groups": {}})
        self.show(groups.HEAD)

        def show(group: Group, row: dict[str, Any]) -> None:
            self.show(groups.shown(row, self.label(group, row)))
            self.write_table()  # a visit may be ended at any moment

        groups.run_groups(
            chosen,
            self.options.device,
            result,
            show,
            limit=CHECKS_LIMIT if side_by_side else ALONE_LIMIT,
            deadline=min(self.deadline, checks_end) if side_by_side else self.deadline,
            jobs=self.options.jobs if side_by_side else 1,
        )

    @staticmethod
    def label(group: Group, row: dict[str, Any]) -> str:
        """A check's name; its group's where several groups have the same check."""
        name: str = row["name"]
        return group.name if group.name.startswith(f"{name} ") else name

    def benchmark(self) -> None:
        """The contenders for which time is left, those that the goals need first."""
        device = self.options.device
        content = {key: self.files["visit"].content[key] for key in machine.HEADER}
        content["beneath"] = {
            row["name"]: row
            for _, row in ranking.rows(self.results)
            if row["name"] in groups.BENEATH
        }
        self.files["benchmark"] = result = self.file("benchmark", content)
        every = contenders.pairs(WORKS, contenders.CONTENDERS)
        chosen = contenders.by_worth(every)
        if device.quick:
            chosen = chosen[: len(contenders.FIRST)]
        with tempfile.TemporaryDirectory() as folder:
            contest = Contest(
                result, device, Path(folder),
                limit=CONTENDER_LIMIT, deadline=self.deadline, show=self.show,
            )  # fmt: skip
            contest.measure(chosen)

    def write_table(self) -> str:
        """The table of what is known by now, kept beside the results."""
        with self.files["visit"].change() as content:
            content["seconds"] = time.monotonic() - self.started
        text = ranking.table(self.results)
        write_atomic(self.options.out / TABLE, text.encode())
        return text


def run(options: Options, show: Callable[[str], object], plan: Plan | None = None) -> int:
    """A whole visit; its exit status: 0 all well, 1 a fault. RuntimeError without a usable GPU."""
    visit = Visit(options, show)
    visit.begin()
    return visit.run(plan or standard_plan(options.device.quick))
