"""What a step takes while another process holds a core."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.cpu.contest import REST, Plan, Worker, one_round
from benchmarks.cpu.problems import Case

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
    """Ours idle, beside a busy process, and there with one thread, in turn: the seconds of every
    round, and the ratios to idle.

    Each ratio is of the minima, and each ratio_median of the medians, which show what comes and
    goes.
    """
    found: dict[str, list[float]] = {"idle": [], "loaded": [], "one_thread": []}
    ours = plan.contenders[case.task][0]
    with Worker(ours, plan) as worker, Worker(ours, plan._replace(threads=1)) as spared:
        for each in (worker, spared):
            each.ask("begin", case=case, device=plan.device, seconds=plan.seconds)
        for _ in range(plan.rounds):
            time.sleep(REST)
            found["idle"].append(one_round(worker))
            with busy():
                found["loaded"].append(one_round(worker))
                found["one_thread"].append(one_round(spared))
    return {
        "shape": case.shape,
        **found,
        "ratio": to_idle(found, "loaded", min),
        "ratio_median": to_idle(found, "loaded", median),
        "ratio_one_thread": to_idle(found, "one_thread", min),
        "ratio_median_one_thread": to_idle(found, "one_thread", median),
    }


def to_idle(found: dict[str, list[float]], name: str, of: Callable[[list[float]], float]) -> float:
    return of(found[name]) / of(found["idle"])
