#!/usr/bin/env python
"""Write the README's table of the GPU from the newest benchmarks/results/gpu-*.json.

python scripts/benchmark_gpu_table.py
python scripts/benchmark_gpu_table.py --check    # exit status 1 where the README is stale
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- gpu: by scripts/benchmark_gpu_table.py -->", "<!-- end of gpu -->"
NONE = "Not yet measured on a GPU."


def newest(folder: Path) -> dict[str, Any] | None:
    """The latest result, by the date in it; --quick ones are no results."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    return max((r for r in found if not r["quick"]), key=lambda r: r["date"], default=None)


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(row: dict[str, Any] | None) -> str:
    """Microseconds over epochs, and of the step alone in parentheses."""
    if row is None or "epoch" not in row:
        return "-"
    return f"{figure(row['epoch'])} ({figure(row['step'])})"


def times(result: dict[str, Any]) -> str:
    """Contenders down, works across; those of libraries that were not installed are left out."""
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
    lines = ["| to be reached | measured | |", "| --- | --- | --- |"]
    titles = {work["name"]: work["title"] for work in result["works"]}
    for goal in result["goals"]:
        asked = f"{goal['side']} {goal['allowed']:g} {goal['text']}"
        measured = "-" if goal["measured"] is None else figure(goal["measured"])
        where = titles.get(goal["work"], goal["work"])
        lines.append(f"| {where}: {asked} | {measured} | {goal['verdict']} |")
    return "\n".join(lines)


def beneath(result: dict[str, Any]) -> str:
    """How the figures are to be read and how they were made."""
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
    """What stands between the markers."""
    if result is None:
        return NONE
    return "\n\n".join([times(result), goals(result), beneath(result)])


def written(page: str, text: str) -> str:
    """The page with the text between its markers; ValueError where they are not there once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"README.md must have {BEGIN} and {END} once each")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing: is it up to date?")
    options = parser.parse_args()
    readme = root / "README.md"
    page = readme.read_text()
    fresh = written(page, section(newest(root / "benchmarks" / "results")))
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
