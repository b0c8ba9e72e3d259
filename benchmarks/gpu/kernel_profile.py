"""Microseconds per kernel of a captured step, by torch.profiler, which sees CuPy's kernels too."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.gpu.checklist.check import FIGURE, NOTE, Check, Result, Setting
from benchmarks.gpu.checklist.runs import longest_graph, open_reports, recorder
from benchmarks.gpu.checklist.steps import WARMUP_EPOCHS, training

# without these CUPTI shuts down after a profile and crashes at the next replay of a CUDA graph;
# torch sets them only for its own graphs
ENVIRONMENT = (("DISABLE_CUPTI_LAZY_REINIT", "1"), ("TEARDOWN_CUPTI", "0"))
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories in a trace
LAUNCHES = 10


def obstacle() -> str | None:
    """Why torch.profiler cannot see kernels here; None if it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "this PyTorch sees no GPU"


def trace(work: Callable[[], object]) -> list[dict[str, Any]]:
    """The device's events during `work`, in order, as in a Chrome trace, in microseconds."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(errors="replace"))["traceEvents"]
    device_events = [event for event in events if event.get("cat") in DEVICE_WORK]
    return sorted(device_events, key=lambda event: float(event["ts"]))


def attempt(work: Callable[[], object]) -> tuple[list[dict[str, Any]], str | None]:
    """The trace of `work`, or the profiler's error, which is not a fault of xpmlp."""
    try:
        return trace(work), None
    except Exception as error:
        return [], f"{type(error).__name__}: {error}"


def busy_us(events: Iterable[dict[str, Any]]) -> float:
    """Microseconds in which at least one event was running; `events` are sorted by start."""
    total, end = 0.0, float("-inf")
    for event in events:
        start, stop = float(event["ts"]), float(event["ts"]) + float(event["dur"])
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def by_kernel(events: Iterable[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Calls and microseconds per step of every kernel and launch shape, longest first."""
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        shape = event.get("args", {})
        key = event["name"], str(shape.get("grid", "")), str(shape.get("block", ""))
        groups[key].append(float(event["dur"]))
    total = sum(map(sum, groups.values())) or 1.0
    rows = [
        {"kernel": name, "grid": grid, "block": block, "calls": len(durations) / steps,
         "us": sum(durations) / steps, "us_each": sum(durations) / len(durations),
         "share": sum(durations) / total}
        for (name, grid, block), durations in groups.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["us"])


def profile_check(name: str) -> Callable[[Setting], Result]:
    """The check of a training's kernels: one captured graph, replayed under the profiler."""

    def check(env: Setting) -> Result:
        problem = obstacle() or attempt(lambda: None)[1]  # CUPTI must start before the capture
        if problem:
            return Result("no kernels seen", verdict=NOTE, detail=problem)
        trainer = training(env, name).new_trainer(env)
        with open_reports(trainer) as reports:
            for _ in islice(reports, WARMUP_EPOCHS):
                pass
            steps, graph = longest_graph(trainer)

            def replay() -> None:
                for _ in range(LAUNCHES):
                    graph.launch()
                env.place.device.synchronize()

            with recorder(trainer).open():
                graph.launch()
                events, problem = attempt(replay)
        if not events:
            detail = problem or "the trace has no kernels"
            return Result("no kernels seen", verdict=NOTE, detail=detail)
        kernels = by_kernel(events, steps * LAUNCHES)
        span = float(events[-1]["ts"]) + float(events[-1]["dur"]) - float(events[0]["ts"])
        figures = {
            "kernels": kernels,
            "summed_us": sum(row["us"] for row in kernels),
            "busy_us": busy_us(events) / steps / LAUNCHES,
            "span_us": span / steps / LAUNCHES,
            "streams": len({event.get("args", {}).get("stream") for event in events}),
        }
        text = (
            f"{figures['summed_us']:.1f} us in {sum(row['calls'] for row in kernels):.4g} kernels, "
            f"{figures['busy_us']:.1f} busy of {figures['span_us']:.1f}"
        )
        return Result(text, verdict=FIGURE, figures=figures)

    return check


CHECKS = tuple(
    Check(10, f"profile-{name}", profile_check(name)) for name in ("small", "large", "population")
)
