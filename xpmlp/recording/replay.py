"""The steps of a trainer on NumPy, recorded once as a list of calls and replayed.

A small network's step is mostly Python. Its calls are the same every time, on buffers that do
not move: so the first step is recorded while it runs, and the steps after it are the calls alone.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from xpmlp.recording.executors import EagerExecutor, Gather, Step, StepCounter
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.recording.tape import Tape, TapedArray, UntapeableError


class ReplayExecutor:
    """An executor that records the first step and replays it."""

    def __init__(self, backend: NumpyBackend) -> None:
        self.name, self.backend, self.eager = "replayed", backend, EagerExecutor()
        self.replay: Callable[..., None] | None = None

    def window(self, steps: int, size: int) -> int:
        return self.eager.window(steps, size)

    def open(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        window, first = gather(), 0
        if self.name == "replayed" and self.replay is None:
            first = self.record(step, window)
        replay = self.replay
        if replay is None:
            for t in counter.steps(window.steps, first):
                step(window, t)
            return
        arrays = [part for part in window if not isinstance(part, float)]
        for t in counter.steps(window.steps, first):
            replay(*[part[t] for part in arrays])

    def record(self, step: Step, window: Any) -> int:
        """Record a step while it runs; the number of steps done: 1, or 0 where it cannot be."""
        saved = [np.array(buffer) for buffer in step.buffers]
        tape = Tape(self.backend)
        recorded: Any = copy.copy(step)
        for name, value in vars(step).items():
            setattr(recorded, name, tape.wrap(value))
        recorded.engine = recorded.engine._replace(xp=tape.xp, apply=tape.apply)
        names: list[str] = []
        parts: list[Any] = []
        for name, part in zip(window._fields, window, strict=True):
            if isinstance(part, float):
                parts.append(part)
                continue
            names.append(f"m_{name}")
            parts.append(SingleMinibatch(TapedArray(tape, np.asarray(part[0]), names[-1])))
        try:
            recorded(type(window)(*parts), 0)
            self.replay = tape.function(names)
            return 1
        except BaseException as error:
            for buffer, value in zip(step.buffers, saved, strict=True):
                buffer[...] = value
            if not isinstance(error, UntapeableError | AttributeError | TypeError):
                raise
            self.name = self.eager.name
            return 0

    def close(self) -> None:
        self.replay = None


class SingleMinibatch:
    """An array of a window of one minibatch."""

    def __init__(self, minibatch: TapedArray) -> None:
        self.minibatch = minibatch

    def __getitem__(self, key: Any) -> TapedArray:
        return self.minibatch
