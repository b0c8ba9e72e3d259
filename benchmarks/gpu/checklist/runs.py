"""Trainings for the checks of the GPU, and comparisons of two of them."""

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

EPOCHS = 20  # of at least four minibatches: enough steps to be recorded
CASE_BY_NAME = {case.name: case for case in CASES}
SMALL = Spec.parse("784-512-256-10", loss="cross_entropy")
LARGE = Spec.parse("1024-4096-4096-10", loss="cross_entropy")
MANY = Spec.parse("50-256-256-1")
MEMBERS = 256


def cases(env: Setting) -> tuple[Case, ...]:
    return CASES[:: 5 if env.quick else 1]


def quick_spec(spec: Spec) -> Spec:
    """The network with at most 64 neurons per layer, for a quick check."""
    return Spec.parse([min(size, 64) for size in spec.sizes], loss=spec.loss)


def case_trainer(env: Setting, case: Case, dtype: str, **more: Any) -> Trainer:
    """A new trainer of a case of `benchmarks.parity`, whose steps will be recorded."""
    arguments = {"batch_size": 16, **case.arguments, "epochs": EPOCHS, "seed": env.seed, **more}
    arguments |= rows_for(case.spec, dtype, env.place, arguments)
    X, y = arguments.pop("X"), arguments.pop("y")
    return make_trainer(case.spec, X, y, dtype=dtype, device=env.place.name, **arguments)


def sized_trainer(
    place: Place, spec: Spec, batch: int, batches: int, seed: int, **arguments: Any
) -> Trainer:
    """An endless trainer in float32 on random rows, with `batches` minibatches per epoch.

    Targets are classes for cross-entropy, numbers for any other loss.
    """
    rng = np.random.default_rng([seed, 11])
    X = rng.standard_normal((batches * batch, spec.n_in), dtype="float32")
    classes = spec.loss == "cross_entropy"
    y = np.arange(len(X)) % spec.n_out if classes else X[:, : spec.n_out] ** 2
    return make_trainer(
        spec, X, y, batch_size=batch, seed=seed, device=place.name, epochs=10**6, **arguments
    )


def unfused(trainer: Trainer) -> Trainer:
    """The trainer without fused kernels: a kernel for each operation."""
    import cupy

    kernels = CudaBackend(trainer.place.xp, cupy, {*FEATURES})
    trainer.step.engine = trainer.step.engine._replace(
        xp=kernels.xp, apply=plain, restart=kernels.restart, join=kernels.join
    )
    return trainer


@contextmanager
def open_reports(trainer: Trainer) -> Iterator[Iterator[Report]]:
    """The reports of a trainer, which is closed at the end of the context."""
    reports: Any = trainer.reports()
    with closing(reports):
        yield reports


def recorder(trainer: Trainer) -> CudaGraphExecutor:
    """The executor that records the trainer's steps; RuntimeError for another one."""
    executor = trainer.step.engine.executor
    if not isinstance(executor, CudaGraphExecutor):
        raise RuntimeError(f"the steps are run {executor.name}, and were to be recorded")
    return executor


def longest_graph(trainer: Trainer) -> tuple[int, RecordedGraph]:
    """The recorded graph with the most steps, and their number."""
    graphs = recorder(trainer).graphs
    steps = max(graphs)
    return steps, graphs[steps][0]


def same_bits(a: Trainer, b: Trainer) -> bool:
    """Whether two trainers have the same bits in all buffers."""
    pairs = zip(a.step.buffers, b.step.buffers, strict=True)
    return all(to_host(x).tobytes() == to_host(y).tobytes() for x, y in pairs)


def first_difference(
    captured: Trainer,
    eager: Trainer,
    callback: Callable[[Report], Any] = lambda report: None,
    *,
    executor: str = "captured",
) -> str:
    """Train both to the end; describe their first difference in bits or executor; "" if none.

    callback: called with every report of both.
    """
    difference = ""
    for a, b in zip(captured.reports(), eager.reports(), strict=True):
        callback(a)
        callback(b)
        if (a.executor, b.executor) != (executor, "eager"):
            difference = difference or f"{a.executor} against {b.executor} in epoch {a.epoch}"
        if not (same_bits(captured, eager) and np.array_equal(a.loss, b.loss)):
            difference = difference or f"other bits from epoch {a.epoch}"
    if not np.isfinite(to_host(captured.state.params)).all():
        difference = difference or "parameters are not finite"
    if int(captured.state.step) < MIN_RECORDED_STEPS:
        difference = difference or f"only {int(captured.state.step)} steps"
    return difference
