"""The options of `scripts/benchmark.py`, and the measurement that they describe."""

import argparse
import sys
from typing import Any

from benchmarks.cpu.contest import OWN, Plan, measure
from benchmarks.cpu.peers import ALL
from benchmarks.cpu.problems import SHAPES, Case
from benchmarks.cpu.report import heading, metadata, processor_count, table
from xpmlp.devices.words import default_word, place_for
from xpmlp.names import whole

QUICK = {"rounds": 3, "seconds": 0.05}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", metavar="NAME,...", help=f"of {', '.join(SHAPES)} (all)")
    parser.add_argument("--rounds", type=int, help="rounds per contender (7; 3 if quick)")
    parser.add_argument("--threads", type=int, help="per contender (one per processor)")
    parser.add_argument("--quick", action="store_true", help="short rounds: rough figures")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--own", action="store_true", help="against scikit-learn and NumPy only")
    group.add_argument("--loaded", action="store_true", help="xpmlp next to a busy process")
    parser.add_argument("--device", help="of xpmlp, with --own: auto, cpu, gpu, gpu:N (auto)")


def make_plan(options: argparse.Namespace, device: str, **more: Any) -> Plan:
    """The plan of these options; ValueError names an option that is out of range."""
    settings: dict[str, Any] = dict(QUICK) if options.quick else {}
    if options.rounds is not None:
        settings["rounds"] = whole(options.rounds, "--rounds")
    threads = processor_count() if options.threads is None else whole(options.threads, "--threads")
    return Plan(**settings, threads=threads, device=device, **more)


def plan_for(options: argparse.Namespace) -> Plan:
    """All contenders on the CPU; with --loaded or --own those of OWN, with --own on any device."""
    if not options.own and options.device is not None:
        raise ValueError("--device goes with --own: all else is measured on the CPU")
    if options.loaded:
        plan = make_plan(options, "cpu")
        return plan._replace(threads=None) if options.threads is None else plan
    if not options.own:
        return make_plan(options, "cpu", contenders=ALL)
    place = place_for(default_word() if options.device is None else options.device)
    plan = make_plan(options, place.name, contenders=OWN)
    return plan if place.name == "cpu" else without_floor(plan)


def without_floor(plan: Plan) -> Plan:
    """The plan without the floor: NumPy's products are no lower bound for another device."""
    contenders = {task: [c for c in entries if c.rule] for task, entries in plan.contenders.items()}
    return plan._replace(contenders=contenders)


def measure_cases(cases: list[Case], plan: Plan, command: str, *, stderr: bool) -> dict[str, Any]:
    """Measure every case and print its table at once."""
    out = sys.stderr if stderr else sys.stdout
    result = metadata(plan, command)
    print(heading(result), file=out, flush=True)
    result["cases"] = []
    for case in cases:
        result["cases"].append(measure(case, plan))
        print(f"\n{table(result['cases'][-1])}", file=out, flush=True)
    return result
