"""One table at the end: what to mend first, where the time of a small step goes, goals, omissions.

It is made from the results as they are, so that a visit that was cut short has one too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.gpu import report
from benchmarks.gpu.checklist.check import FAULT, NOTE
from benchmarks.gpu.checks import NOT_RUN
from benchmarks.gpu.contenders import LIBRARIES, OWN

Results = Mapping[str, Mapping[str, Any]]  # by phase, what its file holds

# worst first; an error is a check that raised what is none of the others
SEVERITIES = (
    "wrong numbers", "device fault", "error", "not captured", "memory", "not finished", "message",
    "goal",
)  # fmt: skip
MEMORY = {"dropped", "flat-memory"}
CAPTURE = {"tripwire", "synchronized", "kernels", "captured-step"}
MESSAGE = {"versions", "error-paths"}
KERNELS = 15  # lines of the table
WIDTH = 240  # characters of a line
ADDRESS = re.compile("0x[0-9a-f]+")


class Item(NamedTuple):
    """Something to mend."""

    severity: str  # one of SEVERITIES
    factor: float  # of a missed goal, how far it is off; else 1
    where: str
    what: str


def severity(row: Mapping[str, Any]) -> str:
    """What kind of fault a check's row tells of."""
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
    """Every check's row with the group that it belongs to."""
    for result in results.values():
        for group, entry in list(result.get("groups", {}).items()):  # some are still running
            for row in entry["rows"]:
                yield group, row


def of_checks(results: Results) -> Iterator[Item]:
    for group, row in rows(results):
        if row["verdict"] == FAULT:
            where = row["name"] if row["name"] in group else f"{group}: {row['name']}"
            off = f"{row['figure']}, allowed {row['allowed']}: " if row["allowed"] else ""
            yield Item(severity(row), 1.0, where, f"{off}{row['detail']}")


def of_contenders(benchmark: Mapping[str, Any]) -> Iterator[Item]:
    """Our own contenders that have no time; what keeps another library's from one is a note."""
    for work in benchmark.get("works", ()):
        for row in work["rows"]:
            problem = row.get("problem", "")
            if problem and row["library"] == LIBRARIES[OWN]:
                wrong = "computes something else" in problem or "precision" in problem
                not_captured = "ran eager" in problem or "CaptureWarning" in problem
                kind = "wrong numbers" if wrong else "not finished"
                kind = "not captured" if not_captured else kind
                yield Item(kind, 1.0, f"{work['name']}: {row['variant']}", problem)


def of_goals(benchmark: Mapping[str, Any]) -> Iterator[Item]:
    for goal in benchmark.get("goals", ()):
        if goal["verdict"] == "missed":
            measured, allowed = goal["measured"], goal["allowed"]
            pair = (measured, allowed) if goal["side"] == "at most" else (allowed, measured)
            factor = pair[0] / pair[1] if pair[1] else float("inf")
            what = f"{measured:.3g}, {goal['side']} {allowed:g} {goal['text']}: off by {factor:.2f}"
            yield Item("goal", factor, goal["work"], what)


def ranked(results: Results) -> list[Item]:
    """What to mend, first things first."""
    benchmark = results.get("benchmark", {})
    items = merged([*of_checks(results), *of_contenders(benchmark), *of_goals(benchmark)])
    return sorted(items, key=lambda item: (SEVERITIES.index(item.severity), -item.factor))


def merged(items: Iterable[Item]) -> list[Item]:
    """Items with the same cause as one, which names the first place."""
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        found.setdefault((item.severity, ADDRESS.sub("", item.what)), []).append(item)
    return [
        same[0]._replace(where=f"{same[0].where} and {len(same) - 1} more")
        if len(same) > 1 else same[0]
        for same in found.values()
    ]  # fmt: skip


def short(text: str) -> str:
    """A line of the table; the files have it whole."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def kernel_lines(profile: Mapping[str, Any]) -> Iterator[str]:
    """The kernels of the small step that take most time."""
    found = {row["name"]: row for _, row in rows({"profile": profile})}
    row = found.get("profile-small")
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
    """The small captured step with everything and without each part, then all other figures."""
    steps = {"steps": results.get("steps", {}), "memory": results.get("memory", {})}
    with_all = None
    for group, row in rows(steps):
        line = f"  {group if row['name'] in group else row['name']:<34} {row['figure']}"
        time = row["figures"].get("step") if row["name"] == "captured-step" else None
        if time is not None:
            with_all = with_all or time
            line += f", {time / with_all:.2f} times the first"
        yield short(f"{line}  <- {row['verdict']}: {row['detail']}" if row["detail"] else line)


def benchmark_lines(benchmark: Mapping[str, Any]) -> Iterator[str]:
    for work in benchmark.get("works", ()):
        yield f"  {work['title']}"
        own = report.own(work["rows"])
        yield from (f"    {short(report.line(row, own))}" for row in work["rows"])


def omissions(results: Results) -> Iterator[str]:
    """What was not run, and what is worth a note."""
    for group, row in rows(results):
        if row["verdict"] == NOT_RUN:
            yield f"  not run: {row['name']} ({group}): {row['detail']}"
    yield from (f"  left out: {one}" for one in results.get("benchmark", {}).get("left_out", ()))
    yield from (f"  left out: {one}" for one in results.get("visit", {}).get("left_out", ()))
    for _, row in rows(results):
        if row["verdict"] == NOTE:
            yield f"  note: {row['name']}: {row['detail']}"


def listed(title: str, lines: Iterable[str], empty: str) -> list[str]:
    found = list(lines)
    return ["", title, *(found or [f"  {empty}"])]


def table(results: Results) -> str:
    """The whole table, of the results that there are by now."""
    items = [
        short(f"  {number:>2}  {item.severity:<14} {item.where}: {item.what}")
        for number, item in enumerate(ranked(results), 1)
    ]
    benchmark = results.get("benchmark", {})
    lines = [
        report.heading(results["visit"]),
        *listed("what to mend first", items, "no fault and no missed goal"),
        *listed("kernels of the small step", kernel_lines(results.get("profile", {})), "-"),
        *listed("steps, small times and memory", step_lines(results), "not measured"),
        *listed("benchmark", benchmark_lines(benchmark), "not measured"),
        *listed("goals", map(report.goal, benchmark.get("goals", ())), "not measured"),
        *listed("not run, left out, notes", omissions(results), "nothing"),
    ]
    checks = [row for _, row in rows(results)]
    faults = sum(row["verdict"] == FAULT for row in checks)
    seconds = results["visit"].get("seconds", 0.0)
    end = f"{faults} faults in {len(checks)} checks, {seconds:.0f} s"
    return "\n".join([*lines, "", end, ""])
