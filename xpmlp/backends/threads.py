"""How many threads the products of this process have, where threadpoolctl is installed."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any


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
    return min(counts, default=None)


def blas_threads() -> int:
    """How many threads a product has now; 1 where nobody could change that."""
    return counted() or 1


def one_thread() -> AbstractContextManager[Any]:
    """Inside it a product has one thread, where that can be."""
    return limited(1)


def limited(count: int) -> AbstractContextManager[Any]:
    """Inside it a product has at most that many threads, where that can be."""
    now = counted()
    if now is None or now <= count:
        return nullcontext()
    limit: AbstractContextManager[Any] = controller().limit(limits=count, user_api="blas")
    return limit
