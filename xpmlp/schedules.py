"""Schedules: what the learning rate is multiplied by, as a function of how far training is.

A schedule is a plain function (xp, now) -> 0-d array. It is written in xp operations without
reading a value, so that a captured CUDA graph moves the rate by itself. A user's own is any
such function: `lambda xp, now: 1 / (1 + now.epoch)`.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

from xpmlp.names import lookup, positive, refuse, share
from xpmlp.types import Array, Namespace


class Progress(NamedTuple):
    """How far training is, each a 0-d float array, before the update it is asked for."""

    step: Array  # updates done
    epoch: Array  # epochs done, with the fraction of the one under way
    fraction: Array  # share of the whole run done, in [0, 1)


Schedule = Callable[[Namespace, Progress], Array]


def constant(xp: Namespace, now: Progress) -> Array:
    return xp.ones_like(now.fraction)


def step(every: float = 30, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` after every `every` epochs."""
    positive(every=every, factor=factor)
    return lambda xp, now: factor ** xp.floor(now.epoch / every)


def exponential(factor: float = 0.95) -> Schedule:
    """Multiply by `factor` per epoch, a little at every step."""
    positive(factor=factor)
    return lambda xp, now: factor**now.epoch


def cosine(end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `end` over the run (Loshchilov & Hutter 2017, no restarts)."""
    share(end=end)
    return lambda xp, now: end + (1 - end) * half_cosine(xp, now.fraction)


def half_cosine(xp: Namespace, fraction: Array) -> Array:
    """From 1 at fraction 0 to 0 at fraction 1."""
    return 0.5 * (1 + xp.cos(math.pi * fraction))


def unit(xp: Namespace, x: Array) -> Array:
    """x kept in [0, 1]."""
    return xp.minimum(xp.maximum(x, xp.zeros_like(x)), xp.ones_like(x))


def warmup(epochs: float = 5, start: float = 0.1) -> Schedule:
    """Rise in a straight line from `start` to 1 over the first `epochs` epochs, then stay."""
    positive(epochs=epochs)
    share(start=start)
    return lambda xp, now: start + (1 - start) * unit(xp, now.epoch / epochs)


def inverse_scaling(power: float = 0.5) -> Schedule:
    """(epochs + 1) ** -power."""
    positive(power=power)
    return lambda xp, now: (now.epoch + 1) ** -power


def one_cycle(peak: float = 0.3, start: float = 0.04, end: float = 4e-6) -> Schedule:
    """Up by half a cosine from `start` to 1 at fraction `peak`, then down to `end` (Smith 2018)."""
    refuse(lambda value: 0 < value < 1, "in (0, 1)", peak=peak)
    share(start=start, end=end)

    def schedule(xp: Namespace, now: Progress) -> Array:
        up = 1 - (1 - start) * half_cosine(xp, unit(xp, now.fraction / peak))
        down = end + (1 - end) * half_cosine(xp, unit(xp, (now.fraction - peak) / (1 - peak)))
        return xp.minimum(up, down)

    return schedule


def product(first: Schedule, second: Schedule) -> Schedule:
    """Both at once, such as a warm-up and a cosine."""
    return lambda xp, now: first(xp, now) * second(xp, now)


SCHEDULES = {
    "constant": lambda: constant, "step": step, "exponential": exponential, "cosine": cosine,
    "warmup": warmup, "inverse_scaling": inverse_scaling, "one_cycle": one_cycle,
}  # fmt: skip


def schedule(choice: str | Schedule | None) -> Schedule:
    """The schedule of a choice; names multiply: "warmup:5 * cosine". None is constant."""
    if choice is None:
        return constant
    if isinstance(choice, str):
        parts: list[Schedule] = [lookup("schedule", SCHEDULES, part) for part in choice.split("*")]
        return reduce(product, parts)
    if not callable(choice):
        raise ValueError(f"schedule must be a name or a function (xp, now); got {choice!r}")
    return choice
