"""How many threads the products of this process have, where threadpoolctl is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from threading import Lock, get_ident
from typing import Any

from xpmlp.devices.extras import needed

SMALL = 2**21  # multiplications of a product that two threads make no faster among other work


@cache  # finding the libraries takes a millisecond, asking them nothing
def controller() -> Any:
    """Who says how many threads BLAS has; None where nobody can."""
    try:
        return import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


class Holder:
    """Whose limit is in force. BLAS has one count for a whole process, so one thread changes it at
    a time (threadpoolctl's rule too): the products of others meanwhile have that many."""

    def __init__(self) -> None:
        self.lock, self.thread, self.depth = Lock(), 0, 0
        self.before: int | None = None  # the count where nobody holds it

    @contextmanager
    def limit(self, most: int) -> Iterator[None]:
        with self.lock:
            mine = self.depth == 0 or self.thread == get_ident()
            if mine and self.depth == 0:
                self.thread, self.before = get_ident(), measured()
            self.depth += mine
        if not mine:
            yield
            return
        try:
            with controller().limit(limits=most, user_api="blas"):
                yield
        finally:
            with self.lock:
                self.depth -= 1

    def count(self) -> int | None:
        """How many threads a product has without any limit of ours."""
        with self.lock:
            return self.before if self.depth else measured()


HOLDER = Holder()
MINE: ContextVar[int | None] = ContextVar("blas_threads", default=None)  # the caller's own limit


def measured() -> int | None:
    """How many threads a product has at this moment."""
    counts = [pool["num_threads"] for pool in controller().info() if pool["user_api"] == "blas"]
    return max(counts, default=None)


def counted() -> int | None:
    """How many threads a product may have here, whatever limit another thread holds at this
    moment; None where nobody knows."""
    if controller() is None:
        return None
    most, mine = HOLDER.count(), MINE.get()
    return most if most is None or mine is None else min(most, mine)


def blas_threads(most: int | None = None) -> int:
    """How many threads a product may have, at most that many; 1 where nobody could change that.

    ImportError where a number is asked for and threadpoolctl is not installed.
    """
    if most is not None:
        needed("threadpoolctl", "fast")
    now = counted() or 1
    return now if most is None else min(now, most)


@contextmanager
def limited(most: int | None) -> Iterator[None]:
    """Inside it a product has at most that many threads, where that can be; None: as now."""
    now = None if most is None else counted()
    if now is None or most is None or now <= most:
        yield
        return
    mine = MINE.set(most)
    try:
        with HOLDER.limit(most):
            yield
    finally:
        MINE.reset(mine)
