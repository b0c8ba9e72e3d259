#!/usr/bin/env python
"""xpmlp against other libraries on the CPU: training steps, populations, predictions.

    python scripts/benchmark.py --out benchmarks/results/NAME.json
    python scripts/benchmark.py --shapes c,d --rounds 7 --quick
    python scripts/benchmark.py --loaded     # xpmlp alone, beside a process that holds a core

Beyond xpmlp's own contenders it measures PyTorch, JAX and onnxruntime (with onnx) where they are
installed. Exit status: 0 all agree, 1 a contender computes something else or failed, 2 a wrong
argument; a library that is not installed is no failure.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from peers import ALL, FOLDER  # noqa: E402 - found by the line above

from xpmlp.bench.load import loaded  # noqa: E402
from xpmlp.bench.problems import Case, select  # noqa: E402
from xpmlp.bench.report import figure, heading, setting  # noqa: E402
from xpmlp.cli.bench import add_measuring, measured, planned  # noqa: E402


def under_load(cases: list[Case], options: argparse.Namespace, command: str) -> dict[str, Any]:
    """The training cases of ours idle and loaded, with the threads that it chooses itself, and
    loaded with one."""
    out = sys.stderr if options.json else sys.stdout
    plan = planned(options, "cpu")
    if options.threads is None:
        plan = plan._replace(threads=None)
    found = setting(plan, command)
    print(heading(found), file=out)
    print(
        f"\n{'us per step':<12} {'idle':>9} {'loaded':>9} {'ratio':>7} {'of medians':>11}"
        f"{'n_threads=1':>13} {'ratio':>7} {'of medians':>11}",
        file=out,
    )
    found["loaded"] = []
    for case in cases:
        if case.task != "train":
            continue
        row = loaded(case, plan)
        found["loaded"].append(row)
        idle, beside, one = (
            figure("train", min(row[name])) for name in ("idle", "loaded", "one_thread")
        )
        print(
            f"{case.shape:<12} {idle:>9} {beside:>9} {row['ratio']:>7.2f} "
            f"{row['ratio_median']:>11.2f}{one:>13} {row['ratio_one_thread']:>7.2f} "
            f"{row['ratio_median_one_thread']:>11.2f}",
            file=out,
            flush=True,
        )
    return found


def failed(found: dict[str, Any]) -> bool:
    """Whether a contender that is installed has no times."""
    problems = [row["problem"] for case in found.get("cases", ()) for row in case["rows"]]
    return any(why and not why.startswith("ModuleNotFoundError") for why in problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_measuring(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there as JSON")
    parser.add_argument("--loaded", action="store_true", help="ours beside a busy process")
    options = parser.parse_args()
    cases = select(options.shapes)
    if options.out:  # before the minutes of work, where it may fail
        options.out.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])
    if options.loaded:
        found = under_load(cases, options, command)
    else:
        plan = planned(options, "cpu", contenders=ALL, folder=FOLDER)
        found = measured(cases, plan, command, aside=options.json)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.json:
        print(json.dumps(found))
    return 1 if failed(found) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        sys.exit(2)
