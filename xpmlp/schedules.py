"""Schedules: what the learning rate is multiplied by, as a function of how far training is.

A schedule is a plain function (xp, now) -> 0-d array. It is written in xp operations without
reading a value, so that a captured CUDA graph moves the rate by itself. A user's own is any
such function: `lambda xp, now: 1 / (1 + now.epoch)`.

`train` takes those here by name, such as "step:30,0.1" or "warmup:5 * cosine".
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

from xpmlp.names import lookup, positive, public_dir, refuse, share
from xpmlp.types import Array, Namespace

__all__ = [
    "SCHEDULES", "Progress", "Schedule", "constant", "cosine", "exponential",
    "inverse_scaling", "one_cycle", "product", "schedule", "step", "warmup",
]  # fmt: skip
__dir__ = public_dir(__all__)


class Progress(NamedTuple):
    """How far training is before an update, each a 0-d float array.

    Attributes
    ----------
    step : array of shape ()
        Updates done.
    epoch : array of shape ()
        Epochs done, with the fraction of the one under way.
    fraction : array of shape ()
        Share of the whole training done, in [0, 1).
    """

    step: Array
    epoch: Array
    fraction: Array


Schedule = Callable[[Namespace, Progress], Array]


def constant(xp: Namespace, now: Progress) -> Array:
    """1 throughout.

    Examples
    --------
    >>> float(constant(np, Progress(np.array(50.0), np.array(5.0), np.array(0.5))))
    1.0
    """
    return xp.ones_like(now.fraction)


def step(every: float = 30, factor: float = 0.1) -> Schedule:
    """factor ** floor(epoch / every): a factor after every so many epochs.

    Parameters
    ----------
    every : float above 0
        Epochs.
    factor : float above 0

    Examples
    --------
    >>> float(step(2, 0.5)(np, Progress(np.array(50.0), np.array(5.0), np.array(0.5))))
    0.25
    """
    positive(every=every, factor=factor)
    return lambda xp, now: factor ** xp.floor(now.epoch / every)


def exponential(factor: float = 0.95) -> Schedule:
    """factor ** epoch: a factor per epoch, a little at every update.

    Parameters
    ----------
    factor : float above 0

    Examples
    --------
    >>> float(exponential(0.5)(np, Progress(np.array(20.0), np.array(2.0), np.array(0.2))))
    0.25
    """
    positive(factor=factor)
    return lambda xp, now: factor**now.epoch


def cosine(end: float = 0.0) -> Schedule:
    """end + (1 - end) * (1 + cos(pi * fraction)) / 2: half a cosine over the training.

    Parameters
    ----------
    end : float in [0, 1]

    References
    ----------
    Loshchilov & Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts", of which it
    has no restarts

    Examples
    --------
    >>> float(cosine()(np, Progress(np.array(50.0), np.array(5.0), np.array(0.5))))
    0.5
    """
    share(end=end)
    return lambda xp, now: end + (1 - end) * half_cosine(xp, now.fraction)


def half_cosine(xp: Namespace, fraction: Array) -> Array:
    """From 1 at fraction 0 to 0 at fraction 1."""
    return 0.5 * (1 + xp.cos(math.pi * fraction))


def unit(xp: Namespace, x: Array) -> Array:
    """x kept in [0, 1]."""
    return xp.minimum(xp.maximum(x, xp.zeros_like(x)), xp.ones_like(x))


def warmup(epochs: float = 5, start: float = 0.1) -> Schedule:
    """start + (1 - start) * min(epoch / epochs, 1): a straight line to 1, then 1.

    Parameters
    ----------
    epochs : float above 0
    start : float in [0, 1]

    References
    ----------
    Goyal et al. 2017, "Accurate, large minibatch SGD: Training ImageNet in 1 hour"

    Examples
    --------
    >>> float(warmup(10, 0.0)(np, Progress(np.array(50.0), np.array(5.0), np.array(0.5))))
    0.5
    """
    positive(epochs=epochs)
    share(start=start)
    return lambda xp, now: start + (1 - start) * unit(xp, now.epoch / epochs)


def inverse_scaling(power: float = 0.5) -> Schedule:
    """(epoch + 1) ** -power.

    Parameters
    ----------
    power : float above 0

    Examples
    --------
    >>> float(inverse_scaling(0.5)(np, Progress(np.array(30.0), np.array(3.0), np.array(0.5))))
    0.5
    """
    positive(power=power)
    return lambda xp, now: (now.epoch + 1) ** -power


def one_cycle(peak: float = 0.3, start: float = 0.04, end: float = 4e-6) -> Schedule:
    """Half a cosine from `start` up to 1 at the fraction `peak`, and half a cosine down to `end`.

    Parameters
    ----------
    peak : float in (0, 1)
        Where in the training it is 1.
    start, end : float in [0, 1]

    References
    ----------
    Smith 2018, "A disciplined approach to neural network hyper-parameters: Part 1"

    Examples
    --------
    >>> float(one_cycle(0.5)(np, Progress(np.array(50.0), np.array(5.0), np.array(0.5))))
    1.0
    """
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
    """The schedule of a choice; names multiply.

    Parameters
    ----------
    choice : str, function (xp, now) -> factor, or None
        A name with its arguments after a colon, or several as in "warmup:5 * cosine"; None is
        constant. `now` is a Progress.

    Returns
    -------
    function (xp, now) -> array of shape ()

    Raises
    ------
    ValueError
        For an unknown name or argument, naming those that are known.

    Examples
    --------
    >>> now = Progress(np.array(50.0), np.array(5.0), np.array(0.5))
    >>> float(schedule("warmup:10,0 * step:5,0.5")(np, now))
    0.25
    """
    if choice is None:
        return constant
    if isinstance(choice, str):
        parts: list[Schedule] = [lookup("schedule", SCHEDULES, part) for part in choice.split("*")]
        return reduce(product, parts)
    if not callable(choice):
        raise ValueError(f"schedule must be a name or a function (xp, now); got {choice!r}")
    return choice
