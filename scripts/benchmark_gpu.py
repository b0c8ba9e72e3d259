#!/usr/bin/env python
"""Training steps on a GPU: xpmlp against PyTorch and JAX where they are installed.

    python scripts/benchmark_gpu.py --out benchmarks/results/gpu-NAME.json
    python scripts/benchmark_gpu.py --only small,population --quick

Every contender is a process of its own. It first learns twenty minibatches in float64; one that
comes to other weights, or whose products are not at the asked precision, gets no time. The first
column is a step over whole epochs, rows gathered and losses read; the second the step alone.

Exit status: 0 all agree, 1 a contender computes something else or failed, 2 no usable GPU or a
wrong argument; a library that is not installed is no failure.
"""

import argparse
import json
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.gpu import report  # noqa: E402 - found by the line above
from benchmarks.gpu.contender import LIBRARIES, Asked, reference  # noqa: E402
from benchmarks.gpu.goals import judged  # noqa: E402
from benchmarks.gpu.processes import alone  # noqa: E402
from benchmarks.gpu.works import WORKS, Work  # noqa: E402
from xpmlp import __version__  # noqa: E402
from xpmlp.backends.devices import place_for  # noqa: E402
from xpmlp.backends.gpu_bench import FAULT  # noqa: E402
from xpmlp.backends.gpu_machine import commit, identity  # noqa: E402
from xpmlp.core.names import nearest  # noqa: E402

ABSENT = "-"  # the one variant of a library that is not installed


def select(asked: str | None) -> list[Work]:
    """The works of these names; ValueError naming an unknown one and the nearest."""
    names = [work.name for work in WORKS]
    wanted = names if asked is None else [word.strip() for word in asked.split(",") if word.strip()]
    for word in wanted:
        if word not in names:
            hint = nearest(word, names)
            raise ValueError(f"work {word!r} is unknown{hint} Known: {', '.join(names)}")
    if not wanted:
        raise ValueError(f"--only names no work. Known: {', '.join(names)}")
    return [work for work in WORKS if work.name in wanted]


def variants(library: str, work: Work) -> list[str]:
    """A library's contenders on a work."""
    try:
        return list(import_module(f"benchmarks.gpu.{library}").variants(work.members))
    except ModuleNotFoundError:
        return [ABSENT]


def contest(work: Work, result: dict[str, Any], options: argparse.Namespace, out: TextIO) -> None:
    """Measure every contender on a work, each row printed and kept as soon as it is there."""
    rows: list[dict[str, Any]] = []
    made = work.quick() if options.quick else work
    result["works"].append({**made._asdict(), "title": made.title, "rows": rows})
    print(report.head(made), file=out, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "reference.npy"
        np.save(wanted, reference(made, options.seed))
        for library in LIBRARIES:
            for variant in variants(library, work):
                asked = Asked(
                    library, variant, work.name, result["device"], options.seed,
                    3 if options.quick else 9, options.quick, str(wanted),
                )  # fmt: skip
                named = {"library": LIBRARIES[library], "variant": variant}
                rows.append(named | alone("contender", asked._asdict()))
                print(report.line(rows[-1], rows[0]), file=out, flush=True)
                keep(result, options.out)


def keep(result: dict[str, Any], path: str | None) -> None:
    """Write the result as it is by now: a crash leaves what was found before it."""
    result["goals"] = judged(result)
    if path:
        Path(path).write_text(json.dumps(result, indent=1, default=str) + "\n")


def run(options: argparse.Namespace, out: TextIO) -> dict[str, Any]:
    """Every contender on every work, then what is beneath; the result."""
    chosen = select(options.only)
    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0; got {options.seed}")
    if not options.device.startswith(("gpu", "cuda")):
        raise ValueError(f"--device must be gpu or gpu:N; got {options.device!r}")
    place = place_for(options.device)
    result: dict[str, Any] = {
        "xpmlp": __version__,
        "commit": commit(ROOT),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "scripts/benchmark_gpu.py", *sys.argv[1:]]),
        "device": place.name,
        "seed": options.seed,
        "quick": options.quick,
        "machine": identity(place),
        "works": [],
    }
    print(report.heading(result), file=out)
    for work in chosen:
        contest(work, result, options, out)
    asked = {"device": place.name, "seed": options.seed, "quick": options.quick}
    result["beneath"] = alone("beneath", asked)
    keep(result, options.out)
    print("\n".join(report.beneath(result["beneath"])), file=out)
    print("\nto be reached, over whole epochs", file=out)
    for entry in result["goals"]:
        print(report.goal(entry), file=out)
    return result


def failed(result: dict[str, Any]) -> bool:
    """Whether anything went wrong; a library that is not installed is nothing wrong."""
    rows = [row for work in result["works"] for row in work["rows"] if row["variant"] != ABSENT]
    beneath = result["beneath"]
    if any("problem" in entry for entry in (*rows, beneath)):
        return True
    return any(row["verdict"] == FAULT for row in beneath.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N (gpu)")
    parser.add_argument("--seed", default=0, type=int, help="of all that is drawn (0)")
    parser.add_argument("--only", metavar="NAME,...", help="these works: small, large, population")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rows and networks")
    parser.add_argument("--out", metavar="FILE", help="write the result there as JSON")
    parser.add_argument("--json", action="store_true", help="the result on standard output")
    options = parser.parse_args()
    result = run(options, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result, default=str))
    return 1 if failed(result) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"benchmark_gpu.py: {error}", file=sys.stderr)
        sys.exit(2)
