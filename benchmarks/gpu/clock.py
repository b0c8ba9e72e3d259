"""The times of a contender."""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

WARMUP_EPOCHS = 3  # before timing: they compile and record


class Times(NamedTuple):
    """Microseconds per step; a step of a population is one of each of its networks."""

    epoch: float  # over whole epochs: shuffling, gathering rows and reading the loss included
    step: float  # of the step only, on minibatches that are already gathered


def median_us(
    elapsed: Callable[[Callable[[], object], int], float],
    call: Callable[[], object],
    calls: int,
    rounds: int,
) -> float:
    """The median of rounds, without the first.

    elapsed: from a function and the number of its calls to microseconds per call.
    """
    return float(median([elapsed(call, calls) for _ in range(rounds + 1)][1:]))
