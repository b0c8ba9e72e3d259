"""The training loop: a generator of reports, one per epoch.

The path of one minibatch: order -> take -> Batch -> gradient -> penalty -> clip -> update ->
loss. It never turns back, and nothing on it reads a value from the device: losses add up where
they are and are read once an epoch.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any

from xpmlp.backends.engine import Engine
from xpmlp.backends.namespace import Place, dtype_name, running, to_host
from xpmlp.core.losses import loss
from xpmlp.core.optimizers import Optimizer
from xpmlp.core.random import mask
from xpmlp.core.schedules import Progress, Schedule, constant, schedule
from xpmlp.core.spec import Spec
from xpmlp.core.training import (
    Batch,
    State,
    clip,
    gradient,
    penalize,
    squared_norm,
    update,
)
from xpmlp.core.types import Array, Namespace
from xpmlp.fit.batches import Drawn, Window, drawn, epoch_order, unbiased, unshuffled, windows
from xpmlp.fit.callbacks import early_stopping
from xpmlp.fit.data import Data
from xpmlp.fit.divergence import DivergedError, Trouble, guarded, largest, tally
from xpmlp.fit.inference import scores
from xpmlp.fit.labels import Labels
from xpmlp.fit.memory import Need, explained
from xpmlp.fit.metrics import mean_loss, score_for
from xpmlp.fit.model import Model, snapshot
from xpmlp.fit.settings import Settings

TRIES = 10  # restores in a row: the rate is a thousandth by then
GIVEN_UP = f" (restored {TRIES} times in a row, each at half the rate)"
Penalty = tuple[str, Array]  # "l1" or "l2", and its strength


@dataclass
class Run:
    """One training under way: everything the loop reads and writes. Made by `run.begin`."""

    spec: Spec
    settings: Settings
    place: Place
    optimizer: Optimizer
    state: State
    need: Need
    data: Data
    held: Data | None  # the held-out set, if any
    labels: Labels
    hyper: dict[str, Any]  # hyper-parameters: floats, or arrays against (..., P)
    penalties: tuple[Penalty, ...]  # with strengths against (..., P)
    keys: tuple[Array | None, ...]  # per layer, what its dropout masks are drawn from
    engine: Engine
    throttle: Array  # (..., 1) factor on the rate: 1, less after a plateau, 0 = stopped
    kept: Array  # (..., P) the parameters that training will return
    best: Array  # (...) the lowest watched value so far
    best_epoch: Array  # (...) int64, the epoch it was reached in
    weigh: Callable[..., Any] = unbiased  # what the rows of a batch weigh
    score: Callable[..., Array] | None = None  # a metric; None is the one that suits the loss
    history: dict[str, list[Any]] = field(default_factory=dict)
    epoch: int = 0  # epochs done
    within: int = 0  # steps done of the epoch under way
    seconds: float = 0.0
    halted: int = 0  # the signal that asks to stop after the present step (see `interruption`)
    attend: Callable[[], Any] = field(default=lambda: None, repr=False)  # after every window

    def __post_init__(self) -> None:
        xp = self.place.xp
        self.met = xp.zeros_like(self.best)  # (...) mean loss of the epoch under way, so far
        self.norm = xp.zeros_like(self.best)  # (...) of the last gradient, unclipped
        self.alive = xp.ones_like(self.best)  # (...) 1, or 0 since a step that was not finite
        # (...) of the epoch under way, exact up to 2**24 in float32
        self.made = xp.zeros_like(self.best)
        self.since = xp.zeros_like(self.throttle)  # (..., 1) the step when memory was empty
        self.base = xp.zeros_like(self.throttle)  # (..., 1) the epoch's rate before its schedule
        self.rate = xp.zeros_like(self.throttle)  # (..., 1) of the last update
        self.troubles: dict[int, Trouble] = {}  # by member
        self.guarded = guarded(self.optimizer)
        held = {"rate": self.rate, "alive": self.alive[..., None], "since": self.since}
        self.h = SimpleNamespace(**self.hyper | held)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """All that a step changes."""
        state = self.state
        trained = (state.step, state.params, state.grad, *state.memory)
        accounts = (self.met, self.rate, self.norm, self.alive, self.made)
        return (*trained, *accounts, self.since)

    @property
    def batch(self) -> int:
        return min(self.settings.batch, self.data.rows)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.data.rows // self.batch)

    def turns(self, steps: int, first: int = 0) -> Iterator[int]:
        """The steps of a window in turn, until a signal asks to stop; `within` counts them."""
        for t in range(first, steps):
            yield t
            self.within += 1
            if self.halted:
                return

    def model(self) -> Model:
        """A model with a copy of the parameters kept so far."""
        return snapshot(self.spec, self.place, self.kept, self.labels, self.history)


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
        """Multiply the learning rate from here on, one factor for all or one per member."""
        throttle(self.run, factor)

    def stop(self, which: Any = True) -> None:
        """End training after this epoch, of all or of the members that are true in `which`."""
        xp, device = self.run.place.xp, self.run.place.device
        ended = xp.astype(xp.asarray(which, device=device), xp.bool)
        throttle(self.run, 1.0 - xp.astype(ended, self.run.throttle.dtype))


def throttle(run: Run, factor: Any) -> None:
    xp, now = run.place.xp, run.throttle
    factors = xp.asarray(factor, dtype=now.dtype, device=run.place.device)
    now[...] = now * (factors[..., None] if factors.ndim else factors)


def stopped(run: Run) -> bool:
    return not bool(run.place.xp.any(run.throttle > 0))


def masks(run: Run, batch: Batch) -> tuple[Array | None, ...]:
    """Dropout factors of this step for every layer; () where no layer has dropout."""
    if not any(layer.dropout for layer in run.spec.layers):
        return ()
    rows, dtype = batch.weight.shape[-1], dtype_name(run.state.params)
    xp, step, apply = run.engine.xp, run.state.step, run.engine.apply
    return tuple(
        None
        if key is None
        else mask(xp, key, step, layer.dropout, (rows, layer.n_out), dtype, apply=apply)
        for key, layer in zip(run.keys, run.spec.layers, strict=True)
    )


def progress(run: Run) -> Progress:
    step = run.place.xp.astype(run.state.step, run.state.params.dtype)
    epoch = step / run.steps_per_epoch
    return Progress(step, epoch, epoch / run.settings.epochs)


def scaled(
    xp: Namespace, moving: Schedule, base: Array, step: Array, epoch: Array, fraction: Array
) -> tuple[Array]:
    """The rate (..., 1): a schedule's factor, an array or as well a Python number, times base."""
    return (base * moving(xp, Progress(step, epoch, fraction)),)


def pace(run: Run) -> None:
    """The rate of the update to come."""
    moving, fast = schedule(run.settings.schedule), run.engine
    if moving is not constant:
        fast.apply(scaled, fast.xp, moving, run.base, *progress(run), into=(run.rate,))


def learn(run: Run, batch: Drawn) -> Array:
    """Fill the gradient from a minibatch, penalties included; its loss (...)."""
    state, fast = run.state, run.engine
    value = gradient(
        fast.xp, run.spec, state, batch.batch, masks(run, batch.batch), apply=fast.apply
    )
    for name, strength in run.penalties:
        cost = penalize(fast.xp, state, name, strength, batch.scale, apply=fast.apply)
        value = value + cost
    return fast.xp.asarray(value)  # no scalar of NumPy's


def step(run: Run, batch: Drawn) -> None:
    """One update, which adds its loss to `run.met`; none where that or the gradient is not
    finite, or was not before."""
    state, fast, limit = run.state, run.engine, run.settings.clip
    fast.restart()
    pace(run)
    value = learn(run, batch)
    seen = (value, batch.share, squared_norm(fast.xp, state.grad))
    accounts = (run.alive, run.met, run.made)
    fast.apply(tally, fast.xp, *seen, *accounts, into=(run.norm, *accounts))
    if limit is not None:
        clip(fast.xp, state, limit, run.norm)
    update(fast.xp, run.guarded, state, run.h, apply=fast.apply)


def advance(run: Run, window: Window, t: int) -> None:
    """Update t of a window."""
    step(run, drawn(window, t))


def train_epoch(run: Run) -> None:
    """Every row once, in minibatches; leaves `run.met`, `run.rate`, `run.norm`, `run.made`.

    An epoch under way goes on after its `within` steps; one that a signal stops is left there.
    """
    xp, s, way = run.place.xp, run.settings, run.engine.way
    if not run.within:
        run.met[...] = run.made[...] = xp.zeros_like(run.met)
    run.base[...] = run.hyper["rate"] * run.throttle  # with what callbacks made of it
    run.rate[...] = run.base
    orders = (epoch_order if s.shuffle else unshuffled)(s.seeds, s.lead, run.epoch, run.data.rows)
    numbers = prod(s.lead) * run.batch * (run.data.x.shape[1] + run.data.target.shape[1])
    steps = way.window(run.steps_per_epoch, numbers)
    left = orders[..., run.within * run.batch :]
    for window in windows(run.place, run.data, left, run.batch, steps, run.weigh):
        way.run(advance, run, window)
        if run.halted:
            break
        run.attend()


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
    wanted = better if (s.keep or ("best" if run.held else "last")) == "best" else alive
    run.kept = xp.where(wanted[..., None], run.state.params, run.kept)


def one_epoch(run: Run) -> dict[str, Any] | None:
    """Train an epoch, measure it, keep what is to be kept; the numbers on the host.

    None where a signal stops it before its last step.
    """
    xp, before = run.place.xp, run.throttle
    started = time.perf_counter()
    with running(run.place), explained(run.need):
        with run.engine.way.open():
            train_epoch(run)
        if run.within < run.steps_per_epoch:
            run.seconds += time.perf_counter() - started
            return None
        run.epoch, run.within = run.epoch + 1, 0
        run.met[...] = xp.where(run.alive > 0, run.met, xp.full_like(run.met, float("nan")))
        val_loss, val_score = measured(run, run.held) if run.held else (None, None)
        finite = (run.alive > 0) & xp.isfinite(xp.sum(run.state.params, axis=-1))
        active = before[..., 0] > 0
        lost = active & ~finite
        value, good = watched(run, val_loss, val_score), finite & active
        if trouble := bool(xp.any(lost)):
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


def again(run: Run, t: int) -> tuple[Array, list[Array]]:
    """The rate (...) and each layer's largest gradient (...) of update t, from 0, of the epoch
    that is over, at the weights that it was tried at. The run's rate and step stay."""
    xp, s, state = run.place.xp, run.settings, run.state
    step_now, rate = (xp.asarray(part, copy=True) for part in (state.step, run.rate))
    order = (epoch_order if s.shuffle else unshuffled)(
        s.seeds, s.lead, run.epoch - 1, run.data.rows
    )
    part = order[..., t * run.batch : (t + 1) * run.batch]
    (window,) = windows(run.place, run.data, part, run.batch, 1, run.weigh)
    state.step[...] = step_now - run.steps_per_epoch + t
    run.engine.restart()
    pace(run)
    learn(run, drawn(window, 0))
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
    if bool(xp.any(dead)) and not bool(xp.any(run.alive > 0)):
        members = range(prod(run.settings.lead))
        troubles = [run.troubles.get(k) for k in members]
        which = next(trouble for trouble in troubles if trouble is not None)
        raise DivergedError(
            f"training diverged {which}. Try a lower rate, clip=1.0, or scaled inputs"
            f"{GIVEN_UP if run.settings.on_divergence == 'restore' else ''}. The error's .model "
            "holds the last good weights",
            run.model(),
            troubles,
        )
    return back


def reports(run: Run) -> Iterator[Report]:
    """Train epoch by epoch until all are done or every member has stopped."""
    try:
        yield from epoch_by_epoch(run)
    finally:
        run.engine.way.close()


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
