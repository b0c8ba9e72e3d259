"""How the steps of a trainer are run: one after the other here, as a list of calls in `replay`,
as a CUDA graph in `graphs`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from xpmlp.devices.threads import limited

Advance = Callable[[Any, Any, int], None]  # of a run, a window and t: makes its update t
Gather = Callable[..., Any]  # a window of minibatches, of the members of an index if given one
WAYS = ("eager", "replayed", "captured")  # their names


class Way(Protocol):
    """A way to run steps, a window of minibatches at a time."""

    @property
    def name(self) -> str:
        """What a history says of it, one of WAYS."""

    def window(self, steps: int, numbers: int) -> int:
        """How many of an epoch's steps to gather at once, each of `numbers` numbers."""

    def open(self) -> AbstractContextManager[Any]:
        """Inside it the steps of an epoch are run."""

    def run(self, advance: Advance, run: Any, gather: Gather) -> None:
        """Every step of a window in turn, as `run.turns` gives and counts them.

        `run.buffers` are all that a step changes.
        """

    def close(self) -> None:
        """Let go of what was kept for the steps to come."""


class Eager:
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

    def run(self, advance: Advance, run: Any, gather: Gather) -> None:
        window = gather()
        for t in run.turns(window.steps):
            advance(run, window, t)

    def close(self) -> None:
        pass


class Limited:
    """A `Way` whose products have at most so many threads."""

    def __init__(self, way: Way, threads: int) -> None:
        self.way, self.threads = way, threads

    @property
    def name(self) -> str:
        return self.way.name

    def window(self, steps: int, numbers: int) -> int:
        return self.way.window(steps, numbers)

    @contextmanager
    def open(self) -> Iterator[None]:
        with limited(self.threads), self.way.open():
            yield

    def run(self, advance: Advance, run: Any, gather: Gather) -> None:
        self.way.run(advance, run, gather)

    def close(self) -> None:
        self.way.close()
