"""Trainings that the GPU's checks are made with, and how two of them are compared."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from benchmarks.gpu.checklist.check import Setting
from benchmarks.parity import CASES, Case, rows_for
from xpmlp.apply import plain
from xpmlp.devices.graphs import RecordedGraph
from xpmlp.devices.namespace import Place, to_host
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.recording.cuda_writer import FEATURES, CudaBackend
from xpmlp.recording.engine import MIN_RECORDED_STEPS
from xpmlp.spec import Spec
from xpmlp.training.report import Report
from xpmlp.training.train import make_trainer
from xpmlp.training.trainer import Trainer

EPOCHS = 20  # of four minibatches at least: enough to be recorded
NAMED = {case.name: case for case in CASES}
SMALL = Spec.parse("784-512-256-10", loss="cross_entropy")
LARGE = Spec.parse("1024-4096-4096-10", loss="cross_entropy")
MANY = Spec.parse("50-256-256-1")
MEMBERS = 256


def cases(on: Setting) -> tuple[Case, ...]:
    return CASES[:: 5 if on.quick else 1]


def quick_spec(spec: Spec) -> Spec:
    """The network with layers of 64 neurons at most, for a quick check."""
    return Spec.parse([min(size, 64) for size in spec.sizes], loss=spec.loss)


def begun(on: Setting, case: Case, dtype: str, **more: Any) -> Trainer:
    """A case of `benchmarks.parity` at epoch 0, whose steps will be recorded."""
    arguments = {"batch_size": 16, **case.arguments, "epochs": EPOCHS, "seed": on.seed, **more}
    arguments |= rows_for(case.spec, dtype, on.place, arguments)
    X, y = arguments.pop("X"), arguments.pop("y")
    return make_trainer(case.spec, X, y, dtype=dtype, device=on.place.name, **arguments)


def sized(
    place: Place, spec: Spec, batch: int, batches: int, seed: int, **arguments: Any
) -> Trainer:
    """A trainer in float32 on random rows, `batches` minibatches of them an epoch, without end.

    Rows of classes for a cross-entropy, of numbers for any other loss.
    """
    rng = np.random.default_rng([seed, 11])
    X = rng.standard_normal((batches * batch, spec.n_in), dtype="float32")
    classes = spec.loss == "cross_entropy"
    y = np.arange(len(X)) % spec.n_out if classes else X[:, : spec.n_out] ** 2
    return make_trainer(
        spec, X, y, batch_size=batch, seed=seed, device=place.name, epochs=10**6, **arguments
    )


def unfused(trainer: Trainer) -> Trainer:
    """The trainer with its functions as they are: a kernel for each operation, in turn."""
    import cupy

    kernels = CudaBackend(trainer.place.xp, cupy, {*FEATURES})
    trainer.step.engine = trainer.step.engine._replace(
        xp=kernels.xp, apply=plain, restart=kernels.restart, join=kernels.join
    )
    return trainer


@contextmanager
def under_way(trainer: Trainer) -> Iterator[Iterator[Report]]:
    """The reports of a trainer, which is let go of where they are left."""
    coming: Any = trainer.reports()
    with closing(coming):
        yield coming


def recorder(trainer: Trainer) -> CudaGraphExecutor:
    """What records the trainer's steps; RuntimeError where nothing does."""
    executor = trainer.step.engine.executor
    if not isinstance(executor, CudaGraphExecutor):
        raise RuntimeError(f"the steps are run {executor.name}, and were to be recorded")
    return executor


def longest(trainer: Trainer) -> tuple[int, RecordedGraph]:
    """The recorded window of the most steps, with its steps."""
    graphs = recorder(trainer).graphs
    steps = max(graphs)
    return steps, graphs[steps][0]


def same(one: Trainer, other: Trainer) -> bool:
    """Whether two trainers hold the same bits."""
    pairs = zip(one.step.buffers, other.step.buffers, strict=True)
    return all(to_host(a).tobytes() == to_host(b).tobytes() for a, b in pairs)


def departure(
    captured: Trainer,
    eager: Trainer,
    touch: Callable[[Report], Any] = lambda report: None,
    *,
    executor: str = "captured",
) -> str:
    """Train both to the end; where the first leaves the second's bits, or executor; "" if never.

    touch: what is done with every report of both.
    """
    found = ""
    for one, other in zip(captured.reports(), eager.reports(), strict=True):
        touch(one)
        touch(other)
        if (one.executor, other.executor) != (executor, "eager"):
            found = found or f"{one.executor} against {other.executor} in epoch {one.epoch}"
        if not (same(captured, eager) and np.array_equal(one.loss, other.loss)):
            found = found or f"other bits from epoch {one.epoch}"
    if not np.isfinite(to_host(captured.state.params)).all():
        found = found or "no finite numbers"
    if int(captured.state.step) < MIN_RECORDED_STEPS:
        found = found or f"{int(captured.state.step)} steps only"
    return found
