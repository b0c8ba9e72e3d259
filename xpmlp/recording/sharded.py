"""The steps of a population on the host, a few members at a time and on several threads.

Members have nothing to do with one another. So each thread has a shard, a step of as many
members as fit in a processor's cache: it copies members in, makes all steps of a window, and
copies them out.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from itertools import pairwise
from typing import Any

from xpmlp.devices.threads import limited
from xpmlp.recording.executors import EagerExecutor, Gather, StepCounter

IN_CACHE = 2**20  # numbers that the members of a shard hold: 4 MB in float32
WORTH = 400_000  # numbers of a population, from which a second thread pays
AT_MOST = 32  # steps in a window: a signal waits for its end
AT_ONCE = 2**21  # numbers in a window of one shard


def cut(members: int, each: int, threads: int) -> list[Any]:
    """Indices of the shards' members: alike to one, and the same work for every thread.

    each: numbers that a member holds.
    """
    fit = max(1, IN_CACHE // each)
    count = -(-members // fit)
    if members * each >= WORTH:
        count = -(-count // threads) * threads
    count = min(count, members)
    ends = [members * i // count for i in range(count + 1)]
    return [(a, ...) if b == a + 1 else (slice(a, b), ...) for a, b in pairwise(ends)]


class ShardedExecutor:
    """Runs a population shard by shard, in as many threads as BLAS had."""

    def __init__(self, indices: Sequence[Any], threads: int, shard: Callable[..., Any]) -> None:
        """indices: of the members of each shard. shard: what makes one of a step and an index
        (see `training.shards`)."""
        self.indices, self.shard, self.most = indices, shard, threads
        self.threads = min(threads, len(indices))  # our own; a product has one then
        self.lanes: list[dict[Any, Any]] = [{} for _ in range(self.threads)]
        self.pool: ThreadPoolExecutor | None = None
        self.name = "replayed"

    def window(self, steps: int, numbers: int) -> int:
        each = -(-numbers // len(self.indices))
        return min(steps, AT_MOST, max(1, AT_ONCE // each))

    def open(self) -> AbstractContextManager[Any]:
        return limited(1 if self.threads > 1 else self.most)

    def run(self, step: Any, gather: Gather, counter: StepCounter) -> None:
        shares = [self.indices[i :: self.threads] for i in range(self.threads)]
        work = [
            partial(self.work, lane, share, step, gather)
            for lane, share in zip(self.lanes, shares, strict=True)
        ]
        if self.pool is None and self.threads > 1:  # the first window is recorded by one thread
            self.pool = ThreadPoolExecutor(self.threads - 1, "xpmlp")
            steps, *_ = [one() for one in work]
            if self.name == EagerExecutor.name:  # a user's functions may not be for two threads
                self.threads, self.lanes = 1, self.lanes[:1]
        else:
            with self.others(work[1:]):
                steps = work[0]()
        step.state.step[...] += steps
        counter.in_epoch += steps

    @contextmanager
    def others(self, work: Sequence[Callable[[], Any]]) -> Iterator[None]:
        """Inside it the other threads work; it ends when they have ended."""
        waiting: list[Future[Any]] = []
        try:
            for one in work:
                assert self.pool is not None
                waiting.append(self.pool.submit(copy_context().run, one))
            yield
        finally:
            for future in waiting:
                future.result()

    def work(self, lane: dict[Any, Any], share: Sequence[Any], step: Any, gather: Gather) -> int:
        """A window of the members of one thread; how many steps that are."""
        counter = StepCounter()
        for index in share:
            first = index[0]
            size = first.stop - first.start if isinstance(first, slice) else 0
            shard = lane.get(size)
            if shard is None:
                shard = lane[size] = self.shard(step, index)
            shard.fill(step, index)
            counter = StepCounter()
            shard.executor.run(shard.step, partial(gather, members=index), counter)
            shard.spend(step, index)
            self.name = shard.executor.name
        return counter.in_epoch

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()
        self.lanes = [{} for _ in range(self.threads)]
        self.pool = None
