"""The number of BLAS threads of this process, where threadpoolctl is installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from threading import Lock, get_ident
from typing import Any

from xpmlp.devices.extras import import_extra

SMALL = 2**21  # multiplications of a product that two threads do not speed up in a step


@cache  # finding the libraries takes a millisecond, querying them nothing
def controller() -> Any:
    """threadpoolctl's controller of BLAS; None where it is not installed."""
    try:
        return import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


class ThreadLimit:
    """The limit in force. BLAS has one thread count for a whole process, so one thread changes it
    at a time (threadpoolctl's rule too): the products of others meanwhile have that many."""

    def __init__(self) -> None:
        self.lock, self.owner, self.depth = Lock(), 0, 0
        self.unlimited: int | None = None  # the count without a limit

    @contextmanager
    def limit(self, threads: int) -> Iterator[None]:
        with self.lock:
            is_owner = self.depth == 0 or self.owner == get_ident()
            if is_owner and self.depth == 0:
                self.owner, self.unlimited = get_ident(), current_thread_count()
            self.depth += is_owner
        if not is_owner:
            yield
            return
        try:
            with controller().limit(limits=threads, user_api="blas"):
                yield
        finally:
            with self.lock:
                self.depth -= 1

    def count(self) -> int | None:
        """The number of threads without any limit of ours."""
        with self.lock:
            return self.unlimited if self.depth else current_thread_count()


THREAD_LIMIT = ThreadLimit()
CALLER_LIMIT: ContextVar[int | None] = ContextVar("blas_threads", default=None)


def current_thread_count() -> int | None:
    """The number of threads that BLAS has at this moment."""
    counts = [pool["num_threads"] for pool in controller().info() if pool["user_api"] == "blas"]
    return max(counts, default=None)


def available_threads() -> int | None:
    """How many threads the caller's products may have, whatever limit another thread has set at
    this moment; None where it is unknown."""
    if controller() is None:
        return None
    threads, own_limit = THREAD_LIMIT.count(), CALLER_LIMIT.get()
    return threads if threads is None or own_limit is None else min(threads, own_limit)


def blas_threads(limit: int | None = None) -> int:
    """How many threads a product may have, at most that many; 1 where it cannot be changed.

    ImportError where a number is given and threadpoolctl is not installed.
    """
    if limit is not None:
        import_extra("threadpoolctl", "fast")
    available = available_threads() or 1
    return available if limit is None else min(available, limit)


@contextmanager
def limit_threads(limit: int | None) -> Iterator[None]:
    """A context in which a product has at most that many threads, where that is possible; None
    for no limit."""
    available = None if limit is None else available_threads()
    if available is None or limit is None or available <= limit:
        yield
        return
    token = CALLER_LIMIT.set(limit)
    try:
        with THREAD_LIMIT.limit(limit):
            yield
    finally:
        CALLER_LIMIT.reset(token)
