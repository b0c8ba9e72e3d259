"""What a trainer's steps run on: a namespace, an `apply` and an executor."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from xpmlp.apply import plain
from xpmlp.devices.namespace import CPU, Place, running
from xpmlp.network import activated
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.recording.cuda_writer import CudaBackend, disabled
from xpmlp.recording.executors import EagerExecutor, Executor
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.recording.replay import ReplayExecutor
from xpmlp.types import Array, Namespace

MIN_RECORDED_STEPS = 64  # recording takes about as long as twenty steps
IDLE_BACKENDS: list[NumpyBackend] = []  # of past predictions: memory that is in a cache already
MAX_IDLE_SIZE = 2**22  # elements that one of these holds
MAX_IDLE_PLANS = 16  # for as many shapes


class Engine(NamedTuple):
    """For `gradient` and `update` of one trainer, in one thread."""

    xp: Namespace
    apply: Callable[..., Any]
    restart: Callable[
        [], None
    ]  # called before every step: the arrays of the last one may be reused
    executor: Executor
    join: Callable[[], None] = lambda: None  # waits for all of the gradient


def plain_engine(place: Place) -> Engine:
    """The unmodified namespace: the reference for every other engine."""
    return Engine(place.xp, plain, lambda: None, EagerExecutor())


def fastest_engine(place: Place, steps: int = 0, planned: int = 0) -> Engine:
    """The fastest engine for a place.

    steps: how many are to come that may be recorded and replayed; few are not worth it.
    planned: how many the whole training has, however they run: it decides what is compiled, so
    that a resumed training keeps its bits.
    """
    if place.xp is CPU.xp:
        backend = NumpyBackend(planned)
        can_record = steps >= MIN_RECORDED_STEPS
        host: Executor = ReplayExecutor(backend) if can_record else EagerExecutor()
        return Engine(backend.xp, backend.apply, backend.restart, host)
    if not place.name.startswith("gpu:"):
        return plain_engine(place)
    import cupy

    captured = steps >= MIN_RECORDED_STEPS
    without = disabled() | (set() if captured else {"branches"})
    with running(place):
        cuda = CudaBackend(place.xp, cupy, without)
    executor: Executor = EagerExecutor(CudaGraphExecutor.MAX_STEPS, CudaGraphExecutor.WINDOW_SIZE)
    if captured:
        executor = CudaGraphExecutor(place, cupy.cuda, cuda.close)
    return Engine(cuda.xp, cuda.apply, cuda.restart, executor, cuda.join)


def activation_only(
    xp: Namespace, f: Callable[..., Array], product: Array, bias: Array
) -> tuple[Array]:
    """a = f(z) alone."""
    return (activated(xp, f, product, bias, None)[1],)


def without_traces(apply: Callable[..., Any]) -> Callable[..., Any]:
    """`apply` for a `forward` whose traces nobody reads: a overwrites x W, and z is not kept."""

    def apply_in_place(function: Any, xp: Namespace, *args: Any, into: Sequence[Array] = ()) -> Any:
        if function is not activated:
            return apply(function, xp, *args, into=into)
        f, product, bias, _ = args
        apply(activation_only, xp, f, product, bias, into=(product,))
        return product, product, product

    return apply_in_place


@contextmanager
def prediction_engine(xp: Namespace) -> Iterator[Engine]:
    """The fastest engine for successive calls of `forward`: each call overwrites the result of the
    previous one, and of its traces only the last `a` is valid."""
    if xp is not CPU.xp:
        yield Engine(xp, plain, lambda: None, EagerExecutor())
        return
    try:
        backend = IDLE_BACKENDS.pop()  # nobody else's from here on
    except IndexError:
        backend = NumpyBackend(None)
    yield Engine(backend.xp, without_traces(backend.apply), backend.restart, EagerExecutor())
    if len(backend.plans) <= MAX_IDLE_PLANS and backend.size <= MAX_IDLE_SIZE:
        IDLE_BACKENDS.append(backend)
