#!/usr/bin/env python
"""The GPU path held against the CPU, one row per check; needs a GPU, CuPy and nvmath.

    python scripts/gpu_check.py
    python scripts/gpu_check.py --only gemm-out,replays,11 --out result.json

Exit status: 0 all well, 1 a fault, 2 no usable GPU or a wrong argument.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from xpmlp import __version__
from xpmlp.backends import gpu_machine, gpu_products, gpu_times
from xpmlp.backends.devices import place_for
from xpmlp.backends.gpu_bench import FAULT, Check, Row, Setting, perform
from xpmlp.core.names import nearest
from xpmlp.fit import gpu_fusion, gpu_memory, gpu_steps, gpu_trainings

ROOMS = (
    gpu_machine, gpu_products, gpu_times, gpu_trainings, gpu_memory, gpu_fusion, gpu_steps,
)  # fmt: skip
CHECKS = tuple(
    sorted((check for room in ROOMS for check in room.CHECKS), key=lambda check: check.number)
)


def select(checks: Sequence[Check], asked: str | None) -> list[Check]:
    """The checks of these names or numbers; ValueError naming an unknown one and the nearest."""
    if asked is None:
        return list(checks)
    wanted = [word.strip() for word in asked.split(",") if word.strip()]
    names = [check.name for check in checks]
    known = {*names, *(str(check.number) for check in checks)}
    for word in wanted:
        if word not in known:
            hint = nearest(word, names)
            raise ValueError(f"check {word!r} is unknown{hint} Known: {', '.join(names)}")
    if not wanted:
        raise ValueError(f"--only names no check. Known: {', '.join(names)}")
    return [check for check in checks if {check.name, str(check.number)} & set(wanted)]


def shown(row: Row) -> str:
    """A row of the table, what is to be said of it beneath."""
    columns = f"{row.number:>2}  {row.name:<20} {row.figure:<46} {row.allowed:<9}"
    line = f"{columns} {row.verdict:<7} {row.seconds:>6.1f}"
    return f"{line}\n    {row.verdict}: {row.detail}" if row.detail else line


def run(checks: Sequence[Check], setting: Setting, result: dict, table: TextIO, out: str | None):
    """Every check, printed and written as soon as it is done; the result with the rows in it."""
    head = f"{'no':>2}  {'check':<20} {'figure':<46} {'allowed':<9} {'verdict':<7} {'sec':>6}"
    print(head, file=table, flush=True)
    result["checks"] = []
    for row in perform(checks, setting):
        print(shown(row), file=table, flush=True)
        result["checks"].append({**row._asdict(), "figures": dict(row.figures)})
        result["faults"] = sum(entry["verdict"] == FAULT for entry in result["checks"])
        if out:  # after every row: a crash leaves what was found before it
            Path(out).write_text(json.dumps(result, indent=1, default=str) + "\n")
    seconds = sum(entry["seconds"] for entry in result["checks"])
    found = f"{result['faults']} faults in {len(checks)} checks"
    print(f"{found}, {seconds:.0f} s", file=table, flush=True)
    return result


def main(checks: Sequence[Check] = CHECKS) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N (gpu)")
    parser.add_argument("--seed", default=0, type=int, help="of all that is drawn (0)")
    parser.add_argument("--only", metavar="NAME,...", help="these checks, by name or number")
    parser.add_argument("--quick", action="store_true", help="fewer cases and replays")
    parser.add_argument("--out", metavar="FILE", help="write the result there as JSON")
    parser.add_argument("--json", action="store_true", help="the result on standard output")
    options = parser.parse_args()
    chosen = select(checks, options.only)
    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0; got {options.seed}")
    if not options.device.startswith(("gpu", "cuda")):
        raise ValueError(f"--device must be gpu or gpu:N; got {options.device!r}")
    place = place_for(options.device)
    result = {
        "xpmlp": __version__,
        "commit": gpu_machine.commit(Path(__file__).resolve().parent),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": place.name,
        "seed": options.seed,
        "quick": options.quick,
        "machine": gpu_machine.identity(place),
    }
    table = sys.stderr if options.json else sys.stdout
    setting = Setting(place, options.seed, options.quick)
    run(chosen, setting, result, table, options.out)
    if options.json:
        print(json.dumps(result, default=str))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"gpu_check.py: {error}", file=sys.stderr)
        sys.exit(2)
