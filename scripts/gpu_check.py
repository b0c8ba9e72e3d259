#!/usr/bin/env python
"""Check the GPU path against the CPU, one row per check; needs a GPU, CuPy and nvmath.

    python scripts/gpu_check.py
    python scripts/gpu_check.py --only gemm-out,replays,11 --out result.json

It runs from a checkout. Each group of checks runs in its own process with a time limit: those that
time nothing in parallel, then the others one after another.

Exit status: 0 all passed, 1 a fault, 2 no usable GPU or a wrong argument.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.gpu import groups, machine  # noqa: E402 - needs the line above
from benchmarks.gpu.checklist.check import FAULT  # noqa: E402
from benchmarks.gpu.checks import CHECKS, NOT_RUN, select  # noqa: E402
from benchmarks.gpu.groups import Device, Group  # noqa: E402
from benchmarks.gpu.processes import LIMIT  # noqa: E402
from benchmarks.gpu.results import ResultFile  # noqa: E402

PARALLEL = (*groups.PARALLEL, *groups.NUMPY)


def select_groups(candidates: Sequence[Group], names: set[str]) -> list[Group]:
    """The groups reduced to the checks of these names, without empty groups."""
    reduced = [group.restricted_to(names) for group in candidates]
    return [group for group in reduced if group.checks]


def run(result: ResultFile, device: Device, names: set[str], limit: float, jobs: int,
        table: TextIO) -> dict[str, Any]:  # fmt: skip
    """Run every check, print and write each row at once, and return the whole result."""

    def show(group: Group, row: dict[str, Any]) -> None:
        print(groups.format_row(row), file=table, flush=True)

    print(groups.HEAD, file=table, flush=True)
    for candidates, processes in ((PARALLEL, jobs), (groups.SEQUENTIAL, 1)):
        groups.run_groups(
            select_groups(candidates, names), device, result, show,
            limit=limit, deadline=math.inf, jobs=processes,
        )  # fmt: skip
    rows = [row for entry in result.content["groups"].values() for row in entry["rows"]]
    with result.change() as content:
        content["faults"] = sum(row["verdict"] == FAULT for row in rows)
        content["not_run"] = sum(row["verdict"] == NOT_RUN for row in rows)
    print(f"{content['faults']} faults in {len(rows)} checks", file=table, flush=True)
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N (gpu)")
    parser.add_argument("--seed", default=0, type=int, help="random seed (0)")
    parser.add_argument("--only", metavar="NAME,...", help="only these checks, by name or number")
    parser.add_argument("--quick", action="store_true", help="fewer cases, smaller networks")
    parser.add_argument("--limit", default=LIMIT, type=float, help=f"seconds a group ({LIMIT:g})")
    parser.add_argument("--jobs", default=os.cpu_count(), type=int, help="parallel groups (cores)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the result as JSON")
    parser.add_argument("--json", action="store_true", help="the result on standard output")
    options = parser.parse_args()
    names = {check.name for check in select(CHECKS, options.only)}
    machine.validate_arguments(options.device, options.seed)
    started = time.monotonic()
    details = machine.examine(options.device)
    device = Device(details["device"], options.seed, options.quick)
    command = shlex.join(["python", "scripts/gpu_check.py", *sys.argv[1:]])
    result = ResultFile(options.out, machine.header(device, details, command))
    table = sys.stderr if options.json else sys.stdout
    content = run(result, device, names, options.limit, options.jobs, table)
    print(f"{time.monotonic() - started:.0f} s", file=table)
    if options.json:
        print(result.text())
    return 1 if content["faults"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once: the files are complete at any time
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"gpu_check.py: {error}", file=sys.stderr)
        sys.exit(2)
