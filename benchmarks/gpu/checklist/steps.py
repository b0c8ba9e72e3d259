"""What training steps cost on a GPU: recorded, eager, and eager without the kernels."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.checklist.check import FIGURE, Check, Result, Setting, device_us
from benchmarks.gpu.checklist.runs import (
    LARGE,
    MANY,
    MEMBERS,
    SMALL,
    longest,
    quick_spec,
    sized,
    under_way,
    unfused,
)
from xpmlp.devices.namespace import running
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.shape_ledger import ledger
from xpmlp.spec import Spec
from xpmlp.training.batches import sequential_order, windows
from xpmlp.training.report import Report
from xpmlp.training.trainer import Trainer

WARM = 3  # epochs


class Training(NamedTuple):
    """A training whose steps are timed."""

    spec: Spec
    batch: int
    batches: int  # minibatches in an epoch
    arguments: Mapping[str, Any]  # of `train`

    def run(self, on: Setting, **more: Any) -> Trainer:
        arguments = {**self.arguments, **more}
        return sized(on.place, self.spec, self.batch, self.batches, on.seed, **arguments)

    def quick(self) -> "Training":
        """Less of the same, to see that it runs."""
        members = {"members": 4} if "members" in self.arguments else {}
        return Training(
            quick_spec(self.spec),
            min(self.batch, 32),
            min(self.batches, 16),
            {**self.arguments, **members},
        )


def training(on: Setting, name: str) -> Training:
    """The training of that name: small, large or population."""
    of_name = {
        "small": Training(SMALL, 128, 64, {}),
        "large": Training(LARGE, 8192, 14, {"precision": "tf32"}),
        "population": Training(MANY, 256, 16, {"members": MEMBERS}),
    }[name]
    return of_name.quick() if on.quick else of_name


class Times(NamedTuple):
    """Microseconds per step of a trainer."""

    epoch: float  # over whole epochs, as `train` runs them
    step: float  # by itself, on minibatches that lie ready


def timed(trainer: Trainer, rounds: int = 9) -> Times:
    """The times of a trainer that has epochs enough, which is trained and then let go of."""
    with under_way(trainer) as coming:
        return measured(trainer, coming, rounds)


def measured(trainer: Trainer, coming: Iterator[Report], rounds: int) -> Times:
    """The times of a trainer that is under way."""
    for _ in range(WARM):
        next(coming)
    with running(trainer.place):
        whole = device_us(lambda: next(coming), 1, rounds) / trainer.steps_per_epoch
    return Times(whole, alone(trainer, rounds))


def alone(trainer: Trainer, rounds: int) -> float:
    """Microseconds of a step on minibatches that lie ready."""
    executor = trainer.step.engine.executor
    if isinstance(executor, CudaGraphExecutor) and executor.graphs:
        steps, made = longest(trainer)
        with executor.open():
            return device_us(made.launch, max(1, 80 // steps), rounds) / steps
    s = trainer.settings
    with running(trainer.place):
        orders = sequential_order(s.seeds, s.lead, 0, trainer.data.rows)
        window = next(
            windows(trainer.place, trainer.data, orders, trainer.batch_size, 1, trainer.row_weights)
        )()
        return device_us(lambda: trainer.step(window, 0), 20, rounds)


def by_way(make: Callable[..., Trainer], rounds: int) -> dict[str, Times]:
    """The times of a training recorded, eager, and eager without the kernels.

    make: a new trainer, of the arguments of `train` that it is given.
    """
    ways: dict[str, Callable[[], Trainer]] = {
        "recorded": make,
        "eager": lambda: make(capture=False),
        "unfused": lambda: unfused(make(capture=False)),
    }
    found = {}
    for name, begin in ways.items():
        trainer = begin()
        found[name] = timed(trainer, rounds)
        wanted = "captured" if name == "recorded" else "eager"
        if (
            set(trainer.history["executor"]) != {wanted}
            or not np.isfinite(trainer.history["loss"]).all()
        ):
            raise RuntimeError(
                f"{name}: {trainer.history['executor'][-1]}, loss {trainer.history['loss'][-1]}"
            )
    return found


def priced(name: str) -> Callable[[Setting], Result]:
    """The check of what a training's step costs each way, and of the rate of its products."""

    def check(on: Setting) -> Result:
        of_name = training(on, name)
        found = by_way(lambda **more: of_name.run(on, **more), 3 if on.quick else 9)
        operations = ledger(of_name.spec, batch_size=of_name.batch).operations
        operations *= of_name.arguments.get("members") or 1
        rate = operations / found["recorded"].step / 1e6
        shown = ", ".join(f"{way} {t.step:.0f} ({t.epoch:.0f})" for way, t in found.items())
        figures = {way: times._asdict() for way, times in found.items()}
        return Result(
            f"{shown} us, {rate:.1f} TFLOP/s", verdict=FIGURE, figures={**figures, "tflops": rate}
        )

    return check


CHECKS = (
    Check(11, "small-step", priced("small")),
    Check(11, "large-step", priced("large")),
    Check(11, "population-step", priced("population")),
)
