#!/usr/bin/env python
"""Time training steps on a GPU: xpmlp against PyTorch and JAX if they are installed.

    python scripts/benchmark_gpu.py --out benchmarks/results/gpu-NAME.json
    python scripts/benchmark_gpu.py --only small --contenders xpmlp-captured,pytorch --limit 60

It runs from a checkout. Every contender runs in its own process. It first trains on twenty
minibatches in float64; a contender with different weights, or whose products do not have the
requested precision, is not timed. The first column is the time per step over whole epochs,
including gathering rows and reading losses; the second that of the step only.

Exit status: 0 all agree, 1 a contender failed or gave other results, 2 no usable GPU or a wrong
argument. A library that is not installed is not a failure.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.gpu import machine, report  # noqa: E402 - needs the line above
from benchmarks.gpu.checklist.check import FAULT  # noqa: E402
from benchmarks.gpu.contenders import (  # noqa: E402
    ABSENT,
    CONTENDERS,
    pairs,
    select_contenders,
    select_works,
)
from benchmarks.gpu.contest import Contest  # noqa: E402
from benchmarks.gpu.goals import evaluate_goals  # noqa: E402
from benchmarks.gpu.groups import LOW_LEVEL, Device, Group, run_group  # noqa: E402
from benchmarks.gpu.processes import LIMIT  # noqa: E402
from benchmarks.gpu.results import ResultFile  # noqa: E402


def run(options: argparse.Namespace, out: TextIO) -> ResultFile:
    """Time every contender on every work, then the low-level figures; return the result."""
    works, contenders = select_works(options.only), select_contenders(options.contenders)
    machine.validate_arguments(options.device, options.seed)
    details = machine.examine(options.device)
    device = Device(details["device"], options.seed, options.quick)
    command = shlex.join(["python", "scripts/benchmark_gpu.py", *sys.argv[1:]])
    path = Path(options.out) if options.out else None
    result = ResultFile(path, machine.header(device, details, command) | {"beneath": {}})
    print(report.heading(result.content), file=out)
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(
            result, device, Path(folder), limit=options.limit,
            show=lambda line: print(line, file=out, flush=True),
        )  # fmt: skip
        contest.measure(pairs(works, contenders))

    def store(row: dict[str, Any]) -> None:
        with result.change() as content:
            content["beneath"][row["name"]] = row
            content["goals"] = evaluate_goals(content)

    run_group(Group("low-level", LOW_LEVEL), device, options.limit, store)
    print("\n".join(report.low_level_lines(result.content["beneath"])), file=out)
    print("\ngoals, over whole epochs", file=out)
    for entry in result.content["goals"]:
        print(report.goal(entry), file=out)
    return result


def failed(result: dict[str, Any]) -> bool:
    """Whether anything failed; a library that is not installed does not count."""
    rows = [row for work in result["works"] for row in work["rows"] if row["variant"] != ABSENT]
    faults = [row["verdict"] == FAULT for row in result["beneath"].values()]
    return any("problem" in row for row in rows) or any(faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N (gpu)")
    parser.add_argument("--seed", default=0, type=int, help="random seed (0)")
    parser.add_argument("--only", metavar="NAME,...", help="works, of: small, large, population")
    known = ", ".join(["xpmlp", "pytorch", "jax", *(contender.slug for contender in CONTENDERS)])
    parser.add_argument("--contenders", metavar="NAME,...", help=f"contenders, of: {known}")
    parser.add_argument("--limit", default=LIMIT, type=float, help=f"seconds for each ({LIMIT:g})")
    parser.add_argument("--quick", action="store_true", help="small sizes, as a smoke test")
    parser.add_argument("--out", metavar="FILE", help="write the result as JSON")
    parser.add_argument("--json", action="store_true", help="the result on standard output")
    options = parser.parse_args()
    result = run(options, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(result.text())
    return 1 if failed(result.content) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"benchmark_gpu.py: {error}", file=sys.stderr)
        sys.exit(2)
