"""What a trainer's steps run on: a namespace, an `apply`, a beginning, and an executor."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from xpmlp.apply import plain
from xpmlp.devices.namespace import CPU, Place, running
from xpmlp.network import activated
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.recording.cuda_writer import Kernels, disabled
from xpmlp.recording.executors import EagerExecutor, Executor
from xpmlp.recording.numpy_writer import Workspace
from xpmlp.recording.replay import ReplayExecutor
from xpmlp.types import Array, Namespace

WORTH = 64  # steps: recording takes about as long as twenty
SPARE: list[Workspace] = []  # of predictions that are over: memory that is known to the processor
KEPT = 2**22  # numbers that one of these holds at most
PLANS = 16  # for as many shapes


class Engine(NamedTuple):
    """For `gradient` and `update` of one trainer, in one thread."""

    xp: Namespace
    apply: Callable[..., Any]
    restart: Callable[[], None]  # called before every step: what the last one made may go
    executor: Executor
    join: Callable[[], None] = lambda: None  # called where all of the gradient is needed


def plain_engine(place: Place) -> Engine:
    """The namespace as it is: what every other engine is compared with."""
    return Engine(place.xp, plain, lambda: None, EagerExecutor())


def fastest(place: Place, steps: int = 0, planned: int = 0) -> Engine:
    """The fastest that there is at a place.

    steps: how many are to come that may be recorded and replayed; few are not worth it.
    planned: how many the whole training has, however they run: what is compiled goes by
    it, so that a training that is resumed keeps its bits.
    """
    if place.xp is CPU.xp:
        workspace = Workspace(planned)
        host: Executor = ReplayExecutor(workspace) if steps >= WORTH else EagerExecutor()
        return Engine(workspace.xp, workspace.apply, workspace.restart, host)
    if not place.name.startswith("gpu:"):
        return plain_engine(place)
    import cupy

    captured = steps >= WORTH
    without = disabled() | (set() if captured else {"branches"})
    with running(place):
        kernels = Kernels(place.xp, cupy, without)
    executor: Executor = EagerExecutor(CudaGraphExecutor.UNROLLED, CudaGraphExecutor.AT_ONCE)
    if captured:
        executor = CudaGraphExecutor(place, cupy.cuda, kernels.close)
    return Engine(kernels.xp, kernels.apply, kernels.restart, executor, kernels.join)


def answered(xp: Namespace, f: Callable[..., Array], product: Array, bias: Array) -> tuple[Array]:
    """a = f(z) alone."""
    return (activated(xp, f, product, bias, None)[1],)


def forgetful(apply: Callable[..., Any]) -> Callable[..., Any]:
    """`apply` for a `forward` whose traces nobody reads: a takes the place of x W, and of z."""

    def once(function: Any, xp: Namespace, *given: Any, into: Sequence[Array] = ()) -> Any:
        if function is not activated:
            return apply(function, xp, *given, into=into)
        f, product, bias, _ = given
        apply(answered, xp, f, product, bias, into=(product,))
        return product, product, product

    return once


@contextmanager
def predicting(xp: Namespace) -> Iterator[Engine]:
    """The fastest that there is for some calls of `forward`, one after the other: what one gives
    is written over by the next, and of its traces only the last `a` is there."""
    if xp is not CPU.xp:
        yield Engine(xp, plain, lambda: None, EagerExecutor())
        return
    try:
        workspace = SPARE.pop()  # nobody else's from here on
    except IndexError:
        workspace = Workspace(None)
    yield Engine(workspace.xp, forgetful(workspace.apply), workspace.restart, EagerExecutor())
    if len(workspace.plans) <= PLANS and workspace.numbers <= KEPT:
        SPARE.append(workspace)
