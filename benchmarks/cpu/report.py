"""The tables that a person reads, and what is said of the machine above them."""

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
    """The processor's own name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def usable() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def setting(plan: Plan, command: str) -> dict[str, Any]:
    """What a result must be read with."""
    return {
        "xpmlp": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "processor": processor(),
        "processors": usable(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "blas": blas()["library"],
        "packages": installed(VERSIONS),
        "threads": plan.threads,
        "device": plan.device,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
    }


def heading(found: dict[str, Any]) -> str:
    """The setting for a person, two lines."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    threads = "each library's own" if found["threads"] is None else found["threads"]
    return (
        f"{found['processor']}, {found['processors']} processors, threads: {threads}, "
        f"xpmlp on {found['device']}\n"
        f"xpmlp {found['xpmlp']}, Python {found['python']}, {packages}, BLAS {found['blas']}"
    )


def title(case: dict[str, Any]) -> str:
    """A case in words, with the unit of its figures."""
    shape, task, size = SHAPES[case["shape"]], case["task"], case["size"]
    words = {
        "train": "training, us per step",
        "population": f"population of {size}, us per step of a member",
        "predict": f"prediction of {size:,} rows, thousand rows per second",
    }
    return f"{case['shape']}: {shape}: {words[task]}"


def figure(task: str, seconds: float) -> str:
    """Microseconds of a step, or thousand rows of a second."""
    value = 1e-3 / seconds if task == "predict" else seconds * 1e6
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def line(row: dict[str, Any], task: str) -> str:
    if "min" not in row:
        return f"  {row['contender']:<27} not measured: {row['problem']}"
    share = "" if row["share"] is None or row["contender"] == FLOOR.name else f"{row['share']:.0%}"
    agrees = "" if row["difference"] is None else f"{row['difference']:.0e}"
    least, middle = (figure(task, row[name]) for name in ("min", "median"))
    return (
        f"  {row['contender']:<27} {least:>9} {middle:>9} {row['ratio']:>8.2f} {share:>6} "
        f"{agrees:>7}"
    )


def table(case: dict[str, Any]) -> str:
    """A case as lines: best and median round, how many times ours takes, share of the floor."""
    head = f"  {'':<27} {'best':>9} {'median':>9} {'x ours':>8} {'floor':>6} {'differs':>7}"
    return "\n".join([title(case), head, *(line(row, case["task"]) for row in case["rows"])])
