#!/usr/bin/env python
"""Write the README's tables of speed from the newest result in benchmarks/results.

python scripts/benchmark_table.py
python scripts/benchmark_table.py --check    # exit status 1 if the README is stale
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.cpu.problems import SHAPES  # noqa: E402 - needs the line above
from benchmarks.cpu.report import figure  # noqa: E402

BEGIN, END = "<!-- speed: by scripts/benchmark_table.py -->", "<!-- end of speed -->"
MEASURE = "`python scripts/benchmark.py --out benchmarks/results/NAME.json`"
TASKS = {
    "train": "Training, µs per step",
    "population": "Populations, µs per step of a member",
    "predict": "Prediction, thousand rows per second",
}


def newest(folder: Path) -> dict[str, Any] | None:
    """The latest result with cases, by its date."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return max((r for r in results if "cases" in r), key=lambda r: r["date"], default=None)


def column_title(case: dict[str, Any]) -> str:
    size = {"train": "", "population": f" × {case['size']}", "predict": f", {case['size']:,} rows"}
    return case["shape"] + size[case["task"]]


def cell(row: dict[str, Any], task: str, first: str) -> str:
    """The best round and its ratio to ours; "-" if nothing was measured."""
    if "min" not in row:
        return "-"
    best = figure(task, row["min"])
    return best if row["contender"] == first else f"{best} ({row['ratio']:.2f})"


def table(task: str, cases: list[dict[str, Any]]) -> str:
    """A task's table: a row per contender, ours first, and a column per case."""
    names = [row["contender"] for row in cases[0]["rows"]]
    lines = [
        f"| {TASKS[task]} | {' | '.join(map(column_title, cases))} |",
        "| --- " * (len(cases) + 1) + "|",
    ]
    for i, name in enumerate(names):
        cells = [cell(case["rows"][i], task, names[0]) for case in cases]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def footnote(result: dict[str, Any]) -> str:
    """How to read the figures and how they were measured."""
    names = dict.fromkeys(case["shape"] for case in result["cases"])
    shapes = "; ".join(f"{name} = {SHAPES[name]}" for name in names)
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    threads = "each library's own" if result["threads"] is None else result["threads"]
    return (
        "The best of the rounds; in parentheses how many times ours it takes, so that below 1 the "
        "other is faster. Each is a process of its own, in turn with the others, on what its "
        "users call; it trains with Adam in float32, and is timed only where it computes the same "
        f"as ours (float64, 20 steps, 1e-8). Shapes: {shapes}.\n\n"
        f"Measured {result['date'][:10]} on {result['processor']}, {result['processors']} "
        f"processors, threads: {threads}; {result['rounds']} rounds; xpmlp {result['xpmlp']}, "
        f"Python {result['python']}, {packages}, BLAS {result['blas']}:\n\n    {result['command']}"
    )


def section(result: dict[str, Any] | None) -> str:
    """The text between the markers."""
    if result is None:
        return (
            f"Not yet published. {MEASURE}\nmeasures it here, against scikit-learn, PyTorch, JAX "
            "and onnxruntime where they are installed."
        )
    tables = []
    for task in TASKS:
        cases = [case for case in result["cases"] if case["task"] == task]
        if cases:
            tables.append(table(task, cases))
    return "\n\n".join([*tables, footnote(result)])


def replace_section(readme: str, text: str) -> str:
    """The README with the text between its markers; ValueError unless they occur once."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.S)
    if len(pattern.findall(readme)) != 1:
        raise ValueError(f"README.md must have {BEGIN} and {END} once")
    return pattern.sub(lambda match: f"{BEGIN}\n{text}\n{END}", readme)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    page = ROOT / "README.md"
    readme = page.read_text()
    updated = replace_section(readme, section(newest(ROOT / "benchmarks" / "results")))
    if updated == readme:
        return 0
    if options.check:
        print("README.md is stale: python scripts/benchmark_table.py", file=sys.stderr)
        return 1
    page.write_text(updated)
    print("wrote README.md")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"benchmark_table.py: {error}", file=sys.stderr)
        sys.exit(2)
