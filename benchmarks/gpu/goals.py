"""What is to be reached, beside what was measured."""

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
    """A contender's microseconds per step over whole epochs; None where it has none."""

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


def milliseconds(result: Result) -> float | None:
    found = epoch("large", CAPTURED)(result)
    return None if found is None else found / 1e3


def lost(result: Result) -> float | None:
    """Bytes of the card and of the pool that 10,000 steps took, in MiB."""
    found = result.get("beneath", {}).get("flat-memory", {}).get("figures", {})
    return (max(found["lost"], 0) + found["grown"]) / 2**20 if "lost" in found else None


GOALS = (
    Goal("small", "us a step", "at most", 70, epoch("small", CAPTURED)),
    Goal("small", "us a step, the first milestone", "at most", 130, epoch("small", CAPTURED)),
    Goal("small", "times as fast as PyTorch eager", "at least", 4,
         ratio("small", EAGER, CAPTURED)),
    Goal("small", "of the time of PyTorch's own CUDA graph", "at most", 1.15,
         ratio("small", CAPTURED, GRAPH)),
    Goal("large", "ms a step", "at most", 3.2, milliseconds),
    Goal("large", "of the time of torch.compile", "at most", 1.1,
         ratio("large", CAPTURED, COMPILED)),
    Goal("population", "times as fast as PyTorch eager, one network after another", "at least", 20,
         ratio("population", EAGER, CAPTURED)),
    Goal("small", "MiB of GPU memory taken by 10,000 steps", "at most", 2, lost),
)  # fmt: skip


def judged(result: Result) -> list[dict[str, Any]]:
    """Every goal with what was measured and its verdict: met, missed, not measured."""
    found = []
    for goal in GOALS:
        measured, verdict = goal.measured(result), "not measured"
        if measured is not None:
            over = measured <= goal.allowed if goal.side == "at most" else measured >= goal.allowed
            verdict = "met" if over else "missed"
        found.append(
            {"work": goal.work, "text": goal.text, "side": goal.side, "allowed": goal.allowed,
             "measured": measured, "verdict": verdict}
        )  # fmt: skip
    return found
