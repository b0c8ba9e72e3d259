#!/usr/bin/env python
"""xpmlp against other libraries on the CPU: training steps, populations, predictions.

    python scripts/benchmark.py --out benchmarks/results/NAME.json
    python scripts/benchmark.py --shapes c,d --rounds 7 --quick
    python scripts/benchmark.py --own --device gpu    # against scikit-learn only
    python scripts/benchmark.py --loaded     # xpmlp only, while another process uses a core

Besides scikit-learn and NumPy's matrix products it measures PyTorch, JAX and onnxruntime (with
onnx) if they are installed. Exit status: 0 all agree, 1 a contender failed or gave other results,
2 a wrong argument. A library that is not installed is not a failure.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.cpu.command import add_options, measure_cases, plan_for  # noqa: E402 - needs the line above
from benchmarks.cpu.contest import Plan  # noqa: E402
from benchmarks.cpu.load import measure_loaded  # noqa: E402
from benchmarks.cpu.problems import Case, select  # noqa: E402
from benchmarks.cpu.report import figure, heading, metadata  # noqa: E402


def measure_loads(cases: list[Case], plan: Plan, command: str, *, stderr: bool) -> dict[str, Any]:
    """Time xpmlp's training cases on an idle and a loaded machine, the latter with the default
    number of threads and with one."""
    out = sys.stderr if stderr else sys.stdout
    result = metadata(plan, command)
    print(heading(result), file=out)
    print(
        f"\n{'us per step':<12} {'idle':>9} {'loaded':>9} {'ratio':>7} {'of medians':>11}"
        f"{'n_threads=1':>13} {'ratio':>7} {'of medians':>11}",
        file=out,
    )
    result["loaded"] = []
    for case in cases:
        if case.task != "train":
            continue
        row = measure_loaded(case, plan)
        result["loaded"].append(row)
        idle, busy, one_thread = (
            figure("train", min(row[name])) for name in ("idle", "loaded", "one_thread")
        )
        print(
            f"{case.shape:<12} {idle:>9} {busy:>9} {row['ratio']:>7.2f} "
            f"{row['ratio_median']:>11.2f}{one_thread:>13} {row['ratio_one_thread']:>7.2f} "
            f"{row['ratio_median_one_thread']:>11.2f}",
            file=out,
            flush=True,
        )
    return result


def failed(result: dict[str, Any]) -> bool:
    """Whether an installed contender has no times."""
    problems = [row["problem"] for case in result.get("cases", ()) for row in case["rows"]]
    return any(p and not p.startswith("ModuleNotFoundError") for p in problems)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    cases, plan = select(options.shapes), plan_for(options)
    if options.out:  # fail before the minutes of work
        options.out.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])
    measure = measure_loads if options.loaded else measure_cases
    result = measure(cases, plan, command, stderr=options.json)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
    return 1 if failed(result) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        sys.exit(2)
