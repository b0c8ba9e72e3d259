"""`xpmlp bench`: what a training step, a population and a prediction cost on this machine."""

import argparse
import json
import shlex
import sys
from typing import Any

from xpmlp.backends.devices import default_word, place_for
from xpmlp.bench.contest import OWN, Plan, measure
from xpmlp.bench.problems import SHAPES, Case, select
from xpmlp.bench.report import heading, setting, table, usable
from xpmlp.core.names import whole

EXAMPLE = "xpmlp bench --shapes a32,c --quick"
QUICK = {"rounds": 3, "seconds": 0.05}


def add(parser: argparse.ArgumentParser) -> None:
    add_measuring(parser)
    parser.add_argument("--device", default=default_word(), help="auto, cpu, gpu, gpu:N (auto)")


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """What `scripts/benchmark.py` takes too."""
    parser.add_argument("--shapes", metavar="NAME,...", help=f"of {', '.join(SHAPES)} (all)")
    parser.add_argument("--rounds", type=int, help="turns of every contender (7; 3 if quick)")
    parser.add_argument("--threads", type=int, help="of every contender (one per processor)")
    parser.add_argument("--quick", action="store_true", help="short rounds: rough figures")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def planned(options: argparse.Namespace, device: str, **more: Any) -> Plan:
    """How to measure, as asked; ValueError naming what is out of range."""
    asked: dict[str, Any] = dict(QUICK) if options.quick else {}
    if options.rounds is not None:
        asked["rounds"] = whole(options.rounds, "--rounds")
    threads = usable() if options.threads is None else whole(options.threads, "--threads")
    return Plan(**asked, threads=threads, device=device, **more)


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


def run(options: argparse.Namespace) -> int:
    cases, place = select(options.shapes), place_for(options.device)
    plan = planned(options, place.name, contenders=OWN)
    if place.name != "cpu":
        plan = without_floor(plan)
    command = shlex.join(["xpmlp", *sys.argv[1:]])
    found = measured(cases, plan, command, aside=options.json)
    if options.json:
        print(json.dumps(found))
    return 0
