"""Training that leaves the finite numbers: found step by step without a look at the device.

A step whose loss or gradient is no finite number changes nothing, and no later one does: a flag
that lies where training runs holds the parameters and the slots still. Only the epoch's end
reads it. A gradient whose norm is beyond its dtype (1.8e19 in float32, where a rule that squares
it would be lost) counts as one that is no finite number.
"""

from collections.abc import Sequence
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from xpmlp.apply import account
from xpmlp.optimizers import Optimizer, Rule
from xpmlp.step import shortened
from xpmlp.training.model import Model
from xpmlp.types import Array, Namespace

INF = float("inf")


@account
def add_to_accounts(
    xp: Namespace,
    value: Array,
    share: Array,
    squared: Array,
    alive: Array,
    running_loss: Array,
    finite_steps: Array,
) -> tuple[Array, ...]:
    """What a step's loss and squared gradient norm make of the epoch's accounts, all (...).

    Returns the norm; whether all was finite so far, 1 or 0; the running loss; the finite steps.
    """
    finite = (alive > 0) & (xp.abs(value) < INF) & (squared < INF)
    alive = xp.astype(finite, running_loss.dtype)
    return xp.sqrt(squared), alive, running_loss + value * share, finite_steps + alive


@lru_cache(maxsize=64)  # the same function again, so that what was made of it is found
def frozen(rule: Rule, limit: float | None = None) -> Rule:
    """`rule` where h.alive is 1; where it is 0, everything stays as it is. The slots are empty
    since the step h.slots_reset_step; the gradient's norm h.grad_norm is clipped to `limit`."""

    @wraps(rule)
    def guarded_rule(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, *slots: Array) -> Any:
        g = g if limit is None else shortened(xp, limit, h.grad_norm, g)
        results = rule(xp, h, t - h.slots_reset_step, theta, g, *slots)
        return tuple(
            xp.where(h.alive > 0, new, old)
            for new, old in zip(results, (theta, *slots), strict=True)
        )

    return guarded_rule


def guarded(optimizer: Optimizer, clip: float | None = None) -> Optimizer:
    """An optimizer that stands still where h.alive is 0, and clips the gradient."""
    matrix_rule = optimizer.matrix_rule and frozen(optimizer.matrix_rule, clip)
    return optimizer._replace(rule=frozen(optimizer.rule, clip), matrix_rule=matrix_rule)


class Divergence(NamedTuple):
    """Where one network left the finite numbers."""

    step: int  # the update that could not be made, from 1 over all epochs
    epoch: int
    learning_rate: float  # of that step
    gradients: tuple[float, ...]  # the largest absolute one of each layer; inf: not finite

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:.2g}" for size in self.gradients)
        return (
            f"in epoch {self.epoch} at step {self.step} at learning rate {self.learning_rate:g}: "
            "its loss or gradient, or a weight after it, is not finite in the dtype. Largest "
            f"gradient, layer by layer: {sizes} (inf: not finite)"
        )


class DivergenceWarning(UserWarning):
    """Members of a population left the finite numbers; the others train on."""


class DivergedError(ValueError):
    """Training left the finite numbers.

    Attributes
    ----------
    model : Model
        The last good weights.
    step : int
        The update that could not be made, from 1. For a population a tuple with one entry per
        member, None where that is not known, as are the next two.
    learning_rate : float
        Of that update.
    gradients : tuple of float
        The largest absolute gradient of each layer; inf is not finite.
    happened : str
        The message without its advice.

    Examples
    --------
    >>> import xpmlp
    >>> try:
    ...     xpmlp.train("1-1", [[0.0], [1e3]], [1.0, 3.0], optimizer="sgd", learning_rate=10.0)
    ... except xpmlp.DivergedError as error:
    ...     print(error.step > 1, error.learning_rate)
    True 10.0
    """

    step: Any
    learning_rate: Any
    gradients: Any

    def __init__(
        self,
        happened: str,
        model: Model | None = None,
        divergences: Sequence[Divergence | None] = (),
        advice: str = "",
    ) -> None:
        super().__init__(happened + advice)
        self.happened, self.model = happened, model
        several = model is not None and model.members is not None
        for name in ("step", "learning_rate", "gradients"):
            each = tuple(getattr(one, name, None) for one in divergences)
            setattr(self, name, each if several else (each or (None,))[0])


def largest(xp: Namespace, blocks: Sequence[Array], like: Array) -> Array:
    """The largest absolute number of a layer's gradients, in the shape of `like` (...); inf where
    one is not finite."""
    found = xp.zeros_like(like)
    for block in blocks:
        flat = xp.reshape(block, (*like.shape, -1))
        finite = xp.where(xp.isfinite(flat), xp.abs(flat), xp.full_like(flat, INF))
        found = xp.maximum(found, xp.max(finite, axis=-1))
    return found
