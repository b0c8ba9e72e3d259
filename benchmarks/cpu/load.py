"""Time steps while another process uses a core."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.cpu.contest import PAUSE, Plan, Worker, time_round
from benchmarks.cpu.problems import Case

BUSY = "print(flush=True)\nwhile True: pass"


@contextmanager
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that computes until the context ends."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has started
        try:
            yield process
        finally:
            process.kill()


def measure_loaded(case: Case, plan: Plan) -> dict[str, Any]:
    """Time xpmlp in turn on an idle machine, next to a busy process, and there with one thread.

    Returns the seconds of every round and their ratios to idle: each ratio is of the minima,
    each ratio_median of the medians, which show load that varies.
    """
    times: dict[str, list[float]] = {"idle": [], "loaded": [], "one_thread": []}
    ours = plan.contenders[case.task][0]
    with Worker(ours, plan) as worker, Worker(ours, plan._replace(threads=1)) as single:
        for started in (worker, single):
            started.request("begin", case=case, device=plan.device, seconds=plan.seconds)
        for _ in range(plan.rounds):
            time.sleep(PAUSE)
            times["idle"].append(time_round(worker))
            with busy_process():
                times["loaded"].append(time_round(worker))
                times["one_thread"].append(time_round(single))
    return {
        "shape": case.shape,
        **times,
        "ratio": ratio_to_idle(times, "loaded", min),
        "ratio_median": ratio_to_idle(times, "loaded", median),
        "ratio_one_thread": ratio_to_idle(times, "one_thread", min),
        "ratio_median_one_thread": ratio_to_idle(times, "one_thread", median),
    }


def ratio_to_idle(
    times: dict[str, list[float]], name: str, statistic: Callable[[list[float]], float]
) -> float:
    return statistic(times[name]) / statistic(times["idle"])
