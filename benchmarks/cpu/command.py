"""The options of `scripts/benchmark.py`, the plan that they come to, and its cases measured."""

import argparse
import sys
from typing import Any

from benchmarks.cpu.contest import OWN, Plan, measure
from benchmarks.cpu.peers import ALL
from benchmarks.cpu.problems import SHAPES, Case
from benchmarks.cpu.report import heading, setting, table, usable
from xpmlp.devices.words import default_word, place_for
from xpmlp.names import whole

QUICK = {"rounds": 3, "seconds": 0.05}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", metavar="NAME,...", help=f"of {', '.join(SHAPES)} (all)")
    parser.add_argument("--rounds", type=int, help="turns of every contender (7; 3 if quick)")
    parser.add_argument("--threads", type=int, help="of every contender (one per processor)")
    parser.add_argument("--quick", action="store_true", help="short rounds: rough figures")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--own", action="store_true", help="beside scikit-learn and NumPy alone")
    alone.add_argument("--loaded", action="store_true", help="ours beside a busy process")
    parser.add_argument("--device", help="ours, with --own: auto, cpu, gpu, gpu:N (auto)")


def planned(options: argparse.Namespace, device: str, **more: Any) -> Plan:
    """How to measure, as asked; ValueError naming what is out of range."""
    asked: dict[str, Any] = dict(QUICK) if options.quick else {}
    if options.rounds is not None:
        asked["rounds"] = whole(options.rounds, "--rounds")
    threads = usable() if options.threads is None else whole(options.threads, "--threads")
    return Plan(**asked, threads=threads, device=device, **more)


def plan_for(options: argparse.Namespace) -> Plan:
    """Everyone on the CPU; with --loaded or --own our own contenders, these on a device."""
    if not options.own and options.device is not None:
        raise ValueError("--device goes with --own: all else is measured on the CPU")
    if options.loaded:
        plan = planned(options, "cpu")
        return plan._replace(threads=None) if options.threads is None else plan
    if not options.own:
        return planned(options, "cpu", contenders=ALL)
    place = place_for(default_word() if options.device is None else options.device)
    plan = planned(options, place.name, contenders=OWN)
    return plan if place.name == "cpu" else without_floor(plan)


def without_floor(plan: Plan) -> Plan:
    """The floor is NumPy's: no measure of what runs elsewhere."""
    kept = {task: [c for c in entries if c.rule] for task, entries in plan.contenders.items()}
    return plan._replace(contenders=kept)


def measured(cases: list[Case], plan: Plan, command: str, *, aside: bool) -> dict[str, Any]:
    """Every case, printed as soon as it is done; aside: on standard error."""
    out = sys.stderr if aside else sys.stdout
    found = setting(plan, command)
    print(heading(found), file=out, flush=True)
    found["cases"] = []
    for case in cases:
        found["cases"].append(measure(case, plan))
        print(f"\n{table(found['cases'][-1])}", file=out, flush=True)
    return found
