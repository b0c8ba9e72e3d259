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
from xpmlp.estimators.classes import class_labels
from xpmlp.estimators.convergence import Convergence
from xpmlp.estimators.network import ResumeState, coefs_and_intercepts, make_settings, pack_weights
from xpmlp.estimators.signature import fit_signature
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
    """The trained weights are not finite."""


@dataclass
class RowSet:
    """Validated rows with targets and weights, before they are copied to a device."""

    x: Any  # (N, n_features): NumPy array, SciPy CSR array, or an array on a device
    target: np.ndarray  # (N, n_outputs) of the loss
    labels: np.ndarray  # y itself
    weight: np.ndarray | None  # (N,)
    suffix: str = ""  # of X and y in errors

    def subset(self, index: np.ndarray) -> "RowSet":
        """The rows of an index (n,)."""
        if isinstance(self.x, np.ndarray) or hasattr(self.x, "toarray"):
            x = self.x[index]
        else:
            place = place_of(self.x)
            with running(place):
                x = place.xp.take(self.x, to_place(place, index), axis=0)
        weight = None if self.weight is None else self.weight[index]
        return RowSet(x, self.target[index], self.labels[index], weight)

    def to_data(
        self, place: Place, dtype: str, load_rows: Callable[..., Rows] = device_rows
    ) -> Data:
        """The rows on the device of training; sparse ones are copied window by window."""
        name = "X" + self.suffix
        if hasattr(self.x, "toarray"):
            rows: Any = StreamedRows(place, self.x, dtype, name)
        else:
            rows = load_rows(place, self.x, dtype, name)
        weight = np.ones(len(self.target)) if self.weight is None else self.weight
        target = move(place, self.target, dtype, "y" + self.suffix)
        return Data(rows, target, to_place(place, weight, dtype))


def split_validation(
    est: Any, state: ResumeState, rows: RowSet, stratify: Any
) -> tuple[RowSet, RowSet]:
    """Training rows, and the validation rows that scikit-learn selects for this seed.

    stratify: (N, 1) classes whose proportions are preserved, or None.
    """
    train_index, val_index = train_test_split(
        np.arange(len(rows.target)),
        random_state=copy.deepcopy(state.split),
        test_size=est.validation_fraction,
        stratify=stratify,
    )
    if len(val_index) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of "
            "your dataset."
        )
    return rows.subset(train_index), rows.subset(val_index)


def effective_batch_size(est: Any, count: int) -> int:
    if isinstance(est.batch_size, str):
        return min(200, count)
    if est.batch_size > count:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return min(int(est.batch_size), count)


def make_metric(est: Any, val_rows: RowSet | None) -> Callable[..., Array] | None:
    """The metric of `scoring`, of the current weights on the validation rows."""
    if est.scoring is None:
        return None
    scorer = check_scoring(est, est.scoring)
    if val_rows is None:
        return None
    weights = {} if val_rows.weight is None else {"sample_weight": val_rows.weight}

    def metric(xp: Any, loss: Any, score: Array, target: Array, weight: Array) -> Array:
        current = object.__new__(type(est))  # est without the columns' names
        current.__dict__ = {k: v for k, v in vars(est).items() if k != "feature_names_in_"}
        value = scorer(current, val_rows.x, val_rows.labels, **weights)
        return xp.asarray(float(value), dtype=score.dtype, device=score.device)

    return metric


def make_trainer(
    est: Any,
    spec: Spec,
    place: Place,
    dtype: str,
    train_rows: RowSet,
    val_rows: RowSet | None,
    *,
    single_epoch: bool,
) -> Trainer:
    """The trainer that continues from the estimator's weights and state."""
    state = est._optimizer
    # a schedule of a known length runs over max_iter epochs of a `fit`, or of all `partial_fit`s
    epochs = max(state.epoch + 1, est.max_iter) if single_epoch else state.epoch + est.max_iter
    batch_size = effective_batch_size(est, len(train_rows.target))
    settings = make_settings(est, state, epochs, batch_size, dtype, capture=not single_epoch)
    check_callbacks(est.callbacks)
    validate_callables(place, spec, settings)
    estimate = estimate_training(place, spec, settings, dtype)
    load = partial(load_rows, estimate)
    row_weights: Callable[..., Any] = per_batch
    if getattr(est, "class_weight", None) is not None and train_rows.weight is not None:
        row_weights = per_row(float(train_rows.weight.mean()))
    with explain_memory_error(estimate):
        trainer = Trainer(
            spec,
            settings,
            place,
            train_rows.to_data(place, dtype, load),
            make_start(est, spec, place, dtype),
            labels=Labels(class_labels(est), flat=train_rows.target.shape[1] == 1),
            need=estimate,
            val_data=None if val_rows is None else val_rows.to_data(place, dtype, load),
            row_weights=row_weights,
            metric=make_metric(est, val_rows),
            history=est.history_,
            signature=partial(fit_signature, est),
            single_epoch=single_epoch,
            engine=state.engine if state.engine_at == place.name else None,
        )
    state.engine, state.engine_at = trainer.step.engine, place.name
    return trainer


def make_start(est: Any, spec: Spec, place: Place, dtype: str) -> Start:
    """Weights, slots and counts that the estimator continues from."""
    state = est._optimizer
    flat = pack_weights(place, spec, est.coefs_, est.intercepts_, dtype)
    params, best, best_epoch = flat, state.best, state.best_epoch
    if state.kept is not None:
        if (to_host(flat) == to_host(state.kept)).all():
            params = move(place, state.last, dtype, "coefs_")  # instead of the best weights
        else:  # by the user
            state.best, state.best_epoch = best, best_epoch = float("inf"), 0
    same_solver = state.solver is est.solver or state.solver == est.solver
    slots = state.slots if same_solver else ()
    return Start(params, slots, state.step, state.epoch, flat, best, best_epoch)


def train(est: Any, trainer: Trainer, *, single_epoch: bool) -> None:
    """Train `max_iter` epochs, or one, and store the results in the estimator."""
    convergence = Convergence(est, trainer)
    checkpoint = (None, False) if single_epoch else (est.checkpoint, est.resume)
    open_checkpoint = checkpointing(*checkpoint)
    # callbacks see the current weights
    est.coefs_, est.intercepts_ = coefs_and_intercepts(trainer.state.layers)
    est.n_iter_ = 0
    bar = [ProgressBar()] if est.verbose == "bar" else []
    callbacks: list[Any] = [convergence, *bar, *check_callbacks(est.callbacks)]
    try:
        with open_checkpoint(trainer) as writer, finish_step_on_signal(trainer):
            convergence.resume()
            for _ in trainer.reports(callbacks, writer):
                if single_epoch:
                    break
        warn_of_unfinished_training(est, trainer, convergence, single_epoch=single_epoch)
    except DivergedError as error:
        handle_divergence(est, trainer, error)
    except KeyboardInterrupt:
        warnings.warn(INTERRUPTED, stacklevel=2)
    finally:
        convergence.adopt_learning_rate()
        store_results(est, trainer)
        if not single_epoch:  # a partial_fit is likely to be followed by another, a fit is not
            est._optimizer.engine = None


def warn_of_unfinished_training(
    est: Any, trainer: Trainer, convergence: Convergence, *, single_epoch: bool
) -> None:
    """Warn where a signal stopped training, or max_iter was too small."""
    if trainer.counter.stop_signal:
        warnings.warn(INTERRUPTED, stacklevel=2)
    elif not single_epoch and not convergence.done and est.n_iter_ == est.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
            "optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=2,
        )


def handle_divergence(est: Any, trainer: Trainer, error: DivergedError) -> None:
    """Keep the best weights if there are validation scores, as in scikit-learn; else raise."""
    est.n_iter_ += 1
    est.t_ += trainer.data.rows
    est.loss_ = float("nan")
    for curve in (est.loss_curve_, est.validation_scores_, est.validation_loss_curve_):
        if curve is not None:
            curve.append(est.loss_)
    location = (
        f"Training diverged in epoch {trainer.epoch} at step {error.step}, at learning rate "
        f"{error.learning_rate:g}"
    )
    if trainer.val_data is None:
        raise NonFiniteError(f"{NON_FINITE} {location}: the weights before it are kept.") from error
    warnings.warn(
        f"{location}: the best weights on the validation rows are kept, those of epoch "
        f"{int(trainer.best_epoch)}.",
        ConvergenceWarning,
        stacklevel=2,
    )


def store_results(est: Any, trainer: Trainer) -> None:
    """Store what the next epoch needs in the resume state, and the best weights in coefs_."""
    resume, state, xp = est._optimizer, trainer.state, trainer.place.xp
    resume.solver, resume.slots = est.solver, state.slots
    resume.step, resume.epoch = int(state.step), trainer.epoch
    resume.last = resume.kept = None
    with running(trainer.place):
        finite = bool(trainer.step.alive > 0) and all_finite(xp, state.params)
        best_params = xp.asarray(trainer.best_params, copy=True)
    if trainer.val_data is not None or not finite:
        resume.last = state.params if finite else trainer.best_params
        resume.kept = trainer.best_params
        resume.best, resume.best_epoch = float(trainer.best_value), int(trainer.best_epoch)
        est.coefs_, est.intercepts_ = coefs_and_intercepts(windows(xp, trainer.spec, best_params))
