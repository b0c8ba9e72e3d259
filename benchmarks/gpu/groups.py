"""Groups of checks, each a process with a time limit; in parallel if nothing is timed."""

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

    def restricted_to(self, names: Iterable[str]) -> "Group":
        """The group with only those of its checks that are in `names`."""
        allowed = set(names)
        return self._replace(checks=tuple(name for name in self.checks if name in allowed))


class Device(NamedTuple):
    """The device and the options of every check."""

    device: str  # "gpu:0"
    seed: int
    quick: bool


# Only numbers and messages are checked here: these may run in parallel.
PARALLEL = (
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
NUMPY = (Group("numpy", ("numpy-float64", "numpy-float32")),)  # parity_groups in two rows
# Times and memory of the card: one process after another.
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
LOW_LEVEL = ("host-times", "node-cost", "row-sums", "flat-memory")  # part of the benchmark
SEQUENTIAL = (*PROFILE, CAPTURED, *STEPS, *MEMORY)


def parity_groups(quick: bool) -> tuple[Group, ...]:
    """Every training of `benchmarks.parity`, one process per dtype."""
    step = QUICK_CASES if quick else 1
    return tuple(
        Group(f"parity-{dtype}", tuple(c.name for c in parity.checks(dtype)[::step]), PARITY)
        for dtype in parity.DTYPES
    )


def ablation_groups() -> tuple[Group, ...]:
    """The small captured step with all features, and without each of them."""
    return tuple(
        CAPTURED._replace(
            name=f"captured-step without {part}" if part else CAPTURED.name,
            environment=((WITHOUT, part),),
        )
        for part in ("", *PARTS)
    )


def empty_row(name: str, verdict: str, detail: str) -> dict[str, Any]:
    """A row for a check that wrote none."""
    return {
        "number": 0, "name": name, "figure": "", "allowed": "", "verdict": verdict,
        "detail": detail, "seconds": 0.0, "figures": {},
    }  # fmt: skip


def run_group(
    group: Group, device: Device, limit: float, on_row: Callable[[dict[str, Any]], object]
) -> str | None:
    """Run a group in its process and pass a row for each of its checks to `on_row`.

    If the process ends early, its current check is a fault and the remaining ones were not run.
    Returns why the process failed, None if it did not.
    """
    pending = list(group.checks)

    def forward(row: dict[str, Any]) -> None:
        pending.remove(row["name"])
        on_row(row)

    request = {"registry": group.registry, "names": group.checks, **device._asdict()}
    problem = processes.run(
        "checks", request, forward, limit=limit, environment=dict(group.environment)
    )
    for index, name in enumerate(list(pending)):
        verdict, detail = (NOT_RUN, "its group ended") if index else (FAULT, problem)
        on_row(empty_row(name, verdict, detail or "its process wrote no row"))
    return problem


RowHandler = Callable[[Group, dict[str, Any]], object]


def run_groups(
    groups: Sequence[Group],
    device: Device,
    result: ResultFile,
    show: RowHandler,
    *,
    limit: float,
    deadline: float,
    jobs: int = 1,
) -> None:
    """Run groups, `jobs` of them in parallel, and write and show each row at once.

    limit: seconds per group. deadline: of all groups, in time.monotonic().
    """
    entries = result.content.setdefault("groups", {})
    show_lock = threading.Lock()

    def run_one(group: Group) -> None:
        started = time.monotonic()
        entry: dict[str, Any] = {"problem": None, "seconds": None, "rows": []}
        with result.change():
            entries[group.name] = entry

        def store(row: dict[str, Any]) -> None:
            with result.change():
                entry["rows"].append(row)
            with show_lock:
                show(group, row)

        remaining = min(limit, deadline - started)
        if remaining < 1:
            for name in group.checks:
                store(empty_row(name, NOT_RUN, "no time was left"))
            problem: str | None = "no time was left"
        else:
            problem = run_group(group, device, remaining, store)
        with result.change():
            entry |= {"problem": problem, "seconds": time.monotonic() - started}

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for future in [pool.submit(run_one, group) for group in groups]:
            future.result()


def format_row(row: dict[str, Any], name: str | None = None) -> str:
    """A row of the table, its detail on a second line.

    name: replaces that of the check.
    """
    columns = f"{name or row['name']:<32} {row['figure']:<58} {row['allowed']:<9}"
    line = f"{columns} {row['verdict']:<7} {row['seconds']:>6.1f}"
    return f"{line}\n    {row['verdict']}: {row['detail']}" if row["detail"] else line


HEAD = f"{'check':<32} {'figure':<58} {'allowed':<9} {'verdict':<7} {'sec':>6}"
