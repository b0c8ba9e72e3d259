"""The steps of a window of minibatches, recorded once as a CUDA graph and replayed.

A graph works on the very arrays that it was recorded with: each window of an epoch is copied
into one that does not move, and what a step changes are buffers that do not move either. Python
runs a step once, while it is recorded; what differs from step to step must be in arrays.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from xpmlp.backends.branches import Branches
from xpmlp.backends.devices import release
from xpmlp.backends.namespace import Place, running
from xpmlp.backends.ways import Advance, Eager, Gather


class CaptureWarning(UserWarning):
    """Steps could not be recorded as a CUDA graph; training goes on without."""


class Lane:
    """A stream of its own, on which steps are recorded and replayed."""

    def __init__(self, place: Place, cuda: Any) -> None:
        """cuda: CuPy's module of that name."""
        self.place, self.cuda = place, cuda
        with running(place):
            self.stream = cuda.Stream(non_blocking=True)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside it work goes to the stream, and it is done afterwards."""
        with running(self.place):
            # the stream waits for no other by itself; waiting for the whole device would break
            # what another thread captures
            event = self.cuda.Event(disable_timing=True)
            event.record()
            self.stream.wait_event(event)
            with self.stream:
                yield
                self.stream.synchronize()

    def record(self, step: Callable[[], Any], warm: Callable[[], Any], pool: Any) -> "Recorded":
        """A graph of `step`, inside `open`; an error in it ends the recording and is passed on.

        warm: what is run before, so that all is compiled and chosen. pool: the memory both work
        in, where nothing else may be made while the graph lives.
        """
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # a finalizer may call what no recording allows
        try:
            with self.cuda.using_allocator(pool.malloc):
                warm()
                self.stream.begin_capture()
                try:
                    value = step()
                except BaseException:
                    with suppress(Exception):  # it may be invalid already
                        self.stream.end_capture()
                    raise
                return Recorded(self.stream.end_capture(), value, pool)
        finally:
            if collecting:
                gc.enable()

    def close(self) -> None:
        """Let go of what our product keeps for the stream."""
        with suppress(Exception):  # a device that is broken says so elsewhere
            self.stream.synchronize()
        forget = getattr(self.place.xp, "forget", None)  # on CuPy itself
        if forget is not None:
            forget(self.stream.ptr)


def obstacle(place: Place, cuda: Any) -> str | None:
    """Why steps cannot be recorded at a place; None where they can."""
    xp, lane, pool = place.xp, Lane(place, cuda), cuda.MemoryPool()
    recorded = None
    with running(place):
        x = xp.ones((2, 2))

    def step() -> None:
        x[...] = xp.matmul(x, x) / 2

    try:
        with lane.open():
            recorded = lane.record(step, step, pool)
            recorded.launch()
    except Exception as error:  # whatever it is, training would go on without
        return said(error)
    finally:
        lane.close()
        del recorded
        with running(place):  # CuPy gives no block back with a pool
            pool.free_all_blocks()
        release(place)  # what was lent to the stream
    return None


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class Recorded(NamedTuple):
    """A graph with all that it needs to stay alive."""

    graph: Any
    value: Any  # what the step returned: the same arrays at every replay
    pool: Any

    def launch(self) -> None:
        self.graph.launch()


class Captured:
    """A `Way` that records the steps of a window, once for each length of window."""

    UNROLLED = 16  # steps in a graph: a launch costs as much as some ten kernels
    AT_ONCE = 2**26  # numbers in a window
    STREAMS = 1 + Branches.COUNT  # each with a workspace of its own for products

    def __init__(self, place: Place, cuda: Any, release: Callable[[], Any] = lambda: None) -> None:
        """release: lets go of what the steps made for themselves."""
        self.release = release
        self.name = "captured"
        self.lane = Lane(place, cuda)
        self.pools: list[Any] = []  # one for each graph: a pool in want lets go of what is free
        self.graphs: dict[int, tuple[Recorded, Any, Any]] = {}  # by steps in the window

    def window(self, steps: int, numbers: int) -> int:
        return min(steps, self.UNROLLED, max(1, self.AT_ONCE // numbers))

    def open(self) -> Any:
        return self.lane.open()

    def run(self, advance: Advance, run: Any, gather: Gather) -> None:
        window = gather()
        if self.name == "captured" and window.steps not in self.graphs:
            self.record(advance, run, window)
        if self.name != "captured":
            return Eager().run(advance, run, lambda: window)
        recorded, still, _ = self.graphs[window.steps]
        for place, fresh in zip(still, window, strict=True):
            if not isinstance(place, float):
                place[...] = fresh
        recorded.launch()
        run.within += window.steps
        return None

    def record(self, advance: Advance, run: Any, window: Any) -> None:
        """Record a window's steps; where that fails, say so and leave the buffers as they were."""
        xp, buffers = self.lane.place.xp, run.buffers
        saved: list[Any] = []

        def restore() -> None:
            for buffer, value in zip(buffers, saved, strict=False):
                buffer[...] = value

        def warm() -> None:
            steps()
            restore()

        def steps() -> None:
            for t in range(still.steps):
                advance(run, still, t)

        try:
            saved += [xp.asarray(buffer, copy=True) for buffer in buffers]
            parts = (p if isinstance(p, float) else xp.asarray(p, copy=True) for p in window)
            still = type(window)(*parts)
            self.pools.append(self.lane.cuda.MemoryPool())
            recorded = self.lane.record(steps, warm, self.pools[-1])
            # the run holds every other array that the graph reads
            self.graphs[window.steps] = (recorded, still, run)
        except BaseException as error:
            restore()
            if not isinstance(error, Exception):
                raise
            self.name = Eager.name
            self.close()
            warnings.warn(
                "the steps of this training run one by one, because they could not be recorded "
                f"as a CUDA graph: {said(error)}",
                CaptureWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Drop the graphs, and only then let go of their memory."""
        self.lane.close()
        self.graphs.clear()
        self.release()
        with running(self.lane.place):
            for pool in self.pools:
                pool.free_all_blocks()
