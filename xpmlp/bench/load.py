"""What a step takes while another process holds a core."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from xpmlp.bench.contest import REST, Plan, Worker, one_round
from xpmlp.bench.problems import Case

BUSY = "print(flush=True)\nwhile True: pass"


@contextmanager
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """Inside it another process, which it gives, computes without end."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield process
        finally:
            process.kill()


def loaded(case: Case, plan: Plan) -> dict[str, Any]:
    """Ours idle and beside a busy process in turn, the seconds of every round and two ratios.

    ratio: of the minima, loaded over idle; ratio_median: of the medians, which shows what comes
    and goes.
    """
    found: dict[str, list[float]] = {"idle": [], "loaded": []}
    with Worker(plan.contenders[case.task][0], plan) as worker:
        worker.ask("begin", case=case, device=plan.device, seconds=plan.seconds)
        for _ in range(plan.rounds):
            time.sleep(REST)
            found["idle"].append(one_round(worker))
            with busy():
                found["loaded"].append(one_round(worker))
    return {
        "shape": case.shape,
        **found,
        "ratio": min(found["loaded"]) / min(found["idle"]),
        "ratio_median": median(found["loaded"]) / median(found["idle"]),
    }
