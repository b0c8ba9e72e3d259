#!/usr/bin/env python
"""Run every check and measurement on a GPU that is lent for minutes, correctness first.

    python scripts/gpu_visit.py --out DIR --minutes 10
    python scripts/gpu_visit.py --out DIR --minutes 4 --only profile,steps --wheels FOLDER

It runs from a checkout, without installation. DIR gets a JSON file per phase (checks, profile,
steps, memory, benchmark; visit.json describes machine and run) and table.txt, which lists what to
fix first. All are rewritten after every result.

Exit status: 0 all passed, 1 a fault, 2 no usable GPU, a wrong argument or missing packages. A
missed goal is not a fault.
"""

import argparse
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import wheels  # noqa: E402 - needs the line above


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="results folder")
    parser.add_argument("--minutes", default=10.0, type=float, help="total (10)")
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N (gpu)")
    parser.add_argument("--seed", default=0, type=int, help="random seed (0)")
    parser.add_argument("--only", metavar="PHASE,...", help="phases, of: checks, profile, "
                        "steps, memory, benchmark")  # fmt: skip
    parser.add_argument("--jobs", default=os.cpu_count(), type=int, help="parallel checks (cores)")
    parser.add_argument("--wheels", metavar="FOLDER", type=Path, help="of wheels to import")
    parser.add_argument("--quick", action="store_true", help="small sizes, as a smoke test")
    return parser.parse_args()


def select_phases(text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    names = known if text is None else tuple(w.strip() for w in text.split(",") if w.strip())
    for name in names:
        if name not in known:
            raise ValueError(f"phase {name!r} is unknown. Known: {', '.join(known)}")
    if not names:
        raise ValueError(f"--only names no phase. Known: {', '.join(known)}")
    return names


def main(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.minutes < float("inf"):
        raise ValueError(f"--minutes must be above 0; got {arguments.minutes:g}")
    if arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1; got {arguments.jobs}")
    missing = wheels.missing()
    if missing:
        raise ImportError(wheels.message(missing))

    from benchmarks.gpu import machine, visit
    from benchmarks.gpu.groups import Device

    machine.validate_arguments(arguments.device, arguments.seed)
    phases = select_phases(arguments.only, visit.PHASES)
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = visit.Options(
        arguments.out,
        Device(arguments.device, arguments.seed, arguments.quick),
        arguments.minutes,
        arguments.jobs,
        phases,
        shlex.join(["python", "scripts/gpu_visit.py", *sys.argv[1:]]),
    )
    return visit.run(options, lambda line: print(line, flush=True))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once: the files are complete at any time
    options = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if options.wheels is not None:
                wheels.unpack(options.wheels, Path(folder))
            sys.exit(main(options))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"gpu_visit.py: {error}", file=sys.stderr)
        sys.exit(2)
