"""The trainer: minibatches, epochs, held-out measures, the best weights, reports.

An epoch draws an order, takes its minibatches a window at a time, and an executor makes their
steps. What it comes to is read from the device once, at its end.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from xpmlp.devices.namespace import (
    CPU,
    Place,
    dtype_name,
    is_array,
    place_of,
    running,
    to_host,
)
from xpmlp.devices.threads import limit_threads
from xpmlp.devices.words import release
from xpmlp.layout import windows as windows_onto
from xpmlp.losses import loss
from xpmlp.recording.engine import Engine
from xpmlp.recording.executors import StepCounter
from xpmlp.spec import Spec
from xpmlp.step import State, new_state
from xpmlp.training.batches import orders, unbiased, windows
from xpmlp.training.callbacks import early_stopping
from xpmlp.training.checks import all_finite, all_true, any_true
from xpmlp.training.data import Data, move
from xpmlp.training.divergence import Divergence
from xpmlp.training.held_out import check_metrics, measure_metrics
from xpmlp.training.inference import scores
from xpmlp.training.labels import Labels
from xpmlp.training.memory import MemoryEstimate, explain_memory_error
from xpmlp.training.metrics import mean_loss, score_for
from xpmlp.training.model import Model, snapshot
from xpmlp.training.recovery import recover
from xpmlp.training.report import Report
from xpmlp.training.settings import Settings
from xpmlp.training.setup import (
    choose_engine,
    dropout_keys_of,
    hyperparameters,
    optimizer_of,
    penalties,
)
from xpmlp.training.training_step import TrainingStep
from xpmlp.types import Array

Callbacks = Sequence[Callable[[Report], Any]]


@dataclass
class Start:
    """What a training starts from: weights, and what one before it left."""

    params: Array  # (..., P)
    slots: Sequence[Array] = ()  # the optimizer's, each (..., P); none are zero
    step: int = 0  # updates done
    epoch: int = 0  # epochs done
    best_params: Array | None = None  # (..., P) None is `params`
    best_value: float = float("inf")
    best_epoch: int = 0


class Trainer:
    """One training under way."""

    def __init__(
        self,
        spec: Spec,
        settings: Settings,
        place: Place,
        data: Data,
        start: Start,
        *,
        labels: Labels,
        need: MemoryEstimate,
        val_data: Data | None = None,
        row_weights: Callable[..., Any] = unbiased,
        metric: Callable[..., Array] | None = None,
        metrics: Any = None,
        history: dict[str, list[Any]] | None = None,
        signature: Callable[["Trainer"], Any] | None = None,
        single_epoch: bool = False,
        engine: Engine | None = None,
    ) -> None:
        """row_weights: what the rows of a batch weigh. metric: None is the one that suits the
        loss. metrics: functions (y, prediction) by name, of the held-out rows. signature: what is
        asked for, as its caller says it; None are the settings. single_epoch: whether its caller
        ends it after an epoch. engine: of a training before, which is used again where it suits.
        """
        xp, device = place.xp, place.device
        self.spec, self.settings, self.place, self.need = spec, settings, place, need
        self.data, self.val_data, self.labels = data, val_data, labels
        self.row_weights = row_weights
        self.metric = metric or score_for(loss(spec.loss))
        self.metrics = check_metrics(metrics)
        self.history = {} if history is None else history
        self.signature = signature or (lambda trainer: trainer.settings)
        self.single_epoch = single_epoch
        self.first_epoch = self.epoch = start.epoch
        self.batch_size = min(settings.batch_size, data.rows)
        self.steps_per_epoch = -(-data.rows // self.batch_size)
        optimizer = optimizer_of(spec, settings)
        state = new_state(xp, spec, optimizer, start.params)
        state.step[...] = start.step
        for buffer, value in zip(state.slots, start.slots, strict=False):
            buffer[...] = move(place, value, dtype_name(state.params), "slots")
        chosen = choose_engine(place, spec, settings, data, start.epoch)
        if engine is not None and engine.executor.name == chosen.executor.name:
            chosen = engine
        ones = xp.ones((*settings.lead, 1), dtype=state.params.dtype, device=device)
        self.step = TrainingStep(
            spec=spec,
            settings=settings,
            steps_per_epoch=self.steps_per_epoch,
            optimizer=optimizer,
            engine=chosen,
            state=state,
            hyperparameters=hyperparameters(place, spec, settings, state.params),
            penalties=penalties(place, spec, settings, state.params),
            dropout_keys=dropout_keys_of(place, spec, settings),
            learning_rate_scale=ones,
            average=None if settings.ema_decay is None else xp.asarray(state.params, copy=True),
        )
        lead, dtype = settings.lead, state.params.dtype
        # (...) the lowest watched value so far, and the epoch it was reached in
        self.best_value = xp.full(lead, start.best_value, dtype=dtype, device=device)
        self.best_epoch = xp.full(lead, start.best_epoch, dtype=xp.int64, device=device)
        # (..., P) the parameters that training will return
        self.best_params = start.params if start.best_params is None else start.best_params
        self.counter = StepCounter()
        self.seconds = 0.0
        self.extra_state: dict[str, Any] = {}  # numbers that its caller goes on from
        self.divergences: dict[int, Divergence] = {}  # by member
        self.next_order: tuple[int, Array] | None = None  # an epoch with its order, drawn ahead
        self.after_window: Callable[[], Any] = lambda: None

    @property
    def state(self) -> State:
        return self.step.state

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights are kept, and not the last."""
        return (self.settings.keep or ("best" if self.val_data else "last")) == "best"

    @property
    def stopped(self) -> bool:
        """Whether no member goes on."""
        with running(self.place):
            return not bool(self.place.xp.max(self.step.learning_rate_scale) > 0)

    def model(self) -> Model:
        """A model with a copy of the parameters kept so far."""
        return snapshot(self.spec, self.place, self.best_params, self.labels, self.history)

    # Epochs

    def reports(
        self, callbacks: Callbacks = (), writer: Any = None
    ) -> Generator[Report, None, None]:
        """Train epoch by epoch until all are done, every member has stopped, or a signal asks to;
        a report each, after the callbacks were asked whether to go on.

        writer: the checkpoint's, which comes last, and once more where a signal stops.
        """
        try:
            while self.epoch < self.settings.epochs and not self.stopped:
                if self.counter.stop_signal or (numbers := self.run_epoch()) is None:
                    break
                report = self.record(numbers)
                for callback in callbacks:
                    answer = callback(report)
                    if answer is not None:
                        self.stop(answer, "what a callback returns")
                if writer:
                    writer(report)
                yield report
            if self.counter.stop_signal and writer:
                writer.write()
        finally:
            for callback in callbacks:
                getattr(callback, "close", lambda: None)()
            self.step.engine.executor.close()
            release(self.place)  # of what was lent to streams that are gone

    def record(self, numbers: dict[str, Any]) -> Report:
        """The report of the epoch that is over, whose numbers go into the history."""
        for name, value in numbers.items():
            self.history.setdefault(name, []).append(value)
        report = Report(
            epoch=self.epoch,
            epochs=self.settings.epochs,
            step=int(self.state.step),
            trainer=self,
            metrics={name: numbers.pop(name) for name in self.metrics},
            **numbers,
        )
        if self.settings.patience is not None:  # before the report: a checkpoint must hold it
            report.stop(early_stopping(self.settings.patience)(report))
        return report

    def run_epoch(self) -> dict[str, Any] | None:
        """Train an epoch, measure it, keep what is to be kept; the numbers on the host.

        None where a signal stops it before its last step: it goes on after the steps in `counter`.
        """
        started, step, counter = time.perf_counter(), self.step, self.counter
        threads = limit_threads(self.settings.n_threads)  # of what is measured too
        with running(self.place), explain_memory_error(self.need), threads:
            active = step.learning_rate_scale[..., 0] > 0
            self.begin_epoch()
            with step.engine.executor.open():
                for gather in self.windows():
                    step.engine.executor.run(step, gather, counter)
                    if counter.stop_signal:
                        break
                    self.after_window()
            self.seconds += time.perf_counter() - started
            if counter.in_epoch < self.steps_per_epoch:
                return None
            self.epoch, counter.in_epoch, started = self.epoch + 1, 0, time.perf_counter()
            numbers = self.measure_epoch(active)
            self.seconds += time.perf_counter() - started
            return numbers | {"seconds": self.seconds}

    def begin_epoch(self) -> None:
        """The epoch's learning rate, with what callbacks made of it; its accounts, which are empty
        where it is not under way already."""
        step = self.step
        if not self.counter.in_epoch:
            if self.settings.on_divergence == "restore" and self.epoch == self.first_epoch:
                self.measure_initial()
            step.running_loss[...] = step.finite_steps[...] = self.place.xp.zeros_like(step.alive)
        base = step.hyperparameters["learning_rate"] * step.learning_rate_scale
        step.base_learning_rate[...] = base
        step.learning_rate[...] = step.base_learning_rate

    def windows(self) -> Iterator[Callable[..., Any]]:
        """What gathers each window of the minibatches that are left of the epoch."""
        settings, size = self.settings, self.batch_size
        numbers = self.data.x.shape[1] + self.data.target.shape[1]
        steps = self.step.engine.executor.window(
            self.steps_per_epoch, prod(settings.lead) * size * numbers
        )
        left = self.order(self.epoch)[..., self.counter.in_epoch * size :]
        yield from windows(self.place, self.data, left, size, steps, self.row_weights)
        has_next_epoch = self.epoch + 1 < settings.epochs and not self.single_epoch
        if self.place.xp is not CPU.xp and has_next_epoch:
            # while the device is at work: nothing has waited for it yet
            self.next_order = (self.epoch + 1, orders(settings, self.epoch + 1, self.data.rows))

    def order(self, epoch: int) -> Array:
        """The order (..., N) of the rows in an epoch, which may have been drawn ahead."""
        next_order, self.next_order = self.next_order, None
        if next_order is not None and next_order[0] == epoch:
            return next_order[1]
        return orders(self.settings, epoch, self.data.rows)

    # What an epoch came to

    def measure(self, data: Data) -> tuple[Array, Array]:
        """Loss and score (...) of the present weights on `data`, without dropout."""
        xp, measure = self.place.xp, loss(self.spec.loss)
        params = windows_onto(xp, self.spec, self.step.weights)
        score = scores(xp, self.spec, params, data.x)
        arguments = (xp, measure, score, data.target, data.weight)
        return mean_loss(*arguments), self.metric(*arguments)

    def measure_epoch(self, active: Array) -> dict[str, Any]:
        """The numbers of the epoch, on the host; the best weights are kept, and members that
        diverged are restored or stopped. active: (...) the members that trained."""
        xp, step = self.place.xp, self.step
        if (rate := float(xp.min(step.learning_rate))) < 0:
            raise ValueError(
                f"schedule gives a negative learning rate, {rate:g}, after epoch {self.epoch}"
            )
        step.running_loss[...] = xp.where(
            step.alive > 0, step.running_loss, xp.full_like(step.running_loss, float("nan"))
        )
        val_loss, val_score = self.measure(self.val_data) if self.val_data else (None, None)
        finite = (step.alive > 0) & xp.isfinite(xp.sum(self.state.params, axis=-1))
        diverged = active & ~finite
        value, usable = self.watched(val_loss, val_score), finite & active
        if has_diverged := any_true(xp, diverged):
            # before a step that cannot be made, weights may still be good ones
            usable = active & (finite | xp.isfinite(self.measure(self.data)[0]))
        self.keep(value, usable)
        restored = recover(self, diverged) if has_diverged else xp.zeros_like(diverged)
        return {
            "loss": on_host(step.running_loss),
            "learning_rate": on_host(step.learning_rate[..., 0]),
            "grad_norm": on_host(step.grad_norm),
            "val_loss": None if val_loss is None else on_host(val_loss),
            "val_score": None if val_score is None else on_host(val_score),
            "best_epoch": on_host(self.best_epoch),
            "executor": step.engine.executor.name,
            "restored": on_host(xp.astype(restored, xp.int64)),
        } | measure_metrics(self.metrics, self, self.val_data or self.data)

    def watched(self, val_loss: Array | None, val_score: Array | None) -> Array:
        """What the best weights and patience go by, lower is better, (...).

        The held-out loss or score; without a held-out set the training loss, measured again at
        the epoch's end where the best weights are asked for.
        """
        if val_loss is None or val_score is None:
            keeps = self.settings.keep == "best"
            return self.measure(self.data)[0] if keeps else self.step.running_loss
        return val_loss if self.settings.monitor == "val_loss" else -val_score

    def keep(self, value: Array, alive: Array) -> None:
        """Take the present weights of the members that are to be kept, by value."""
        xp = self.place.xp
        better = alive & (value < self.best_value - self.settings.min_delta)
        epoch = xp.full_like(self.best_epoch, self.epoch)
        self.best_value = xp.where(better, value, self.best_value)
        self.best_epoch = xp.where(better, epoch, self.best_epoch)
        kept = better if self.keeps_best else alive
        self.best_params = xp.where(kept[..., None], self.step.weights, self.best_params)

    def measure_initial(self) -> None:
        """Let the first weights be the best so far, which a restored training may have to go on
        from: a step on the way out of the finite numbers leaves weights that are finite, and no
        good."""
        if self.val_data:
            value = self.watched(*self.measure(self.val_data))
        else:
            value = self.measure(self.data)[0]
        xp = self.place.xp
        self.best_value = xp.where(xp.isfinite(value), value, self.best_value)

    # What a callback may do

    def scale_learning_rate(self, factor: Any) -> None:
        """Multiply the learning rate, one factor for all or one per member."""
        with running(self.place):
            factors = self.from_callback(factor, "factor")
            if bool(self.place.xp.min(factors) < 0):
                raise ValueError(f"factor must be at least 0; got {factor!r}")
            self.multiply_scale(factors)

    def stop(self, members: Any, name: str) -> None:
        """No more updates of the members that are true in `members`; ValueError for what is not a
        boolean: a callback that happens to return its loss must not end a training."""
        with running(self.place):
            ended = self.from_callback(members, name, "true or false")
            if not all_true(self.place.xp, (ended == 0) | (ended == 1)):
                raise ValueError(f"{name} must be true or false; got {members!r}")
            self.multiply_scale(1.0 - ended)

    def multiply_scale(self, factors: Array) -> None:
        scale = self.step.learning_rate_scale
        scale[...] = scale * (factors[..., None] if factors.ndim else factors)

    def from_callback(self, value: Any, name: str, kind: str = "finite numbers") -> Array:
        """A callback's numbers or booleans as an array: one for all (), or one per member (K,)."""
        xp, array = self.place.xp, None
        if is_array(value) and place_of(value).name != self.place.name:
            value = to_host(value)
        with suppress(TypeError, ValueError):
            dtype = self.step.learning_rate_scale.dtype
            array = xp.asarray(value, dtype=dtype, device=self.place.device)
        if array is None or not all_finite(xp, array):
            raise ValueError(f"{name} must be {kind}; got {value!r}")
        if tuple(array.shape) not in ((), self.settings.lead):
            allowed = f"one or {self.settings.members}" if self.settings.lead else "one"
            raise ValueError(f"{name} must be {allowed}; got an array {tuple(array.shape)}")
        return array


def on_host(value: Array) -> Any:
    """A Python number, or a NumPy array (K,)."""
    host = to_host(value)
    return host.item() if host.ndim == 0 else host.copy()
