"""How the steps of a training are run: one after the other here, as a list of calls in `replay`,
as a CUDA graph in `captured`, on shards of a population in `sharded`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from xpmlp.devices.threads import limit_threads
from xpmlp.types import Array

Gather = Callable[..., Any]  # a window of minibatches, of the members of an index if given one
EXECUTORS = ("eager", "replayed", "captured")  # their names in a history


class Step(Protocol):
    """A step that an executor runs: called with a window and t, it does update t of it."""

    @property
    def buffers(self) -> tuple[Array, ...]:
        """The arrays that a step changes."""

    def __call__(self, window: Any, t: int) -> None: ...


class StepCounter:
    """How many steps of an epoch are done, and whether a signal has arrived to stop."""

    def __init__(self) -> None:
        self.in_epoch = 0
        self.stop_signal = 0  # the number of the signal that arrived

    def steps(self, steps: int, first: int = 0) -> Iterator[int]:
        """The steps of a window from `first` on, until a signal arrives."""
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

    def window(self, steps: int, size: int) -> int:
        """How many of an epoch's steps to gather at once, each of `size` elements."""

    def open(self) -> AbstractContextManager[Any]:
        """A context in which the steps of an epoch are run."""

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        """Run every step of a window in turn, as the counter yields and counts them."""

    def close(self) -> None:
        """Release what was kept for later steps."""


class EagerExecutor:
    """One step after the other, by Python."""

    name = "eager"
    WINDOW_SIZE = 2**18  # elements in a window, which stay in a CPU's cache

    def __init__(self, max_steps: int | None = None, window_size: int | None = None) -> None:
        """Of a window: steps at most, and elements, None for what suits a CPU."""
        self.max_steps = max_steps
        self.window_size = self.WINDOW_SIZE if window_size is None else window_size

    def window(self, steps: int, size: int) -> int:
        return min(steps, self.max_steps or steps, max(1, self.window_size // size))

    def open(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        window = gather()
        for t in counter.steps(window.steps):
            step(window, t)

    def close(self) -> None:
        pass


class LimitedExecutor:
    """Another executor, with at most so many threads for its matrix products."""

    def __init__(self, executor: Executor, threads: int) -> None:
        self.executor, self.threads = executor, threads

    @property
    def name(self) -> str:
        return self.executor.name

    def window(self, steps: int, size: int) -> int:
        return self.executor.window(steps, size)

    @contextmanager
    def open(self) -> Iterator[None]:
        with limit_threads(self.threads), self.executor.open():
            yield

    def run(self, step: Step, gather: Gather, counter: StepCounter) -> None:
        self.executor.run(step, gather, counter)

    def close(self) -> None:
        self.executor.close()
