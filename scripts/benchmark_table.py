#!/usr/bin/env python
"""Write the README's tables of speed from the newest result in benchmarks/results.

python scripts/benchmark_table.py
python scripts/benchmark_table.py --check    # exit status 1 where the README is stale
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.cpu.problems import SHAPES  # noqa: E402 - found by the line above
from benchmarks.cpu.report import figure  # noqa: E402

BEGIN, END = "<!-- speed: by scripts/benchmark_table.py -->", "<!-- end of speed -->"
MEASURE = "`python scripts/benchmark.py --out benchmarks/results/NAME.json`"
TASKS = {
    "train": "Training, µs per step",
    "population": "Populations, µs per step of a member",
    "predict": "Prediction, thousand rows per second",
}


def newest(folder: Path) -> dict[str, Any] | None:
    """The latest result that has cases, by the date in it."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return max((r for r in found if "cases" in r), key=lambda r: r["date"], default=None)


def heads(case: dict[str, Any]) -> str:
    """A column's title."""
    words = {"train": "", "population": f" × {case['size']}", "predict": f", {case['size']:,} rows"}
    return case["shape"] + words[case["task"]]


def cell(row: dict[str, Any], task: str, first: str) -> str:
    """The best round, and how many times ours it takes; "-" where nothing was measured."""
    if "min" not in row:
        return "-"
    best = figure(task, row["min"])
    return best if row["contender"] == first else f"{best} ({row['ratio']:.2f})"


def table(task: str, cases: list[dict[str, Any]]) -> str:
    """A task's table: contenders down, cases across, ours first."""
    names = [row["contender"] for row in cases[0]["rows"]]
    lines = [
        f"| {TASKS[task]} | {' | '.join(map(heads, cases))} |",
        "| --- " * (len(cases) + 1) + "|",
    ]
    for i, name in enumerate(names):
        cells = [cell(case["rows"][i], task, names[0]) for case in cases]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def beneath(found: dict[str, Any]) -> str:
    """How the figures are to be read and how they were made."""
    used = dict.fromkeys(case["shape"] for case in found["cases"])
    shapes = "; ".join(f"{name} = {SHAPES[name]}" for name in used)
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    threads = "each library's own" if found["threads"] is None else found["threads"]
    return (
        "The best of the rounds; in parentheses how many times ours it takes, so that below 1 the "
        "other is faster. Each is a process of its own, in turn with the others, on what its "
        "users call; it trains with Adam in float32, and is timed only where it computes the same "
        f"as ours (float64, 20 steps, 1e-8). Shapes: {shapes}.\n\n"
        f"Measured {found['date'][:10]} on {found['processor']}, {found['processors']} "
        f"processors, threads: {threads}; {found['rounds']} rounds; xpmlp {found['xpmlp']}, "
        f"Python {found['python']}, {packages}, BLAS {found['blas']}:\n\n    {found['command']}"
    )


def section(found: dict[str, Any] | None) -> str:
    """What stands between the markers."""
    if found is None:
        return (
            f"Not yet published. {MEASURE}\nmeasures it here, against scikit-learn, PyTorch, JAX "
            "and onnxruntime where they are installed."
        )
    tables = []
    for task in TASKS:
        cases = [case for case in found["cases"] if case["task"] == task]
        if cases:
            tables.append(table(task, cases))
    return "\n\n".join([*tables, beneath(found)])


def written(readme: str, inside: str) -> str:
    """The README with the section in it; ValueError where it lacks the markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.S)
    if len(pattern.findall(readme)) != 1:
        raise ValueError(f"README.md must have {BEGIN} and {END} once")
    return pattern.sub(lambda match: f"{BEGIN}\n{inside}\n{END}", readme)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    page = ROOT / "README.md"
    readme = page.read_text()
    wanted = written(readme, section(newest(ROOT / "benchmarks" / "results")))
    if wanted == readme:
        return 0
    if options.check:
        print("README.md is stale: python scripts/benchmark_table.py", file=sys.stderr)
        return 1
    page.write_text(wanted)
    print("wrote README.md")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"benchmark_table.py: {error}", file=sys.stderr)
        sys.exit(2)
