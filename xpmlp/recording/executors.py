"""How the steps of a training are run: one after the other here, as a list of calls in `replay`,
as a CUDA graph in `captured`, on shards of a population in `sharded`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from xpmlp.devices.threads import limited
from xpmlp.types import Array

Gather = Callable[..., Any]  # a window of minibatches, of the members of an index if given one
EXECUTORS = ("eager", "replayed", "captured")  # what a history says of them


class Step(Protocol):
    """A step that an executor runs: called with a window and t, it makes update t of it."""

    @property
    def buffers(self) -> tuple[Array, ...]:
        """All that a step changes."""

    def __call__(self, window: Any, t: int) -> None: ...


class StepCounter:
    """How many steps of an epoch are done, and whether a signal asks to stop."""

    def __init__(self) -> None:
        self.in_epoch = 0
        self.stop_signal = 0  # the signal's number

    def turns(self, steps: int, first: int = 0) -> Iterator[int]:
        """The steps of a window in turn, until a signal asks to stop; the first are done."""
        self.in_epoch += first
        for t in range(first, steps):
            yield t
            self.in_epoch += 1
            if self.stop_signal:
                return


class Executor(Protocol):
    """A way to run steps, a window of minibatches at a time."""

    @property
    def name(self) -> str:
        """One of EXECUTORS."""

    def window(self, steps: int, numbers: int) -> int:
        """How many of an epoch's steps to gather at once, each of `numbers` numbers."""

    def open(self) -> AbstractContextManager[Any]:
        """Inside it the steps of an epoch are run."""

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        """Every step of a window in turn, as the counter gives and counts them."""

    def close(self) -> None:
        """Let go of what was kept for the steps to come."""


class EagerExecutor:
    """One step after the other, by Python."""

    name = "eager"
    AT_ONCE = 2**18  # numbers in a window: a CPU learns from them while they are in its cache

    def __init__(self, most: int | None = None, at_once: int | None = None) -> None:
        """most: steps in a window; at_once: numbers, None for what suits a CPU."""
        self.most, self.at_once = most, self.AT_ONCE if at_once is None else at_once

    def window(self, steps: int, numbers: int) -> int:
        return min(steps, self.most or steps, max(1, self.at_once // numbers))

    def open(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        window = gather()
        for t in counter.turns(window.steps):
            step(window, t)

    def close(self) -> None:
        pass


class LimitedExecutor:
    """Another executor, whose products have at most so many threads."""

    def __init__(self, executor: Executor, threads: int) -> None:
        self.executor, self.threads = executor, threads

    @property
    def name(self) -> str:
        return self.executor.name

    def window(self, steps: int, numbers: int) -> int:
        return self.executor.window(steps, numbers)

    @contextmanager
    def open(self) -> Iterator[None]:
        with limited(self.threads), self.executor.open():
            yield

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        self.executor.run(step, gather, counter)

    def close(self) -> None:
        self.executor.close()
