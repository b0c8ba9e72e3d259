"""Time training steps on a GPU: recorded, eager, and eager without fused kernels."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.checklist.check import FIGURE, Check, Result, Setting, device_us
from benchmarks.gpu.checklist.runs import (
    LARGE,
    MANY,
    MEMBERS,
    SMALL,
    longest_graph,
    open_reports,
    quick_spec,
    sized_trainer,
    unfused,
)
from xpmlp.devices.namespace import running
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.shape_ledger import ledger
from xpmlp.spec import Spec
from xpmlp.training.batches import sequential_order, windows
from xpmlp.training.report import Report
from xpmlp.training.trainer import Trainer

WARMUP_EPOCHS = 3


class Training(NamedTuple):
    """A training whose steps are timed."""

    spec: Spec
    batch: int
    batches: int  # minibatches in an epoch
    arguments: Mapping[str, Any]  # of `train`

    def new_trainer(self, env: Setting, **more: Any) -> Trainer:
        arguments = {**self.arguments, **more}
        return sized_trainer(env.place, self.spec, self.batch, self.batches, env.seed, **arguments)

    def quick(self) -> "Training":
        """A smaller version, as a smoke test."""
        members = {"members": 4} if "members" in self.arguments else {}
        return Training(
            quick_spec(self.spec),
            min(self.batch, 32),
            min(self.batches, 16),
            {**self.arguments, **members},
        )


def training(env: Setting, name: str) -> Training:
    """The training of that name: small, large or population."""
    named = {
        "small": Training(SMALL, 128, 64, {}),
        "large": Training(LARGE, 8192, 14, {"precision": "tf32"}),
        "population": Training(MANY, 256, 16, {"members": MEMBERS}),
    }[name]
    return named.quick() if env.quick else named


class Times(NamedTuple):
    """Microseconds per step of a trainer."""

    epoch: float  # over whole epochs, as `train` runs them
    step: float  # of the step only, on minibatches that are already gathered


def time_trainer(trainer: Trainer, rounds: int = 9) -> Times:
    """The times of a new trainer with enough epochs, which is closed afterwards."""
    with open_reports(trainer) as reports:
        return time_reports(trainer, reports, rounds)


def time_reports(trainer: Trainer, reports: Iterator[Report], rounds: int) -> Times:
    """The times of a trainer with open reports."""
    for _ in range(WARMUP_EPOCHS):
        next(reports)
    with running(trainer.place):
        per_epoch = device_us(lambda: next(reports), 1, rounds) / trainer.steps_per_epoch
    return Times(per_epoch, time_step(trainer, rounds))


def time_step(trainer: Trainer, rounds: int) -> float:
    """Microseconds of a step on minibatches that are already gathered."""
    executor = trainer.step.engine.executor
    if isinstance(executor, CudaGraphExecutor) and executor.graphs:
        steps, graph = longest_graph(trainer)
        with executor.open():
            return device_us(graph.launch, max(1, 80 // steps), rounds) / steps
    s = trainer.settings
    with running(trainer.place):
        orders = sequential_order(s.seeds, s.lead, 0, trainer.data.rows)
        window = next(
            windows(trainer.place, trainer.data, orders, trainer.batch_size, 1, trainer.row_weights)
        )()
        return device_us(lambda: trainer.step(window, 0), 20, rounds)


def time_variants(make: Callable[..., Trainer], rounds: int) -> dict[str, Times]:
    """The times of a training recorded, eager, and eager without fused kernels.

    make: from arguments of `train` to a new trainer.
    """
    variants: dict[str, Callable[[], Trainer]] = {
        "recorded": make,
        "eager": lambda: make(capture=False),
        "unfused": lambda: unfused(make(capture=False)),
    }
    times = {}
    for name, new_trainer in variants.items():
        trainer = new_trainer()
        times[name] = time_trainer(trainer, rounds)
        expected = "captured" if name == "recorded" else "eager"
        if (
            set(trainer.history["executor"]) != {expected}
            or not np.isfinite(trainer.history["loss"]).all()
        ):
            raise RuntimeError(
                f"{name}: {trainer.history['executor'][-1]}, loss {trainer.history['loss'][-1]}"
            )
    return times


def step_check(name: str) -> Callable[[Setting], Result]:
    """The check of the time per step of each variant of a training, and of its TFLOP/s."""

    def check(env: Setting) -> Result:
        selected = training(env, name)
        rounds = 3 if env.quick else 9
        times = time_variants(lambda **more: selected.new_trainer(env, **more), rounds)
        operations = ledger(selected.spec, batch_size=selected.batch).operations
        operations *= selected.arguments.get("members") or 1
        rate = operations / times["recorded"].step / 1e6
        text = ", ".join(f"{key} {t.step:.0f} ({t.epoch:.0f})" for key, t in times.items())
        figures = {key: t._asdict() for key, t in times.items()}
        return Result(
            f"{text} us, {rate:.1f} TFLOP/s", verdict=FIGURE, figures={**figures, "tflops": rate}
        )

    return check


CHECKS = (
    Check(11, "small-step", step_check("small")),
    Check(11, "large-step", step_check("large")),
    Check(11, "population-step", step_check("population")),
)
