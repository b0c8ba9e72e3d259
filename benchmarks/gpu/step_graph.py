"""A captured step: its time, the nodes of its CUDA graph, and the longest path of dependent nodes.

XPMLP_WITHOUT, a list of `FEATURES`, is read when a trainer is created: the same check in a
process with that variable shows the gain of each feature.
"""

import os
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.checklist.check import FIGURE, Check, Result, Setting, depth, nodes
from benchmarks.gpu.checklist.runs import longest_graph, open_reports
from benchmarks.gpu.checklist.steps import time_reports, training

WITHOUT = "XPMLP_WITHOUT"
PARTS = ("branches", "epilogues", "accounts", "kernels")


def per_step(steps: int, graph: Any) -> dict[str, Any]:
    """Nodes and depth per step of a graph of `steps` steps; None if they are unknown."""
    counts: dict[str, Any] = {"kinds": None, "nodes": None, "depth": None}
    try:
        kinds = nodes(graph)
        counts["kinds"] = {kind: count / steps for kind, count in kinds.items()}
        counts["nodes"] = kinds.total() / steps
        counts["depth"] = depth(graph) / steps
    except Exception as error:  # the times are still useful
        counts["problem"] = f"{type(error).__name__}: {error}"
    return counts


def captured_step(name: str) -> Callable[[Setting], Result]:
    def check(env: Setting) -> Result:
        trainer = training(env, name).new_trainer(env)
        with open_reports(trainer) as reports:
            times = time_reports(trainer, reports, 3 if env.quick else 9)
            steps, recorded = longest_graph(trainer)
            graph = per_step(steps, recorded.graph)
        texts = [f"{times.step:.1f} us ({times.epoch:.1f} over epochs)"]
        texts += [f"{graph[key]:.4g} {key}" for key in ("nodes", "depth") if graph[key] is not None]
        figures = {"without": os.environ.get(WITHOUT, ""), **times._asdict(), "graph": graph}
        return Result(", ".join(texts), verdict=FIGURE, figures=figures)

    return check


CHECKS = (Check(11, "captured-step", captured_step("small")),)
