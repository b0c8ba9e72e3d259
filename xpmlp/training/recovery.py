"""What becomes of the members that left the finite numbers in an epoch that is over."""

from math import prod
from typing import Any

from xpmlp.devices.namespace import to_host
from xpmlp.training.batches import drawn, orders, windows
from xpmlp.training.checks import any_true
from xpmlp.training.divergence import DivergedError, Trouble, largest
from xpmlp.training.steps import Run, learn, pace
from xpmlp.types import Array

TRIES = 10  # restores in a row: the rate is a thousandth by then
GIVEN_UP = f"; it was restored {TRIES} times in a row, each at half the rate"
ADVICE = (
    ". Try a lower rate, clip=1.0, or scaled inputs. The error's .model holds the last good weights"
)


def again(run: Run, t: int) -> tuple[Array, list[Array]]:
    """The rate (...) and each layer's largest gradient (...) of update t, from 0, of the epoch
    that is over, at the weights that it was tried at. The run's rate and step stay."""
    xp, state = run.place.xp, run.state
    step_now, rate = (xp.asarray(part, copy=True) for part in (state.step, run.rate))
    order = orders(run.settings, run.epoch - 1, run.data.rows)
    part = order[..., t * run.batch : (t + 1) * run.batch]
    (gather,) = windows(run.place, run.data, part, run.batch, 1, run.weigh)
    state.step[...] = step_now - run.steps_per_epoch + t
    run.engine.restart()
    pace(run)
    learn(run, drawn(gather(), 0))
    found = xp.asarray(run.rate[..., 0], copy=True)
    state.step[...], run.rate[...] = step_now, rate
    return found, [largest(xp, layer) for layer in state.grads]


def examine(run: Run, lost: Array) -> None:
    """Find out where the members that are true in `lost` (...) left the finite numbers."""
    first = int(run.state.step) - run.steps_per_epoch
    hosts = (to_host(part).reshape(-1) for part in (lost, run.alive, run.made))
    for k, (gone, alive, made) in enumerate(zip(*hosts, strict=True)):
        if gone:
            t = run.steps_per_epoch - 1 if alive else int(made)  # the last left bad weights
            rate, sizes = (to_list(part, k) for part in again(run, t))
            run.troubles[k] = Trouble(first + t + 1, run.epoch, rate[0], tuple(sizes))


def to_list(value: Any, k: int) -> list[float]:
    """Member k's number in each of one or several arrays (...)."""
    listed = value if isinstance(value, list) else [value]
    return [float(to_host(one).reshape(-1)[k]) for one in listed]


def restored(run: Run, lost: Array) -> Array:
    """Put the kept weights of the members in `lost` back, with an empty memory and half the rate;
    which it was done for. Not where each of the last TRIES epochs ended so."""
    xp, state = run.place.xp, run.state
    if run.settings.on_divergence != "restore":
        return xp.zeros_like(lost)
    before = run.history.get("restored", [])[-TRIES:]
    if len(before) == TRIES:
        spent = xp.asarray(prod(before), device=run.place.device) > 0
        lost = lost & ~spent
    each = lost[..., None]
    state.params[...] = xp.where(each, run.kept, state.params)
    for memory in state.memory:
        memory[...] = xp.where(each, xp.zeros_like(memory), memory)
    step = xp.astype(state.step, run.since.dtype)
    run.since[...] = xp.where(each, step, run.since)
    run.alive[...] = xp.where(lost, xp.ones_like(run.alive), run.alive)
    run.throttle[...] = xp.where(each, run.throttle / 2, run.throttle)
    return lost


def diverged(run: Run, lost: Array) -> Array:
    """Restore or stop the members in `lost` (...); DivergedError when all have diverged. Returns
    those that go on again."""
    xp = run.place.xp
    examine(run, lost)
    back = restored(run, lost)
    dead = lost & ~back
    run.throttle[...] = xp.where(dead[..., None], xp.zeros_like(run.throttle), run.throttle)
    run.alive[...] = xp.where(dead, xp.zeros_like(run.alive), run.alive)
    if any_true(xp, dead) and not any_true(xp, run.alive > 0):
        members = range(prod(run.settings.lead))
        troubles = [run.troubles.get(k) for k in members]
        which = next(trouble for trouble in troubles if trouble is not None)
        again_and_again = run.settings.on_divergence == "restore"
        raise DivergedError(
            f"training diverged {which}{GIVEN_UP if again_and_again else ''}",
            run.model(),
            troubles,
            advice=ADVICE,
        )
    return back
