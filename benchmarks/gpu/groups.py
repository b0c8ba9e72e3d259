"""Groups of checks, each a process with a limit; side by side where nothing is timed."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from benchmarks.gpu import kernel_profile, processes
from benchmarks.gpu.checklist import parity
from benchmarks.gpu.checklist.check import FAULT
from benchmarks.gpu.checks import NOT_RUN, REGISTRY
from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.step_graph import PARTS, WITHOUT

PARITY = "benchmarks.gpu.checklist.parity"
QUICK_CASES = 5  # a quick visit takes every fifth training


class Group(NamedTuple):
    """Checks that run in one process."""

    name: str
    checks: tuple[str, ...]
    registry: str = REGISTRY  # a module with CHECKS
    environment: tuple[tuple[str, str], ...] = ()

    def named(self, names: Iterable[str]) -> "Group":
        """The group with those of its checks that are in `names`."""
        wanted = set(names)
        return self._replace(checks=tuple(name for name in self.checks if name in wanted))


class Device(NamedTuple):
    """What every check is told."""

    device: str  # "gpu:0"
    seed: int
    quick: bool


# Only numbers and messages are checked here: as many processes as there are processors.
SIDE_BY_SIDE = (
    Group("products", (
        "gemm-float64", "gemm-float32", "gemm-float16", "gemm-tf32", "gemm-out", "gemm-captured",
        "epilogues",
    )),
    Group("machine", ("versions", "tripwire", "error-paths")),
    Group("replays", ("replays",)),
    Group("capture", ("synchronized", "moving-rate", "padded-tail", "dropout-masks")),
    Group("resume", ("resumed", "own-arrays", "crowded")),
    Group("kernels-1", ("fused-rules", "fused-outcomes")),
    Group("kernels-2", ("fused-activations", "fused-penalties", "fused-layers")),
)  # fmt: skip
NUMPY = (Group("numpy", ("numpy-float64", "numpy-float32")),)  # as `parity`, a row per float
# Times and memory of the card: one process after the other.
PROFILE = tuple(
    Group(check.name, (check.name,), environment=kernel_profile.ENVIRONMENT)
    for check in kernel_profile.CHECKS
)
CAPTURED = Group("captured-step", ("captured-step",))
STEPS = (
    Group("large-step", ("large-step",)),
    Group("population-step", ("population-step",)),
    Group("small-step", ("small-step",)),
    Group("times", ("kernels", "host-times", "node-cost", "row-sums")),
)
MEMORY = (Group("memory", ("dropped", "flat-memory")),)
BENEATH = ("host-times", "node-cost", "row-sums", "flat-memory")  # the benchmark's small figures
ALONE = (*PROFILE, CAPTURED, *STEPS, *MEMORY)


def parity_groups(quick: bool) -> tuple[Group, ...]:
    """Every training of `benchmarks.parity`, one process per float."""
    step = QUICK_CASES if quick else 1
    return tuple(
        Group(f"parity-{dtype}", tuple(c.name for c in parity.checks(dtype)[::step]), PARITY)
        for dtype in parity.DTYPES
    )


def without_groups() -> tuple[Group, ...]:
    """The small captured step with everything, and without each of the optional parts."""
    return tuple(
        CAPTURED._replace(
            name=f"captured-step without {part}" if part else CAPTURED.name,
            environment=((WITHOUT, part),),
        )
        for part in ("", *PARTS)
    )


def row_of(name: str, verdict: str, detail: str) -> dict[str, Any]:
    """A row for a check that has none of its own."""
    return {
        "number": 0, "name": name, "figure": "", "allowed": "", "verdict": verdict,
        "detail": detail, "seconds": 0.0, "figures": {},
    }  # fmt: skip


def run_group(
    group: Group, device: Device, limit: float, keep: Callable[[dict[str, Any]], object]
) -> str | None:
    """Run a group in its process and pass a row for each of its checks to `keep`.

    Where the process ends early, the check that it was in is a fault and the others were not run.
    Returns why it ended badly, None where it did not.
    """
    waiting = list(group.checks)

    def forward(row: dict[str, Any]) -> None:
        waiting.remove(row["name"])
        keep(row)

    request = {"registry": group.registry, "names": group.checks, **device._asdict()}
    problem = processes.run(
        "checks", request, forward, limit=limit, environment=dict(group.environment)
    )
    for index, name in enumerate(list(waiting)):
        verdict, detail = (NOT_RUN, "its group ended") if index else (FAULT, problem)
        keep(row_of(name, verdict, detail or "its process wrote no row"))
    return problem


Rows = Callable[[Group, dict[str, Any]], object]


def run_groups(
    groups: Sequence[Group],
    device: Device,
    result: ResultFile,
    show: Rows,
    *,
    limit: float,
    deadline: float,
    jobs: int = 1,
) -> None:
    """Run groups, `jobs` of them at a time, each row written and shown the moment it is known.

    limit: seconds for one group. deadline: of time.monotonic(), for them all.
    """
    entries = result.content.setdefault("groups", {})
    showing = threading.Lock()

    def one(group: Group) -> None:
        started = time.monotonic()
        entry: dict[str, Any] = {"problem": None, "seconds": None, "rows": []}
        with result.change():
            entries[group.name] = entry

        def keep(row: dict[str, Any]) -> None:
            with result.change():
                entry["rows"].append(row)
            with showing:
                show(group, row)

        left = min(limit, deadline - started)
        if left < 1:
            for name in group.checks:
                keep(row_of(name, NOT_RUN, "no time was left"))
            problem: str | None = "no time was left"
        else:
            problem = run_group(group, device, left, keep)
        with result.change():
            entry |= {"problem": problem, "seconds": time.monotonic() - started}

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for done in [pool.submit(one, group) for group in groups]:
            done.result()


def shown(row: dict[str, Any], name: str | None = None) -> str:
    """A row of the table, what is to be said of it beneath.

    name: in place of the check's own.
    """
    columns = f"{name or row['name']:<32} {row['figure']:<58} {row['allowed']:<9}"
    line = f"{columns} {row['verdict']:<7} {row['seconds']:>6.1f}"
    return f"{line}\n    {row['verdict']}: {row['detail']}" if row["detail"] else line


HEAD = f"{'check':<32} {'figure':<58} {'allowed':<9} {'verdict':<7} {'sec':>6}"
