"""How many threads the products of this process have, where threadpoolctl is installed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

from xpmlp.backends.extras import needed
from xpmlp.backends.ways import Advance, Gather, Way

SMALL = 2**21  # multiplications of a product that two threads make no faster among other work


@cache  # finding the libraries takes a millisecond, asking them nothing
def controller() -> Any:
    """Who says how many threads BLAS has; None where nobody can."""
    try:
        return import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


def counted() -> int | None:
    """How many threads a product has now; None where nobody knows."""
    if controller() is None:
        return None
    counts = [pool["num_threads"] for pool in controller().info() if pool["user_api"] == "blas"]
    return max(counts, default=None)


def blas_threads(most: int | None = None) -> int:
    """How many threads a product may have, at most that many; 1 where nobody could change that.

    ImportError where a number is asked for and threadpoolctl is not installed.
    """
    if most is not None:
        needed("threadpoolctl", "fast")
    now = counted() or 1
    return now if most is None else min(now, most)


def limited(most: int | None) -> AbstractContextManager[Any]:
    """Inside it a product has at most that many threads, where that can be; None: as now."""
    now = None if most is None else counted()
    if now is None or most is None or now <= most:
        return nullcontext()
    limit: AbstractContextManager[Any] = controller().limit(limits=most, user_api="blas")
    return limit


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
