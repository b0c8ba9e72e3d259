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
from xpmlp.recording.captured import Captured
from xpmlp.shape_ledger import ledger
from xpmlp.spec import Spec
from xpmlp.training.batches import unshuffled, windows
from xpmlp.training.loop import Report
from xpmlp.training.steps import Run, advance

WARM = 3  # epochs


class Training(NamedTuple):
    """A training whose steps are timed."""

    spec: Spec
    batch: int
    batches: int  # minibatches in an epoch
    arguments: Mapping[str, Any]  # of `train`

    def run(self, on: Setting, **more: Any) -> Run:
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
    """Microseconds per step of a run."""

    epoch: float  # over whole epochs, as `train` runs them
    step: float  # by itself, on minibatches that lie ready


def timed(run: Run, rounds: int = 9) -> Times:
    """The times of a run that has epochs enough, which is trained and then let go of."""
    with under_way(run) as coming:
        return measured(run, coming, rounds)


def measured(run: Run, coming: Iterator[Report], rounds: int) -> Times:
    """The times of a run that is under way."""
    for _ in range(WARM):
        next(coming)
    with running(run.place):
        whole = device_us(lambda: next(coming), 1, rounds) / run.steps_per_epoch
    return Times(whole, alone(run, rounds))


def alone(run: Run, rounds: int) -> float:
    """Microseconds of a step on minibatches that lie ready."""
    way = run.engine.way
    if isinstance(way, Captured) and way.graphs:
        steps, made = longest(run)
        with way.open():
            return device_us(made.launch, max(1, 80 // steps), rounds) / steps
    s = run.settings
    with running(run.place):
        orders = unshuffled(s.seeds, s.lead, 0, run.data.rows)
        window = next(windows(run.place, run.data, orders, run.batch, 1, run.weigh))()
        return device_us(lambda: advance(run, window, 0), 20, rounds)


def by_way(make: Callable[..., Run], rounds: int) -> dict[str, Times]:
    """The times of a training recorded, eager, and eager without the kernels.

    make: a new run, of the arguments of `train` that it is given.
    """
    ways: dict[str, Callable[[], Run]] = {
        "recorded": make,
        "eager": lambda: make(capture=False),
        "unfused": lambda: unfused(make(capture=False)),
    }
    found = {}
    for name, begin in ways.items():
        run = begin()
        found[name] = timed(run, rounds)
        wanted = "captured" if name == "recorded" else "eager"
        if set(run.history["way"]) != {wanted} or not np.isfinite(run.history["loss"]).all():
            raise RuntimeError(f"{name}: {run.history['way'][-1]}, loss {run.history['loss'][-1]}")
    return found


def priced(name: str) -> Callable[[Setting], Result]:
    """The check of what a training's step costs each way, and of the rate of its products."""

    def check(on: Setting) -> Result:
        of_name = training(on, name)
        found = by_way(lambda **more: of_name.run(on, **more), 3 if on.quick else 9)
        operations = ledger(of_name.spec, batch=of_name.batch).operations
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
