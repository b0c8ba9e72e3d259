"""The steps of a population on the host, a few members at a time and on several threads.

Members are independent of one another. So each thread has a shard, a step of as many members as
fit in a processor's cache: it copies members in, runs all steps of a window, and copies them out.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from itertools import pairwise
from typing import Any

from xpmlp.devices.threads import limit_threads
from xpmlp.recording.executors import EagerExecutor, Gather, StepCounter

SHARD_SIZE = 2**20  # elements of a shard's members: 4 MB in float32
MIN_THREADED_SIZE = 400_000  # elements of a population from which a second thread pays
MAX_WINDOW = 32  # steps in a window: a signal waits for its end
WINDOW_SIZE = 2**21  # elements in a window of one shard


def shard_indices(members: int, member_size: int, threads: int) -> list[Any]:
    """Indices of the members of each shard: sizes differ by at most one, and every thread has the
    same number of shards.

    member_size: elements of a member.
    """
    fit = max(1, SHARD_SIZE // member_size)
    count = -(-members // fit)
    if members * member_size >= MIN_THREADED_SIZE:
        count = -(-count // threads) * threads
    count = min(count, members)
    ends = [members * i // count for i in range(count + 1)]
    return [(a, ...) if b == a + 1 else (slice(a, b), ...) for a, b in pairwise(ends)]


class ShardedExecutor:
    """Runs a population shard by shard, in as many threads as BLAS had."""

    def __init__(self, indices: Sequence[Any], threads: int, shard: Callable[..., Any]) -> None:
        """indices: of the members of each shard. shard: makes a shard from a step and an index
        (see `training.shards`)."""
        self.indices, self.shard, self.blas_threads = indices, shard, threads
        self.threads = min(threads, len(indices))  # if more than one, each product has one
        self.shards: list[dict[Any, Any]] = [{} for _ in range(self.threads)]  # by size
        self.pool: ThreadPoolExecutor | None = None
        self.name = "replayed"

    def window(self, steps: int, size: int) -> int:
        each = -(-size // len(self.indices))
        return min(steps, MAX_WINDOW, max(1, WINDOW_SIZE // each))

    def open(self) -> AbstractContextManager[Any]:
        return limit_threads(1 if self.threads > 1 else self.blas_threads)

    def run(self, step: Any, gather: Gather, counter: StepCounter) -> None:
        indices = [self.indices[i :: self.threads] for i in range(self.threads)]
        work = [
            partial(self.run_shards, shards, own, step, gather)
            for shards, own in zip(self.shards, indices, strict=True)
        ]
        if self.pool is None and self.threads > 1:  # the first window is recorded by one thread
            self.pool = ThreadPoolExecutor(self.threads - 1, "xpmlp")
            steps, *_ = [task() for task in work]
            if self.name == EagerExecutor.name:  # a user's functions may not be thread-safe
                self.threads, self.shards = 1, self.shards[:1]
        else:
            with self.in_background(work[1:]):
                steps = work[0]()
        step.state.step[...] += steps
        counter.in_epoch += steps

    @contextmanager
    def in_background(self, work: Sequence[Callable[[], Any]]) -> Iterator[None]:
        """Inside it the other threads work; it ends when all are done."""
        futures: list[Future[Any]] = []
        try:
            for task in work:
                assert self.pool is not None
                futures.append(self.pool.submit(copy_context().run, task))
            yield
        finally:
            for future in futures:
                future.result()

    def run_shards(
        self, shards: dict[Any, Any], indices: Sequence[Any], step: Any, gather: Gather
    ) -> int:
        """Run a window of the members of one thread; its number of steps."""
        counter = StepCounter()
        for index in indices:
            first = index[0]
            size = first.stop - first.start if isinstance(first, slice) else 0
            shard = shards.get(size)
            if shard is None:
                shard = shards[size] = self.shard(step, index)
            shard.load(step, index)
            counter = StepCounter()
            shard.executor.run(shard.step, partial(gather, members=index), counter)
            shard.store(step, index)
            self.name = shard.executor.name
        return counter.in_epoch

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()
        self.shards = [{} for _ in range(self.threads)]
        self.pool = None
