"""Microseconds per kernel of a captured step, by torch.profiler, which sees CuPy's kernels too."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.gpu.checklist.check import FIGURE, NOTE, Check, Result, Setting
from benchmarks.gpu.checklist.runs import longest, recorder, under_way
from benchmarks.gpu.checklist.steps import WARM, training

# without these CUPTI ends after a profile and crashes at the next replay of a CUDA graph; torch
# sets them for its own graphs alone
ENVIRONMENT = (("DISABLE_CUPTI_LAZY_REINIT", "1"), ("TEARDOWN_CUPTI", "0"))
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories in a trace
LAUNCHES = 10


def obstacle() -> str | None:
    """Why torch.profiler can see no kernels here; None where it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "this PyTorch sees no GPU"


def trace(work: Callable[[], object]) -> list[dict[str, Any]]:
    """What the device did in `work`, in order: the events of a Chrome trace, in microseconds."""
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
    found = [event for event in events if event.get("cat") in DEVICE_WORK]
    return sorted(found, key=lambda event: float(event["ts"]))


def attempt(work: Callable[[], object]) -> tuple[list[dict[str, Any]], str | None]:
    """The trace of `work`, or why the profiler gives none: that is no fault of ours."""
    try:
        return trace(work), None
    except Exception as error:
        return [], f"{type(error).__name__}: {error}"


def busy_us(events: Iterable[dict[str, Any]]) -> float:
    """Microseconds in which at least one event, in order of their beginnings, was running."""
    total, end = 0.0, float("-inf")
    for event in events:
        begin, finish = float(event["ts"]), float(event["ts"]) + float(event["dur"])
        total += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return total


def by_kernel(events: Iterable[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Calls and microseconds per step of every kernel and launch shape, longest first."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        shape = event.get("args", {})
        key = event["name"], str(shape.get("grid", "")), str(shape.get("block", ""))
        found[key].append(float(event["dur"]))
    total = sum(map(sum, found.values())) or 1.0
    rows = [
        {"kernel": name, "grid": grid, "block": block, "calls": len(durations) / steps,
         "us": sum(durations) / steps, "us_each": sum(durations) / len(durations),
         "share": sum(durations) / total}
        for (name, grid, block), durations in found.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["us"])


def profiled(name: str) -> Callable[[Setting], Result]:
    """The check of a training's kernels: one captured graph, replayed under the profiler."""

    def check(on: Setting) -> Result:
        why = obstacle() or attempt(lambda: None)[1]  # CUPTI must be there before the capture
        if why:
            return Result("no kernels seen", verdict=NOTE, detail=why)
        trainer = training(on, name).run(on)
        with under_way(trainer) as coming:
            for _ in islice(coming, WARM):
                pass
            steps, recorded = longest(trainer)

            def replay() -> None:
                for _ in range(LAUNCHES):
                    recorded.launch()
                on.place.device.synchronize()

            with recorder(trainer).open():
                recorded.launch()
                events, why = attempt(replay)
        if not events:
            return Result("no kernels seen", verdict=NOTE, detail=why or "the trace has no kernels")
        kernels = by_kernel(events, steps * LAUNCHES)
        span = float(events[-1]["ts"]) + float(events[-1]["dur"]) - float(events[0]["ts"])
        figures = {
            "kernels": kernels,
            "summed_us": sum(row["us"] for row in kernels),
            "busy_us": busy_us(events) / steps / LAUNCHES,
            "span_us": span / steps / LAUNCHES,
            "streams": len({event.get("args", {}).get("stream") for event in events}),
        }
        shown = (
            f"{figures['summed_us']:.1f} us in {sum(row['calls'] for row in kernels):.4g} kernels, "
            f"{figures['busy_us']:.1f} busy of {figures['span_us']:.1f}"
        )
        return Result(shown, verdict=FIGURE, figures=figures)

    return check


CHECKS = tuple(
    Check(10, f"profile-{name}", profiled(name)) for name in ("small", "large", "population")
)
