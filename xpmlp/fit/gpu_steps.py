"""What training steps cost on a GPU: recorded, eager, and eager without the kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xpmlp.backends.gpu_bench import FIGURE, Check, Result, Setting, device_us
from xpmlp.backends.graphs import Captured
from xpmlp.backends.namespace import running
from xpmlp.core.ledger import ledger
from xpmlp.core.spec import Spec
from xpmlp.fit.batches import unshuffled, windows
from xpmlp.fit.gpu_runs import LARGE, MANY, MEMBERS, SMALL, longest, sized, under_way, unfused
from xpmlp.fit.steps import Run, advance

WARM = 3  # epochs


class Times(NamedTuple):
    """Microseconds per step of a run."""

    epoch: float  # over whole epochs, as `train` runs them
    step: float  # by itself, on minibatches that lie ready


def timed(run: Run, rounds: int = 9) -> Times:
    """The times of a run that has epochs enough, which is trained and then let go of."""
    with under_way(run) as coming:
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


def priced(on: Setting, spec: Spec, batch: int, batches: int, **arguments: Any) -> Result:
    """What a step costs each way, and the rate of its products."""

    def make(**more: Any) -> Run:
        return sized(on.place, spec, batch, batches, on.seed, **arguments, **more)

    found = by_way(make, 3 if on.quick else 9)
    operations = ledger(spec, batch=batch).operations * (arguments.get("members") or 1)
    rate = operations / found["recorded"].step / 1e6
    shown = ", ".join(f"{name} {t.step:.0f} ({t.epoch:.0f})" for name, t in found.items())
    figures = {name: times._asdict() for name, times in found.items()}
    return Result(
        f"{shown} us, {rate:.1f} TFLOP/s", verdict=FIGURE, figures={**figures, "tflops": rate}
    )


def small_step(on: Setting) -> Result:
    return priced(on, SMALL, 128, 64)


def large_step(on: Setting) -> Result:
    return priced(on, LARGE, 1024 if on.quick else 8192, 14, precision="tf32")


def population_step(on: Setting) -> Result:
    return priced(on, MANY, 256, 16, members=16 if on.quick else MEMBERS)


CHECKS = (
    Check(11, "small-step", small_step),
    Check(11, "large-step", large_step),
    Check(11, "population-step", population_step),
)
