"""The table of a visit: what to fix first, kernels of the small step, goals, omissions.

It is computed from the results so far, so that an interrupted visit has one too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.gpu import report
from benchmarks.gpu.checklist.check import FAULT, NOTE
from benchmarks.gpu.checks import NOT_RUN
from benchmarks.gpu.contenders import LIBRARIES, OWN

Results = Mapping[str, Mapping[str, Any]]  # by phase, the content of its file

# worst first; an error is any other exception in a check
SEVERITIES = (
    "wrong numbers", "device fault", "error", "not captured", "memory", "not finished", "message",
    "goal",
)  # fmt: skip
MEMORY = {"dropped", "flat-memory"}
CAPTURE = {"tripwire", "synchronized", "kernels", "captured-step"}
MESSAGE = {"versions", "error-paths"}
KERNELS = 15  # lines of kernels
WIDTH = 240  # characters per line
ADDRESS = re.compile("0x[0-9a-f]+")


class Item(NamedTuple):
    """Something to fix."""

    severity: str  # one of SEVERITIES
    factor: float  # by which a goal is missed; else 1
    where: str
    description: str


def severity(row: Mapping[str, Any]) -> str:
    """The severity of a check's fault."""
    detail = row["detail"]
    if detail.startswith("device fault"):
        return "device fault"
    if detail.startswith(("not done after", "exit status", "ended by")):
        return "not finished"
    if "CaptureWarning" in detail or "were to be recorded" in detail:
        return "not captured"
    if "OutOfMemory" in detail or row["name"] in MEMORY:
        return "memory"
    if row["name"] in MESSAGE:
        return "message"
    if not row["figure"]:
        return "error"
    return "not captured" if row["name"] in CAPTURE else "wrong numbers"


def rows(results: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every check's row with its group."""
    for result in results.values():
        for group, entry in list(result.get("groups", {}).items()):  # some are still running
            for row in entry["rows"]:
                yield group, row


def check_items(results: Results) -> Iterator[Item]:
    for group, row in rows(results):
        if row["verdict"] == FAULT:
            where = row["name"] if row["name"] in group else f"{group}: {row['name']}"
            bound = f"{row['figure']}, allowed {row['allowed']}: " if row["allowed"] else ""
            yield Item(severity(row), 1.0, where, f"{bound}{row['detail']}")


def contender_items(benchmark: Mapping[str, Any]) -> Iterator[Item]:
    """xpmlp's contenders without a time; problems of other libraries are no faults."""
    for work in benchmark.get("works", ()):
        for row in work["rows"]:
            problem = row.get("problem", "")
            if problem and row["library"] == LIBRARIES[OWN]:
                wrong = "computes something else" in problem or "precision" in problem
                not_captured = "ran eager" in problem or "CaptureWarning" in problem
                kind = "wrong numbers" if wrong else "not finished"
                kind = "not captured" if not_captured else kind
                yield Item(kind, 1.0, f"{work['name']}: {row['variant']}", problem)


def goal_items(benchmark: Mapping[str, Any]) -> Iterator[Item]:
    for goal in benchmark.get("goals", ()):
        if goal["verdict"] == "missed":
            measured, allowed = goal["measured"], goal["allowed"]
            pair = (measured, allowed) if goal["side"] == "at most" else (allowed, measured)
            factor = pair[0] / pair[1] if pair[1] else float("inf")
            text = f"{measured:.3g}, {goal['side']} {allowed:g} {goal['text']}: off by {factor:.2f}"
            yield Item("goal", factor, goal["work"], text)


def rank_items(results: Results) -> list[Item]:
    """What to fix, most severe first."""
    benchmark = results.get("benchmark", {})
    items = [*check_items(results), *contender_items(benchmark), *goal_items(benchmark)]
    items = merge_items(items)
    return sorted(items, key=lambda item: (SEVERITIES.index(item.severity), -item.factor))


def merge_items(items: Iterable[Item]) -> list[Item]:
    """One item per cause, with the first place and the number of others."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        key = item.severity, ADDRESS.sub("", item.description)
        groups.setdefault(key, []).append(item)
    return [
        same[0]._replace(where=f"{same[0].where} and {len(same) - 1} more")
        if len(same) > 1 else same[0]
        for same in groups.values()
    ]  # fmt: skip


def shorten(text: str) -> str:
    """A line of the table; the files have the full text."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def kernel_lines(profile: Mapping[str, Any]) -> Iterator[str]:
    """The slowest kernels of the small step."""
    by_name = {row["name"]: row for _, row in rows({"profile": profile})}
    row = by_name.get("profile-small")
    if row is None or not row["figures"].get("kernels"):
        yield f"  not measured: {row['detail'] if row else 'no row'}"
        return
    yield f"  {row['figure']}"
    yield f"  {'us a step':>9} {'share':>6} {'calls':>6} {'us each':>8}  kernel"
    for kernel in row["figures"]["kernels"][:KERNELS]:
        name = f"{kernel['kernel'][:90]} {kernel['grid']} {kernel['block']}"
        yield (
            f"  {kernel['us']:>9.2f} {kernel['share']:>6.1%} {kernel['calls']:>6.3g} "
            f"{kernel['us_each']:>8.2f}  {name}"
        )


def step_lines(results: Results) -> Iterator[str]:
    """The small captured step with and without each feature, then all other figures."""
    steps = {"steps": results.get("steps", {}), "memory": results.get("memory", {})}
    baseline = None
    for group, row in rows(steps):
        line = f"  {group if row['name'] in group else row['name']:<34} {row['figure']}"
        time = row["figures"].get("step") if row["name"] == "captured-step" else None
        if time is not None:
            baseline = baseline or time
            line += f", {time / baseline:.2f} times the first"
        yield shorten(f"{line}  <- {row['verdict']}: {row['detail']}" if row["detail"] else line)


def benchmark_lines(benchmark: Mapping[str, Any]) -> Iterator[str]:
    for work in benchmark.get("works", ()):
        yield f"  {work['title']}"
        own = report.own_row(work["rows"])
        yield from (f"    {shorten(report.line(row, own))}" for row in work["rows"])


def omissions(results: Results) -> Iterator[str]:
    """Checks that were not run, contenders that were left out, and notes."""
    for group, row in rows(results):
        if row["verdict"] == NOT_RUN:
            yield f"  not run: {row['name']} ({group}): {row['detail']}"
    yield from (f"  left out: {name}" for name in results.get("benchmark", {}).get("left_out", ()))
    yield from (f"  left out: {name}" for name in results.get("visit", {}).get("left_out", ()))
    for _, row in rows(results):
        if row["verdict"] == NOTE:
            yield f"  note: {row['name']}: {row['detail']}"


def section(title: str, lines: Iterable[str], empty: str) -> list[str]:
    return ["", title, *(list(lines) or [f"  {empty}"])]


def table(results: Results) -> str:
    """The whole table of the results so far."""
    items = [
        shorten(f"  {number:>2}  {item.severity:<14} {item.where}: {item.description}")
        for number, item in enumerate(rank_items(results), 1)
    ]
    benchmark = results.get("benchmark", {})
    lines = [
        report.heading(results["visit"]),
        *section("what to mend first", items, "no fault and no missed goal"),
        *section("kernels of the small step", kernel_lines(results.get("profile", {})), "-"),
        *section("steps, small times and memory", step_lines(results), "not measured"),
        *section("benchmark", benchmark_lines(benchmark), "not measured"),
        *section("goals", map(report.goal, benchmark.get("goals", ())), "not measured"),
        *section("not run, left out, notes", omissions(results), "nothing"),
    ]
    checks = [row for _, row in rows(results)]
    faults = sum(row["verdict"] == FAULT for row in checks)
    seconds = results["visit"].get("seconds", 0.0)
    end = f"{faults} faults in {len(checks)} checks, {seconds:.0f} s"
    return "\n".join([*lines, "", end, ""])
