"""CUDA graphs: what a stream is given, recorded once and launched again and again."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from xpmlp.devices.namespace import Place, running
from xpmlp.devices.words import release


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
