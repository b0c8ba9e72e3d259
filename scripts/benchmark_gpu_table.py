#!/usr/bin/env python
"""Write the README's table of the GPU from the newest benchmarks/results/gpu-*.json.

python scripts/benchmark_gpu_table.py
python scripts/benchmark_gpu_table.py --check    # exit status 1 if the README is stale
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- gpu: by scripts/benchmark_gpu_table.py -->", "<!-- end of gpu -->"
NOT_MEASURED = "Not yet measured on a GPU."


def newest(folder: Path) -> dict[str, Any] | None:
    """The latest result by its date, without those of --quick."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    return max((r for r in results if not r["quick"]), key=lambda r: r["date"], default=None)


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(row: dict[str, Any] | None) -> str:
    """Microseconds per step over whole epochs, and of the step only in parentheses."""
    if row is None or "epoch" not in row:
        return "-"
    return f"{figure(row['epoch'])} ({figure(row['step'])})"


def times(result: dict[str, Any]) -> str:
    """A row per contender, a column per work, without libraries that were not installed."""
    works = result["works"]
    tables = [{(row["library"], row["variant"]): row for row in w["rows"]} for w in works]
    names = dict.fromkeys(name for table in tables for name in table if name[1] != "-")
    lines = [
        f"| µs per step | {' | '.join(work['title'] for work in works)} |",
        "| --- " * (len(works) + 1) + "|",
    ]
    for name in names:
        cells = " | ".join(cell(table.get(name)) for table in tables)
        lines.append(f"| {', '.join(name)} | {cells} |")
    return "\n".join(lines)


def goals(result: dict[str, Any]) -> str:
    lines = ["| goal | measured | |", "| --- | --- | --- |"]
    titles = {work["name"]: work["title"] for work in result["works"]}
    for goal in result["goals"]:
        target = f"{goal['side']} {goal['allowed']:g} {goal['text']}"
        measured = "-" if goal["measured"] is None else figure(goal["measured"])
        work = titles.get(goal["work"], goal["work"])
        lines.append(f"| {work}: {target} | {measured} | {goal['verdict']} |")
    return "\n".join(lines)


def footnote(result: dict[str, Any]) -> str:
    """How to read the figures and how they were measured."""
    machine = result["machine"]
    libraries = {
        row["library"]: row["version"]
        for work in result["works"]
        for row in work["rows"]
        if "version" in row
    }
    versions = ", ".join(f"{name} {version}" for name, version in libraries.items())
    return (
        "Over whole epochs, rows gathered and losses read; in parentheses the step alone. Each is "
        "a process of its own with its data on the card, timed there by events (JAX by the host's "
        "clock), the median of rounds, and only where it computes the same as ours in float64 and "
        "multiplies at the same precision.\n\n"
        f"Measured {result['date'][:10]} on {machine['name']} (driver {machine['driver']}, "
        f"CUDA {machine['runtime']}, CuPy {machine['cupy']}), {versions}:\n\n"
        f"    {result['command']}"
    )


def section(result: dict[str, Any] | None) -> str:
    """The text between the markers."""
    if result is None:
        return NOT_MEASURED
    return "\n\n".join([times(result), goals(result), footnote(result)])


def replace_section(page: str, text: str) -> str:
    """The page with the text between its markers; ValueError unless each occurs once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"README.md must have {BEGIN} and {END} once each")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    readme = root / "README.md"
    page = readme.read_text()
    fresh = replace_section(page, section(newest(root / "benchmarks" / "results")))
    if options.check:
        if page != fresh:
            print("README.md is stale: python scripts/benchmark_gpu_table.py", file=sys.stderr)
        return int(page != fresh)
    readme.write_text(fresh)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"benchmark_gpu_table.py: {error}", file=sys.stderr)
        sys.exit(2)
