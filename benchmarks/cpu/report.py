"""The printed tables, and the description of the machine above them."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cpu.contest import FLOOR, Plan
from benchmarks.cpu.problems import SHAPES
from xpmlp import __version__
from xpmlp.devices.doctor import blas, installed

VERSIONS = ("numpy", "numba", "scikit-learn", "torch", "jax", "onnxruntime")


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def processor_count() -> int:
    """Number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def metadata(plan: Plan, command: str) -> dict[str, Any]:
    """Machine, versions and settings of a result."""
    return {
        "xpmlp": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "processor": processor(),
        "processors": processor_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "blas": blas()["library"],
        "packages": installed(VERSIONS),
        "threads": plan.threads,
        "device": plan.device,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
    }


def heading(result: dict[str, Any]) -> str:
    """The metadata as two lines of text."""
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    threads = "each library's own" if result["threads"] is None else result["threads"]
    return (
        f"{result['processor']}, {result['processors']} processors, threads: {threads}, "
        f"xpmlp on {result['device']}\n"
        f"xpmlp {result['xpmlp']}, Python {result['python']}, {packages}, BLAS {result['blas']}"
    )


def title(case: dict[str, Any]) -> str:
    """A case's description with the unit of its figures."""
    shape, task, size = SHAPES[case["shape"]], case["task"], case["size"]
    tasks = {
        "train": "training, us per step",
        "population": f"population of {size}, us per step of a member",
        "predict": f"prediction of {size:,} rows, thousand rows per second",
    }
    return f"{case['shape']}: {shape}: {tasks[task]}"


def figure(task: str, seconds: float) -> str:
    """Microseconds per step, or thousand rows per second."""
    value = 1e-3 / seconds if task == "predict" else seconds * 1e6
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def line(row: dict[str, Any], task: str) -> str:
    if "min" not in row:
        return f"  {row['contender']:<27} not measured: {row['problem']}"
    share = "" if row["share"] is None or row["contender"] == FLOOR.name else f"{row['share']:.0%}"
    difference = "" if row["difference"] is None else f"{row['difference']:.0e}"
    best, middle = (figure(task, row[name]) for name in ("min", "median"))
    return (
        f"  {row['contender']:<27} {best:>9} {middle:>9} {row['ratio']:>8.2f} {share:>6} "
        f"{difference:>7}"
    )


def table(case: dict[str, Any]) -> str:
    """A case's table: best and median round, ratio to ours, share of the floor, difference."""
    head = f"  {'':<27} {'best':>9} {'median':>9} {'x ours':>8} {'floor':>6} {'differs':>7}"
    return "\n".join([title(case), head, *(line(row, case["task"]) for row in case["rows"])])
