"""CUDA graphs: the work of a stream, recorded once and launched again and again."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from xpmlp.devices.namespace import Place, running
from xpmlp.devices.words import release


class GraphStream:
    """A CUDA stream on which steps are recorded and replayed."""

    def __init__(self, place: Place, cuda: Any) -> None:
        """cuda: CuPy's module of that name."""
        self.place, self.cuda = place, cuda
        with running(place):
            self.stream = cuda.Stream(non_blocking=True)

    @contextmanager
    def open(self) -> Iterator[None]:
        """A context in which work goes to the stream; on exit it is synchronized."""
        with running(self.place):
            # a non-blocking stream waits for no other by itself; synchronizing the whole device
            # would break a capture in another thread
            event = self.cuda.Event(disable_timing=True)
            event.record()
            self.stream.wait_event(event)
            with self.stream:
                yield
                self.stream.synchronize()

    def record(
        self, step: Callable[[], Any], warm_up: Callable[[], Any], pool: Any
    ) -> "RecordedGraph":
        """A graph of `step`, inside `open`; an error in it ends the recording and is passed on.

        warm_up: run before, so that all kernels are compiled and algorithms chosen. pool: the
        memory pool of both, in which nothing else may be allocated while the graph lives.
        """
        gc_was_enabled = gc.isenabled()
        gc.collect()
        gc.disable()  # a finalizer may call what a capture does not allow
        try:
            with self.cuda.using_allocator(pool.malloc):
                warm_up()
                self.stream.begin_capture()
                try:
                    value = step()
                except BaseException:
                    with suppress(Exception):  # the capture may be invalid already
                        self.stream.end_capture()
                    raise
                return RecordedGraph(self.stream.end_capture(), value, pool)
        finally:
            if gc_was_enabled:
                gc.enable()

    def close(self) -> None:
        """Release the stream's workspace for matrix products."""
        with suppress(Exception):  # a device fault is reported elsewhere
            self.stream.synchronize()
        forget = getattr(self.place.xp, "forget", None)  # None on plain CuPy
        if forget is not None:
            forget(self.stream.ptr)


def recording_problem(place: Place, cuda: Any) -> str | None:
    """Why steps cannot be recorded at a place; None where they can."""
    xp, stream, pool = place.xp, GraphStream(place, cuda), cuda.MemoryPool()
    recorded = None
    with running(place):
        x = xp.ones((2, 2))

    def step() -> None:
        x[...] = xp.matmul(x, x) / 2

    try:
        with stream.open():
            recorded = stream.record(step, step, pool)
            recorded.launch()
    except Exception as error:  # of any kind: training would continue without
        return error_summary(error)
    finally:
        stream.close()
        del recorded
        with running(place):  # a CuPy pool that is deleted frees no blocks
            pool.free_all_blocks()
        release(place)  # the stream's workspace
    return None


def error_summary(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class RecordedGraph(NamedTuple):
    """A graph and what it needs to stay alive."""

    graph: Any
    value: Any  # the step's return value: the same arrays at every replay
    pool: Any

    def launch(self) -> None:
        self.graph.launch()
