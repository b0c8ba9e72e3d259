"""What is beneath our steps, in a process of its own: small times, and memory over 10,000 steps."""

import json
import sys
from typing import Any

from xpmlp.backends.devices import place_for
from xpmlp.backends.gpu_bench import Check, Setting, perform
from xpmlp.backends.gpu_times import CHECKS
from xpmlp.fit.gpu_memory import flat_memory

ASKED = (*CHECKS, Check(11, "flat-memory", flat_memory))


def measured(device: str, seed: int, quick: bool) -> dict[str, Any]:
    """By the name of the check: figure, verdict, detail and figures."""
    rows = perform(ASKED, Setting(place_for(device), seed, quick))
    return {row.name: row._asdict() | {"figures": dict(row.figures)} for row in rows}


if __name__ == "__main__":
    print(json.dumps(measured(**json.loads(sys.argv[1])), default=float))
