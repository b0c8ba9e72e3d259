"""The stochastic solvers: an estimator's rows, trainer and epochs."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split

from xpmlp.devices.namespace import Place, place_of, running, to_host, to_place
from xpmlp.estimators.convergence import Convergence
from xpmlp.estimators.network import ResumeState, lists, packed, settings_of
from xpmlp.estimators.signature import signature_of
from xpmlp.layout import windows
from xpmlp.spec import Spec
from xpmlp.training.batches import per_batch, per_row
from xpmlp.training.callbacks import ProgressBar
from xpmlp.training.checks import all_finite
from xpmlp.training.data import Data, Rows, StreamedRows, device_rows, move
from xpmlp.training.divergence import DivergedError
from xpmlp.training.interruption import finish_step_on_signal
from xpmlp.training.labels import Labels
from xpmlp.training.memory import estimate_training, explain_memory_error, load_rows
from xpmlp.training.train import check_callbacks, checkpointing
from xpmlp.training.trainer import Start, Trainer
from xpmlp.training.validation import validate_callables
from xpmlp.types import Array

NON_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)

INTERRUPTED = "Training interrupted by user."  # scikit-learn's words


class NonFiniteError(ValueError):
    """Training left the finite numbers."""


@dataclass
class Table:
    """Checked rows with what is asked of them, before they go where training runs."""

    x: Any  # (N, n_features): NumPy's, SciPy's CSR, or an array on a device
    target: np.ndarray  # (N, n_outputs) as the loss takes it
    labels: np.ndarray  # y as it was given
    weight: np.ndarray | None  # (N,)
    suffix: str = ""  # of the names in errors

    def part(self, index: np.ndarray) -> "Table":
        """The rows of an index (n,)."""
        if isinstance(self.x, np.ndarray) or hasattr(self.x, "toarray"):
            x = self.x[index]
        else:
            place = place_of(self.x)
            with running(place):
                x = place.xp.take(self.x, to_place(place, index), axis=0)
        weight = None if self.weight is None else self.weight[index]
        return Table(x, self.target[index], self.labels[index], weight)

    def data(self, place: Place, dtype: str, load_rows: Callable[..., Rows] = device_rows) -> Data:
        """The rows where training runs; sparse ones come there window by window."""
        name = "X" + self.suffix
        if hasattr(self.x, "toarray"):
            rows: Any = StreamedRows(place, self.x, dtype, name)
        else:
            rows = load_rows(place, self.x, dtype, name)
        weight = np.ones(len(self.target)) if self.weight is None else self.weight
        target = move(place, self.target, dtype, "y" + self.suffix)
        return Data(rows, target, to_place(place, weight, dtype))


def held_out(est: Any, state: ResumeState, table: Table, stratify: Any) -> tuple[Table, Table]:
    """Rows to learn from, and the held-out ones that scikit-learn would take for this seed.

    stratify: (N, 1) classes whose shares are kept, or None.
    """
    learnt, held = train_test_split(
        np.arange(len(table.target)),
        random_state=copy.deepcopy(state.split),
        test_size=est.validation_fraction,
        stratify=stratify,
    )
    if len(held) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of "
            "your dataset."
        )
    return table.part(learnt), table.part(held)


def batch_size(est: Any, count: int) -> int:
    if isinstance(est.batch_size, str):
        return min(200, count)
    if est.batch_size > count:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return min(int(est.batch_size), count)


def scorer(est: Any, held: Table | None) -> Callable[..., Array] | None:
    """The metric that `scoring` asks for, of the weights under way on the held-out rows."""
    if est.scoring is None:
        return None
    measure = check_scoring(est, est.scoring)
    if held is None:
        return None
    weights = {} if held.weight is None else {"sample_weight": held.weight}

    def metric(xp: Any, loss: Any, score: Array, target: Array, weight: Array) -> Array:
        under_way = object.__new__(type(est))  # as est is now, without the columns' names
        under_way.__dict__ = {k: v for k, v in vars(est).items() if k != "feature_names_in_"}
        found = measure(under_way, held.x, held.labels, **weights)
        return xp.asarray(float(found), dtype=score.dtype, device=score.device)

    return metric


def make_trainer(
    est: Any,
    spec: Spec,
    place: Place,
    dtype: str,
    tables: tuple[Table, Table | None],
    *,
    once: bool,
) -> Trainer:
    """The trainer that goes on from the estimator's weights and state."""
    (table, held), state = tables, est._optimizer
    # a schedule that knows its end goes by max_iter epochs of `fit`, or of `partial_fit` in all
    epochs = max(state.epoch + 1, est.max_iter) if once else state.epoch + est.max_iter
    size = batch_size(est, len(table.target))
    settings = settings_of(est, state, epochs, size, dtype, capture=not once)
    check_callbacks(est.callbacks)
    validate_callables(place, spec, settings)
    needed = estimate_training(place, spec, settings, dtype)
    load = partial(load_rows, needed)
    row_weights: Callable[..., Any] = per_batch
    if getattr(est, "class_weight", None) is not None and table.weight is not None:
        row_weights = per_row(float(table.weight.mean()))
    with explain_memory_error(needed):
        trainer = Trainer(
            spec,
            settings,
            place,
            table.data(place, dtype, load),
            start_of(est, spec, place, dtype),
            labels=Labels(None, False),
            need=needed,
            val_data=None if held is None else held.data(place, dtype, load),
            row_weights=row_weights,
            metric=scorer(est, held),
            history=est.history_,
            signature=partial(signature_of, est),
            single_epoch=once,
            engine=state.engine if state.engine_at == place.name else None,
        )
    state.engine, state.engine_at = trainer.step.engine, place.name
    return trainer


def start_of(est: Any, spec: Spec, place: Place, dtype: str) -> Start:
    """Weights, slots and counts that the estimator goes on from."""
    state = est._optimizer
    flat = packed(place, spec, est.coefs_, est.intercepts_, dtype)
    params, best, best_epoch = flat, state.best, state.best_epoch
    if state.kept is not None:
        if (to_host(flat) == to_host(state.kept)).all():
            params = move(place, state.last, dtype, "coefs_")  # not from the best weights
        else:  # they were changed
            state.best, state.best_epoch = best, best_epoch = float("inf"), 0
    same = state.solver is est.solver or state.solver == est.solver
    slots = state.slots if same else ()
    return Start(params, slots, state.step, state.epoch, flat, best, best_epoch)


def train(est: Any, trainer: Trainer, *, once: bool) -> None:
    """Train `max_iter` epochs, or one, and leave the estimator with what came of it."""
    rule = Convergence(est, trainer)
    opened = checkpointing(None, False) if once else checkpointing(est.checkpoint, est.resume)
    est.coefs_, est.intercepts_ = lists(trainer.state.layers)  # under way: callbacks see them
    est.n_iter_ = 0
    bar = [ProgressBar()] if est.verbose == "bar" else []
    callbacks: list[Any] = [rule, *bar, *check_callbacks(est.callbacks)]
    try:
        with opened(trainer) as writer, finish_step_on_signal(trainer):
            rule.resume()
            for _ in trainer.reports(callbacks, writer):
                if once:
                    break
        warn_of_the_end(est, trainer, rule, once=once)
    except DivergedError as error:
        diverged(est, trainer, error)
    except KeyboardInterrupt:
        warnings.warn(INTERRUPTED, stacklevel=2)
    finally:
        rule.follow()
        leave(est, trainer)
        if not once:  # another partial_fit is soon to come, another fit is not
            est._optimizer.engine = None


def warn_of_the_end(est: Any, trainer: Trainer, rule: Convergence, *, once: bool) -> None:
    """The warning where a signal ended training, or epochs were too few."""
    if trainer.counter.stop_signal:
        warnings.warn(INTERRUPTED, stacklevel=2)
    elif not once and not rule.done and est.n_iter_ == est.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
            "optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=2,
        )


def diverged(est: Any, trainer: Trainer, error: DivergedError) -> None:
    """Where there are held-out scores the best weights stand, as in scikit-learn; else an error."""
    est.n_iter_ += 1
    est.t_ += trainer.data.rows
    est.loss_ = float("nan")
    for curve in (est.loss_curve_, est.validation_scores_, est.validation_loss_curve_):
        if curve is not None:
            curve.append(est.loss_)
    where = (
        f"Training diverged in epoch {trainer.epoch} at step {error.step}, at learning rate "
        f"{error.learning_rate:g}"
    )
    if trainer.val_data is None:
        raise NonFiniteError(f"{NON_FINITE} {where}: the weights before it are kept.") from error
    warnings.warn(
        f"{where}: the best weights on the held-out rows are kept, those of epoch "
        f"{int(trainer.best_epoch)}.",
        ConvergenceWarning,
        stacklevel=2,
    )


def leave(est: Any, trainer: Trainer) -> None:
    """What the next epoch would need goes into the resume state, the best weights into coefs_."""
    resume, state, xp = est._optimizer, trainer.state, trainer.place.xp
    resume.solver, resume.slots = est.solver, state.slots
    resume.step, resume.epoch = int(state.step), trainer.epoch
    resume.last = resume.kept = None
    with running(trainer.place):
        finite = bool(trainer.step.alive > 0) and all_finite(xp, state.params)
        copied = xp.asarray(trainer.best_params, copy=True)
    if trainer.val_data is not None or not finite:
        resume.last = state.params if finite else trainer.best_params
        resume.kept = trainer.best_params
        resume.best, resume.best_epoch = float(trainer.best_value), int(trainer.best_epoch)
        est.coefs_, est.intercepts_ = lists(windows(xp, trainer.spec, copied))
