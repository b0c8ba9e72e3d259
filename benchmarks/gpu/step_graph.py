"""A captured step alone: its time, the nodes of its CUDA graph, and how many depend on each other.

XPMLP_WITHOUT, a list out of `FEATURES`, is read when a trainer is made:
the same check in a process with that variable says what each of them gains.
"""

import os
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.checklist.check import FIGURE, Check, Result, Setting, depth, nodes
from benchmarks.gpu.checklist.runs import longest, under_way
from benchmarks.gpu.checklist.steps import measured, training

WITHOUT = "XPMLP_WITHOUT"
PARTS = ("branches", "epilogues", "accounts", "kernels")


def per_step(steps: int, graph: Any) -> dict[str, Any]:
    """Nodes and dependent nodes per step of a graph of `steps` steps; None where it cannot say."""
    found: dict[str, Any] = {"kinds": None, "nodes": None, "depth": None}
    try:
        kinds = nodes(graph)
        found["kinds"] = {kind: count / steps for kind, count in kinds.items()}
        found["nodes"] = kinds.total() / steps
        found["depth"] = depth(graph) / steps
    except Exception as error:  # the times are worth having without
        found["problem"] = f"{type(error).__name__}: {error}"
    return found


def captured_step(name: str) -> Callable[[Setting], Result]:
    def check(on: Setting) -> Result:
        trainer = training(on, name).run(on)
        with under_way(trainer) as coming:
            times = measured(trainer, coming, 3 if on.quick else 9)
            steps, recorded = longest(trainer)
            graph = per_step(steps, recorded.graph)
        shown = [f"{times.step:.1f} us ({times.epoch:.1f} over epochs)"]
        shown += [f"{graph[key]:.4g} {key}" for key in ("nodes", "depth") if graph[key] is not None]
        figures = {"without": os.environ.get(WITHOUT, ""), **times._asdict(), "graph": graph}
        return Result(", ".join(shown), verdict=FIGURE, figures=figures)

    return check


CHECKS = (Check(11, "captured-step", captured_step("small")),)
