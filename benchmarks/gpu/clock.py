"""What a contender's times are."""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

WARM = 3  # epochs before any is timed: they compile and record


class Times(NamedTuple):
    """Microseconds per step, a step of a population being one of each of its networks."""

    epoch: float  # over whole epochs: orders drawn, rows gathered, the loss read at the end
    step: float  # by itself, on minibatches that lie ready


def median_us(
    elapsed: Callable[[Callable[[], object], int], float],
    call: Callable[[], object],
    calls: int,
    rounds: int,
) -> float:
    """The median of rounds, the first of which does not count.

    elapsed: from a function and how often it is called to microseconds per call.
    """
    return float(median([elapsed(call, calls) for _ in range(rounds + 1)][1:]))
