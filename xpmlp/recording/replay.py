"""The steps of a trainer on NumPy, noted once as a list of calls and replayed.

A small network's step is mostly Python. Its calls are the same every time, on buffers that do
not move: so the first step is noted while it is made, and the steps after it are the calls alone.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from xpmlp.recording.executors import EagerExecutor, Gather, Step, StepCounter
from xpmlp.recording.numpy_writer import Workspace
from xpmlp.recording.tape import Tape, Taped, UntapedError


class ReplayExecutor:
    """An executor that notes the first step and replays it."""

    def __init__(self, workspace: Workspace) -> None:
        self.name, self.workspace, self.eager = "replayed", workspace, EagerExecutor()
        self.replay: Callable[..., None] | None = None

    def window(self, steps: int, numbers: int) -> int:
        return self.eager.window(steps, numbers)

    def open(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        window, first = gather(), 0
        if self.name == "replayed" and self.replay is None:
            first = self.record(step, window)
        replay = self.replay
        if replay is None:
            for t in counter.turns(window.steps, first):
                step(window, t)
            return
        arrays = [part for part in window if not isinstance(part, float)]
        for t in counter.turns(window.steps, first):
            replay(*[part[t] for part in arrays])

    def record(self, step: Step, window: Any) -> int:
        """Note a step while it is made; how many steps were made."""
        saved = [np.array(buffer) for buffer in step.buffers]
        tape = Tape(self.workspace)
        shadow: Any = copy.copy(step)
        for name, value in vars(step).items():
            setattr(shadow, name, tape.taped(value))
        shadow.engine = shadow.engine._replace(xp=tape.xp, apply=tape.apply)
        names: list[str] = []
        parts: list[Any] = []
        for name, part in zip(window._fields, window, strict=True):
            if isinstance(part, float):
                parts.append(part)
                continue
            names.append(f"m_{name}")
            parts.append(Batched(Taped(tape, np.asarray(part[0]), names[-1])))
        try:
            shadow(type(window)(*parts), 0)
            self.replay = tape.function(names)
            return 1
        except BaseException as error:
            for buffer, value in zip(step.buffers, saved, strict=True):
                buffer[...] = value
            if not isinstance(error, UntapedError | AttributeError | TypeError):
                raise
            self.name = self.eager.name
            return 0

    def close(self) -> None:
        self.replay = None


class Batched:
    """A window's array that has but one minibatch."""

    def __init__(self, only: Taped) -> None:
        self.only = only

    def __getitem__(self, key: Any) -> Taped:
        return self.only
