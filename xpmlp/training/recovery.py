"""What becomes of the members that left the finite numbers in an epoch that is over."""

import warnings
from math import prod
from typing import TYPE_CHECKING, Any

from xpmlp.devices.namespace import to_host
from xpmlp.shapes import many
from xpmlp.training.batches import minibatch, orders, windows
from xpmlp.training.checks import any_true
from xpmlp.training.divergence import DivergedError, Divergence, DivergenceWarning, largest
from xpmlp.types import Array

if TYPE_CHECKING:
    from xpmlp.training.trainer import Trainer

TRIES = 10  # restores in a row: the learning rate is a thousandth by then
GIVEN_UP = f"; it was restored {TRIES} times in a row, each at half the learning rate"
ADVICE = (
    ". Try a lower learning rate, clip=1.0, or scaled inputs. The error's .model holds the last "
    "good weights"
)


def recover(trainer: "Trainer", diverged: Array) -> Array:
    """Restore or stop the members that are true in `diverged` (...), and return those restored;
    DivergedError when all have diverged."""
    xp, step = trainer.place.xp, trainer.step
    examine(trainer, diverged)
    restored = restore(trainer, diverged)
    dead = diverged & ~restored
    scale = step.learning_rate_scale
    scale[...] = xp.where(dead[..., None], xp.zeros_like(scale), scale)
    step.alive[...] = xp.where(dead, xp.zeros_like(step.alive), step.alive)
    if any_true(xp, dead) and not any_true(xp, step.alive > 0):
        members = range(prod(trainer.settings.lead))
        divergences = [trainer.divergences.get(k) for k in members]
        first = next(divergence for divergence in divergences if divergence is not None)
        repeated = trainer.settings.on_divergence == "restore"
        raise DivergedError(
            f"training diverged {first}{GIVEN_UP if repeated else ''}",
            trainer.model(),
            divergences,
            advice=ADVICE,
        )
    if any_true(xp, dead):
        warn_of_members(trainer, dead)
    return restored


def warn_of_members(trainer: "Trainer", dead: Array) -> None:
    """Say which members have diverged, and that the others go on."""
    members = [k for k, is_dead in enumerate(to_host(dead).reshape(-1)) if is_dead]
    first = trainer.divergences[members[0]]
    names = ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")
    verb = "is" if len(members) == 1 else "are"
    warnings.warn(
        f"{many(len(members), 'member')} diverged and {verb} stopped: {names}. "
        f"Member {members[0]} {first}. The other members train on",
        DivergenceWarning,
        stacklevel=2,
    )


def examine(trainer: "Trainer", diverged: Array) -> None:
    """Find out where the members that are true in `diverged` (...) left the finite numbers."""
    step, last = trainer.step, trainer.steps_per_epoch - 1
    first = int(trainer.state.step) - trainer.steps_per_epoch
    hosts = (to_host(part).reshape(-1) for part in (diverged, step.alive, step.finite_steps))
    for k, (has_diverged, alive, finite_steps) in enumerate(zip(*hosts, strict=True)):
        if has_diverged:
            t = last if alive else int(finite_steps)  # the last left bad weights
            rate, gradients = (to_list(part, k) for part in step_again(trainer, t))
            trainer.divergences[k] = Divergence(
                first + t + 1, trainer.epoch, rate[0], tuple(gradients)
            )


def step_again(trainer: "Trainer", t: int) -> tuple[Array, list[Array]]:
    """The learning rate (...) and each layer's largest gradient (...) of update t, from 0, of the
    epoch that is over, at the weights that it was tried at. Rate and step stay."""
    xp, step, state, size = trainer.place.xp, trainer.step, trainer.state, trainer.batch_size
    kept_step, kept_rate = (xp.asarray(p, copy=True) for p in (state.step, step.learning_rate))
    order = orders(trainer.settings, trainer.epoch - 1, trainer.data.rows)
    part = order[..., t * size : (t + 1) * size]
    (gather,) = windows(trainer.place, trainer.data, part, size, 1, trainer.row_weights)
    state.step[...] = kept_step - trainer.steps_per_epoch + t
    step.engine.restart()
    step.set_learning_rate()
    step.fill_gradient(minibatch(gather(), 0))
    rate = xp.asarray(step.learning_rate[..., 0], copy=True)
    state.step[...], step.learning_rate[...] = kept_step, kept_rate
    pairs = zip(trainer.spec.layers, state.grads, strict=True)
    return rate, [largest(xp, layer.unpack(grads), rate) for layer, grads in pairs]


def to_list(value: Any, k: int) -> list[float]:
    """Member k's number in each of one or several arrays (...)."""
    arrays = value if isinstance(value, list) else [value]
    return [float(to_host(array).reshape(-1)[k]) for array in arrays]


def restore(trainer: "Trainer", diverged: Array) -> Array:
    """Give the members in `diverged` their best weights back, with empty slots and half the
    learning rate; returns those that have them. None where each of the last TRIES epochs ended so.
    """
    xp, step, state = trainer.place.xp, trainer.step, trainer.state
    if trainer.settings.on_divergence != "restore":
        return xp.zeros_like(diverged)
    before = trainer.history.get("restored", [])[-TRIES:]
    if len(before) == TRIES:
        exhausted = xp.asarray(prod(before), device=trainer.place.device) > 0
        diverged = diverged & ~exhausted
    column, scale = diverged[..., None], step.learning_rate_scale
    state.params[...] = xp.where(column, trainer.best_params, state.params)
    if step.average is not None:
        step.average[...] = xp.where(column, trainer.best_params, step.average)
    for slot in state.slots:
        slot[...] = xp.where(column, xp.zeros_like(slot), slot)
    step_now = xp.astype(state.step, step.slots_reset_step.dtype)
    step.slots_reset_step[...] = xp.where(column, step_now, step.slots_reset_step)
    step.alive[...] = xp.where(diverged, xp.ones_like(step.alive), step.alive)
    scale[...] = xp.where(column, scale / 2, scale)
    return diverged
