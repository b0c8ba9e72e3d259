"""Work that runs in parallel to the rest of a step: streams that fork and join again.

While a stream captures, they become branches of its graph. What a branch reads is kept alive
until it joins: the memory pool reuses freed memory on the stream that it was allocated on, which
does not wait for the branch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Branches:
    """Streams for work that is independent of what follows it. Not thread-safe."""

    COUNT = 3

    def __init__(self, cuda: Any) -> None:
        """cuda: CuPy's module of that name."""
        self.cuda = cuda
        self.streams: list[Any] = []
        self.events: list[Any] = []
        self.forks = 0  # branches since the last join
        self.kept_alive: list[Any] = []

    @contextmanager
    def fork(self, *arrays: Any) -> Iterator[None]:
        """Inside it, work goes to a stream that waits for what the current one has done so far.

        arrays: what the work reads. On the null stream everything runs in order.
        """
        current = self.cuda.get_current_stream()
        if current.ptr == self.cuda.Stream.null.ptr:
            yield
            return
        if not self.streams:
            self.streams = [self.cuda.Stream(non_blocking=True) for _ in range(self.COUNT)]
            self.events = [self.cuda.Event(disable_timing=True) for _ in range(2 * self.COUNT)]
        at = self.forks % self.COUNT
        self.forks += 1
        self.kept_alive += arrays
        self.events[at].record(current)
        self.streams[at].wait_event(self.events[at])
        with self.streams[at]:
            yield

    def join(self) -> None:
        """Let the current stream wait for every branch."""
        current = self.cuda.get_current_stream()
        for at in range(min(self.forks, self.COUNT)):
            event = self.events[self.COUNT + at]
            event.record(self.streams[at])
            current.wait_event(event)
        self.restart()

    def restart(self) -> None:
        """Begin a step, even if the previous one failed."""
        self.forks = 0
        self.kept_alive.clear()

    def close(self, forget: Any) -> None:
        """Release the streams. forget: releases the workspace of a stream, given its pointer."""
        for stream in self.streams:
            forget(stream.ptr)
        self.streams, self.events = [], []
