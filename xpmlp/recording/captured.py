"""The steps of a window of minibatches, recorded once as a CUDA graph and replayed.

A graph works on the very arrays that it was recorded with: each window of an epoch is copied
into one at a fixed address, and the buffers that a step changes do not move either. Python
runs a step once, while it is recorded; what differs from step to step must be in arrays.
"""

import warnings
from collections.abc import Callable
from typing import Any

from xpmlp.devices.branches import Branches
from xpmlp.devices.graphs import GraphStream, RecordedGraph, error_summary
from xpmlp.devices.namespace import Place, running
from xpmlp.recording.executors import EagerExecutor, Gather, Step, StepCounter


class CaptureWarning(UserWarning):
    """Steps could not be recorded as a CUDA graph; training continues without it."""


class CudaGraphExecutor:
    """An executor that records the steps of a window, once for each length of window."""

    MAX_STEPS = 16  # in a graph, to share the cost of a launch: that of some ten kernels
    WINDOW_SIZE = 2**26  # elements in a window
    STREAMS = 1 + Branches.COUNT  # each with a workspace of its own for products

    def __init__(self, place: Place, cuda: Any, release: Callable[[], Any] = lambda: None) -> None:
        """release: frees what the backend of the steps allocated."""
        self.release = release
        self.name = "captured"
        self.graph_stream = GraphStream(place, cuda)
        self.pools: list[Any] = []  # one per graph: a pool that runs out frees its blocks
        self.graphs: dict[int, tuple[RecordedGraph, Any, Any]] = {}  # by steps in the window

    def window(self, steps: int, size: int) -> int:
        return min(steps, self.MAX_STEPS, max(1, self.WINDOW_SIZE // size))

    def open(self) -> Any:
        return self.graph_stream.open()

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        window = gather()
        if self.name == "captured" and window.steps not in self.graphs:
            self.record(step, window)
        if self.name != "captured":
            return EagerExecutor().run(step, lambda: window, counter)
        recorded, fixed, _ = self.graphs[window.steps]
        for place, fresh in zip(fixed, window, strict=True):
            if not isinstance(place, float):
                place[...] = fresh
        recorded.launch()
        counter.in_epoch += window.steps
        return None

    def record(self, step: Step, window: Any) -> None:
        """Record a window's steps; where that fails, warn and restore the buffers."""
        xp, buffers = self.graph_stream.place.xp, step.buffers
        saved: list[Any] = []

        def restore() -> None:
            for buffer, value in zip(buffers, saved, strict=False):
                buffer[...] = value

        def warm_up() -> None:
            steps()
            restore()

        def steps() -> None:
            for t in range(fixed.steps):
                step(fixed, t)

        try:
            saved += [xp.asarray(buffer, copy=True) for buffer in buffers]
            parts = (p if isinstance(p, float) else xp.asarray(p, copy=True) for p in window)
            fixed = type(window)(*parts)
            self.pools.append(self.graph_stream.cuda.MemoryPool())
            recorded = self.graph_stream.record(steps, warm_up, self.pools[-1])
            # the step holds every other array that the graph reads
            self.graphs[window.steps] = (recorded, fixed, step)
        except BaseException as error:
            restore()
            if not isinstance(error, Exception):
                raise
            self.name = EagerExecutor.name
            self.close()
            warnings.warn(
                "the steps of this training run one by one, because they could not be recorded "
                f"as a CUDA graph: {error_summary(error)}",
                CaptureWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Drop the graphs, and only then free their memory."""
        self.graph_stream.close()
        self.graphs.clear()
        self.release()
        with running(self.graph_stream.place):
            for pool in self.pools:
                pool.free_all_blocks()
