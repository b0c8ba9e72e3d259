"""Goals, and their comparison with the measurements."""

from collections.abc import Callable
from typing import Any, NamedTuple

Result = dict[str, Any]  # of scripts/benchmark_gpu.py
CAPTURED = ("xpmlp", "captured")
EAGER = ("PyTorch", "eager")
COMPILED = ("PyTorch", "compiled, fused Adam")
GRAPH = ("PyTorch", "CUDA graph, fused Adam")


class Goal(NamedTuple):
    """A figure to reach."""

    work: str
    text: str
    side: str  # "at most" or "at least"
    allowed: float
    measured: Callable[[Result], float | None]


def epoch(work: str, contender: tuple[str, str]) -> Callable[[Result], float | None]:
    """From a result to a contender's microseconds per step over whole epochs, if measured."""

    def find(result: Result) -> float | None:
        for entry in result["works"]:
            for row in entry["rows"]:
                if (entry["name"], row["library"], row["variant"]) == (work, *contender):
                    return row.get("epoch")
        return None

    return find


def ratio(
    work: str, above: tuple[str, str], below: tuple[str, str]
) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        pair = epoch(work, above)(result), epoch(work, below)(result)
        return None if pair[0] is None or pair[1] is None else pair[0] / pair[1]

    return find


def large_step_ms(result: Result) -> float | None:
    microseconds = epoch("large", CAPTURED)(result)
    return None if microseconds is None else microseconds / 1e3


def memory_growth(result: Result) -> float | None:
    """Memory of the card and of the pool that 10,000 steps took, in MiB."""
    figures = result.get("beneath", {}).get("flat-memory", {}).get("figures", {})
    return (max(figures["lost"], 0) + figures["grown"]) / 2**20 if "lost" in figures else None


GOALS = (
    Goal("small", "us a step", "at most", 70, epoch("small", CAPTURED)),
    Goal("small", "us a step, the first milestone", "at most", 130, epoch("small", CAPTURED)),
    Goal("small", "times as fast as PyTorch eager", "at least", 4,
         ratio("small", EAGER, CAPTURED)),
    Goal("small", "of the time of PyTorch's own CUDA graph", "at most", 1.15,
         ratio("small", CAPTURED, GRAPH)),
    Goal("large", "ms a step", "at most", 3.2, large_step_ms),
    Goal("large", "of the time of torch.compile", "at most", 1.1,
         ratio("large", CAPTURED, COMPILED)),
    Goal("population", "times as fast as PyTorch eager, one network after another", "at least", 20,
         ratio("population", EAGER, CAPTURED)),
    Goal("small", "MiB of GPU memory taken by 10,000 steps", "at most", 2, memory_growth),
)  # fmt: skip


def evaluate_goals(result: Result) -> list[dict[str, Any]]:
    """Every goal with its measured value and its verdict: met, missed, not measured."""
    entries = []
    for goal in GOALS:
        measured, verdict = goal.measured(result), "not measured"
        if measured is not None:
            met = measured <= goal.allowed if goal.side == "at most" else measured >= goal.allowed
            verdict = "met" if met else "missed"
        entries.append(
            {"work": goal.work, "text": goal.text, "side": goal.side, "allowed": goal.allowed,
             "measured": measured, "verdict": verdict}
        )  # fmt: skip
    return entries
