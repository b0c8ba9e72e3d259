"""The training loop: a generator of reports, one per epoch.

An epoch draws an order, takes its minibatches a window at a time, and has each make its step
(see `steps`). What it comes to is read from the device once, at its end.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from xpmlp.devices.namespace import CPU, is_array, place_of, running, to_host
from xpmlp.devices.threads import limited
from xpmlp.devices.words import release
from xpmlp.losses import loss
from xpmlp.training.batches import orders, windows
from xpmlp.training.callbacks import early_stopping
from xpmlp.training.checks import all_finite, all_true, any_true
from xpmlp.training.data import Data
from xpmlp.training.inference import scores
from xpmlp.training.memory import explained
from xpmlp.training.metrics import mean_loss, score_for
from xpmlp.training.model import Model
from xpmlp.training.recovery import diverged
from xpmlp.training.steps import Run, advance
from xpmlp.types import Array


@dataclass(frozen=True)
class Report:
    """What one epoch came to. Numbers are floats, or arrays (K,) for a population."""

    epoch: int  # epochs done
    epochs: int  # epochs planned
    step: int  # updates done
    loss: Any  # weighted mean over the epoch's rows, penalty included, as met while training
    rate: Any  # learning rate of the epoch's last update
    grad_norm: Any  # norm of the gradient of the epoch's last update, before clipping
    val_loss: Any  # on the held-out set; None without one
    val_score: Any  # accuracy, R2 or minus the loss (see metrics.score_for); None without one
    best_epoch: Any  # epoch of the best watched value so far
    seconds: float  # spent training so far
    way: str  # how the steps were run: "eager", "replayed", or "captured" as a CUDA graph
    restored: Any  # 1 where the weights were put back after a divergence, else 0
    run: Run = field(repr=False)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The same numbers of every epoch up to this one."""
        return {name: values[: self.epoch] for name, values in self.run.history.items()}

    def model(self) -> Model:
        """A model with a copy of the weights kept so far; later training leaves it alone.

        Raises RuntimeError when training has gone on: the weights of this epoch are gone.
        """
        if self.run.epoch != self.epoch:
            raise RuntimeError(
                f"this is the report of epoch {self.epoch}, and training is at epoch "
                f"{self.run.epoch}: ask for model() when the report comes"
            )
        return self.run.model()

    def scale_rate(self, factor: Any) -> None:
        """Multiply the learning rate from here on, one factor for all or one per member.

        ValueError where one is below 0 or not finite.
        """
        with running(self.run.place):
            factors = from_callback(self.run, factor, "factor")
            if bool(self.run.place.xp.min(factors) < 0):
                raise ValueError(f"factor must be at least 0; got {factor!r}")
            throttle(self.run, factors)

    def stop(self, which: Any = True) -> None:
        """End training after this epoch, of all or of the members that are true in `which`."""
        stop_members(self.run, which, "which")


def stop_members(run: Run, which: Any, name: str) -> None:
    """No more updates of the members that are true in `which`; ValueError for what is no truth:
    a callback that happens to return its loss must not end a training."""
    with running(run.place):
        ended = from_callback(run, which, name)
        if not all_true(run.place.xp, (ended == 0) | (ended == 1)):
            raise ValueError(f"{name} must be true or false; got {which!r}")
        throttle(run, 1.0 - ended)


def from_callback(run: Run, given: Any, name: str) -> Array:
    """A callback's numbers or truths as an array: one for all (), or one per member (K,)."""
    xp, found = run.place.xp, None
    if is_array(given) and place_of(given).name != run.place.name:
        given = to_host(given)
    with suppress(TypeError, ValueError):
        found = xp.asarray(given, dtype=run.throttle.dtype, device=run.place.device)
    if found is None or not all_finite(xp, found):
        raise ValueError(f"{name} must be finite numbers; got {given!r}")
    if tuple(found.shape) not in ((), run.settings.lead):
        allowed = f"one or {run.settings.members}" if run.settings.lead else "one"
        raise ValueError(f"{name} must be {allowed}; got an array {tuple(found.shape)}")
    return found


def throttle(run: Run, factors: Array) -> None:
    now = run.throttle
    now[...] = now * (factors[..., None] if factors.ndim else factors)


def stopped(run: Run) -> bool:
    """Whether no member goes on."""
    with running(run.place):
        return not bool(run.place.xp.max(run.throttle) > 0)


def train_epoch(run: Run) -> None:
    """Every row once, in minibatches; leaves `run.met`, `run.rate`, `run.norm`, `run.made`.

    An epoch under way goes on after its `within` steps; one that a signal stops is left there.
    """
    xp, s, way = run.place.xp, run.settings, run.engine.way
    if not run.within:
        run.met[...] = run.made[...] = xp.zeros_like(run.met)
    run.base[...] = run.hyper["rate"] * run.throttle  # with what callbacks made of it
    run.rate[...] = run.base
    order = order_of(run, run.epoch)
    numbers = prod(s.lead) * run.batch * (run.data.x.shape[1] + run.data.target.shape[1])
    steps = way.window(run.steps_per_epoch, numbers)
    left = order[..., run.within * run.batch :]
    for gather in windows(run.place, run.data, left, run.batch, steps, run.weigh):
        way.run(advance, run, gather)
        if run.halted:
            return
        run.attend()
    if xp is not CPU.xp and not run.once and run.epoch + 1 < s.epochs:
        # while the device is at work: nothing has waited for it yet
        run.ahead = (run.epoch + 1, orders(s, run.epoch + 1, run.data.rows))


def order_of(run: Run, epoch: int) -> Array:
    """The order (..., N) of the rows in an epoch, which may have been drawn in the one before."""
    ahead, run.ahead = run.ahead, None
    if ahead is not None and ahead[0] == epoch:
        return ahead[1]
    return orders(run.settings, epoch, run.data.rows)


def measured(run: Run, data: Data) -> tuple[Array, Array]:
    """Loss and score (...) of the present weights on `data`, without dropout."""
    xp, measure = run.place.xp, loss(run.spec.loss)
    score = scores(xp, run.spec, run.state.layers, data.x)
    found = (xp, measure, score, data.target, data.weight)
    return mean_loss(*found), (run.score or score_for(measure))(*found)


def watched(run: Run, val_loss: Array | None, val_score: Array | None) -> Array:
    """What the best weights and patience go by, lower is better, (...).

    The held-out loss or score; without a held-out set the training loss, measured again at the
    epoch's end where the best weights are asked for.
    """
    if val_loss is None or val_score is None:
        return measured(run, run.data)[0] if run.settings.keep == "best" else run.met
    return val_loss if run.settings.monitor == "val_loss" else -val_score


def keep(run: Run, value: Array, alive: Array) -> None:
    """Take the present weights of the members that are to be kept, by value."""
    xp, s = run.place.xp, run.settings
    better = alive & (value < run.best - s.min_delta)
    run.best = xp.where(better, value, run.best)
    run.best_epoch = xp.where(better, xp.full_like(run.best_epoch, run.epoch), run.best_epoch)
    wanted = better if run.keeps_best else alive
    run.kept = xp.where(wanted[..., None], run.state.params, run.kept)


def outset(run: Run) -> None:
    """Let the first weights be the best so far, which a restored training may have to go on from:
    a step on the way out of the finite numbers leaves weights that are finite, and no good."""
    value = watched(run, *measured(run, run.held)) if run.held else measured(run, run.data)[0]
    run.best = run.place.xp.where(run.place.xp.isfinite(value), value, run.best)


def one_epoch(run: Run) -> dict[str, Any] | None:
    """Train an epoch, measure it, keep what is to be kept; the numbers on the host.

    None where a signal stops it before its last step.
    """
    xp, before = run.place.xp, run.throttle
    started = time.perf_counter()
    most = run.settings.n_threads  # of what is measured too
    with running(run.place), explained(run.need), limited(most):
        if run.settings.on_divergence == "restore" and run.epoch == run.first and not run.within:
            outset(run)
        with run.engine.way.open():
            train_epoch(run)
        if run.within < run.steps_per_epoch:
            run.seconds += time.perf_counter() - started
            return None
        run.epoch, run.within = run.epoch + 1, 0
        if (rate := float(xp.min(run.rate))) < 0:
            raise ValueError(f"schedule gives a negative rate, {rate:g}, after epoch {run.epoch}")
        run.met[...] = xp.where(run.alive > 0, run.met, xp.full_like(run.met, float("nan")))
        val_loss, val_score = measured(run, run.held) if run.held else (None, None)
        finite = (run.alive > 0) & xp.isfinite(xp.sum(run.state.params, axis=-1))
        active = before[..., 0] > 0
        lost = active & ~finite
        value, good = watched(run, val_loss, val_score), finite & active
        if trouble := any_true(xp, lost):
            # before a step that cannot be made, weights may still be good ones
            good = active & (finite | xp.isfinite(measured(run, run.data)[0]))
        keep(run, value, good)
        back = diverged(run, lost) if trouble else xp.zeros_like(lost)
        run.seconds += time.perf_counter() - started
        return {
            "loss": on_host(run.met),
            "rate": on_host(run.rate[..., 0]),
            "grad_norm": on_host(run.norm),
            "val_loss": None if val_loss is None else on_host(val_loss),
            "val_score": None if val_score is None else on_host(val_score),
            "best_epoch": on_host(run.best_epoch),
            "seconds": run.seconds,
            "way": run.engine.way.name,
            "restored": on_host(xp.astype(back, xp.int64)),
        }


def on_host(value: Array) -> Any:
    """A Python number, or a NumPy array (K,)."""
    host = to_host(value)
    return host.item() if host.ndim == 0 else host.copy()


def reports(run: Run) -> Iterator[Report]:
    """Train epoch by epoch until all are done or every member has stopped."""
    try:
        yield from epoch_by_epoch(run)
    finally:
        run.engine.way.close()
        release(run.place)  # of what was lent to streams that are gone


def epoch_by_epoch(run: Run) -> Iterator[Report]:
    while run.epoch < run.settings.epochs and not stopped(run) and not run.halted:
        numbers = one_epoch(run)
        if numbers is None:
            return
        for name, value in numbers.items():
            run.history.setdefault(name, []).append(value)
        report = Report(
            epoch=run.epoch,
            epochs=run.settings.epochs,
            step=int(run.state.step),
            run=run,
            **numbers,
        )
        if run.settings.patience is not None:  # before the report: a checkpoint must hold it
            report.stop(early_stopping(run.settings.patience)(report))
        yield report
