#!/usr/bin/env python
"""Compare the CPU with another device: the same trainings, their losses and differences.

python scripts/parity.py --device gpu
python scripts/parity.py --device torch     # PyTorch's tensors on the CPU
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.gpu.checklist.parity import DTYPES, difference  # noqa: E402 - needs the line above
from benchmarks.parity import CASES  # noqa: E402
from xpmlp.devices.extras import import_extra  # noqa: E402
from xpmlp.devices.namespace import Place  # noqa: E402
from xpmlp.devices.words import default_word, place_for  # noqa: E402

NAMESPACES = {"torch": "array_api_compat.torch", "strict": "array_api_strict"}


def find_place(word: str) -> Place:
    """The place of a device word, or of one of NAMESPACES."""
    if word in NAMESPACES:
        import_extra({"torch": "torch", "strict": "array_api_strict"}[word], "test")
        return Place(import_module(NAMESPACES[word]), None, word)
    return place_for(word)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=default_word(), help="gpu, gpu:N, torch, strict (auto)")
    parser.add_argument("--seed", default=0, type=int, help="of weights, orders, dropout (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    place = find_place(options.device)
    if place.name == "cpu":
        raise ValueError("cpu would be compared with itself: give --device gpu, torch or strict")
    out = sys.stderr if options.json else sys.stdout
    print(f"device {place.name}, against cpu", file=out)
    head = f"{'training':<36} {'dtype':<8} {'compared':<11} {'loss cpu':>11} {'loss there':>11}"
    print(f"{head} {'difference':>10} {'allowed':>8}", file=out)
    rows = []
    for dtype in DTYPES:
        for case in CASES:
            row = difference(place, case, dtype, options.seed)
            rows.append(row)
            print(
                f"{row.case:<36} {dtype:<8} {row.what:<11} {row.here:>11.6f} {row.there:>11.6f} "
                f"{row.largest:>10.1e} {row.allowed:>8.0e}{'' if row.passed else '  <- differs'}",
                file=out,
            )
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} agree", file=out)
    if options.json:
        entries = [row._asdict() | {"passed": row.passed} for row in rows]
        print(json.dumps({"device": place.name, "seed": options.seed, "rows": entries}))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"parity.py: {error}", file=sys.stderr)
        sys.exit(2)
