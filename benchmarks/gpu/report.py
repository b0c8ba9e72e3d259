"""The benchmark's result as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.contenders import LIBRARIES, OWN
from benchmarks.gpu.works import Work


def heading(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    names = {"driver": "driver", "runtime": "runtime", "cupy": "CuPy"}
    versions = [f"{names[key]} {machine[key]}" for key in names if key in machine]
    return ", ".join([machine["name"], *versions, f"xpmlp {result['xpmlp']} ({result['commit']})"])


def table_head(work: Work) -> str:
    columns = f"{'us a step over epochs':>22} {'step only':>10} {'of ours':>8} {'off by':>8}"
    title = f"{work.name}: {work.title}, {work.batches} minibatches an epoch"
    return f"\n{title}\n{'contender':<42} {columns}"


def line(row: dict[str, Any], own: dict[str, Any]) -> str:
    """A contender's line; `own` is our row, the reference of the ratios."""
    name = f"{row['library']} {row['variant']}"
    if "problem" in row:
        return f"{name:<42} no time: {row['problem']}"
    share = f"{row['epoch'] / own['epoch']:.2f}" if "epoch" in own else "-"
    return f"{name:<42} {row['epoch']:>22.1f} {row['step']:>10.1f} {share:>8} {row['off']:>8.0e}"


def own_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our captured row, the reference of the ratios; empty if there is none."""
    key = LIBRARIES[OWN], "captured"
    return next((row for row in rows if (row["library"], row["variant"]) == key), {})


def low_level_lines(rows: dict[str, Any]) -> list[str]:
    """The low-level times and the memory, a line each."""
    lines = ["\nlow-level figures"]
    for name, row in rows.items():
        detail = f"  <- {row['verdict']}: {row['detail']}" if row["verdict"] == "fault" else ""
        lines.append(f"{name:<14} {row['figure']}{detail}")
    return lines


def goal(entry: dict[str, Any]) -> str:
    target = f"{entry['side']} {entry['allowed']:g} {entry['text']}"
    measured = "-" if entry["measured"] is None else f"{entry['measured']:.3g}"
    return f"{entry['work']:<11} {target:<76} {measured:>9}  {entry['verdict']}"
