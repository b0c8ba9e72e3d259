"""The stochastic solvers: an estimator's rows, run and epochs."""

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
from xpmlp.estimators.network import Course, lists, packed, settings_of
from xpmlp.estimators.question import asked as asked_by
from xpmlp.layout import windows
from xpmlp.spec import Spec
from xpmlp.training.batches import per_batch, per_row
from xpmlp.training.begin import begin
from xpmlp.training.callbacks import ProgressBar
from xpmlp.training.checks import all_finite
from xpmlp.training.data import Data, Elsewhere, Rows, move, resident
from xpmlp.training.divergence import DivergedError
from xpmlp.training.interruption import patient
from xpmlp.training.labels import Labels
from xpmlp.training.memory import brought, explained, need
from xpmlp.training.steps import Run
from xpmlp.training.train import attended, checked, following
from xpmlp.training.validation import probe
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

    def data(self, place: Place, dtype: str, bring: Callable[..., Rows] = resident) -> Data:
        """The rows where training runs; sparse ones come there window by window."""
        name = "X" + self.suffix
        if hasattr(self.x, "toarray"):
            rows: Any = Elsewhere(place, self.x, dtype, name)
        else:
            rows = bring(place, self.x, dtype, name)
        weight = np.ones(len(self.target)) if self.weight is None else self.weight
        target = move(place, self.target, dtype, "y" + self.suffix)
        return Data(rows, target, to_place(place, weight, dtype))


def held_out(est: Any, course: Course, table: Table, stratify: Any) -> tuple[Table, Table]:
    """Rows to learn from, and the held-out ones that scikit-learn would take for this seed.

    stratify: (N, 1) classes whose shares are kept, or None.
    """
    learnt, held = train_test_split(
        np.arange(len(table.target)),
        random_state=copy.deepcopy(course.split),
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


def begun(
    est: Any,
    spec: Spec,
    place: Place,
    dtype: str,
    tables: tuple[Table, Table | None],
    *,
    once: bool,
) -> Run:
    """The run that goes on from the estimator's weights and course."""
    (table, held), course, xp = tables, est._optimizer, place.xp
    start = flat = packed(place, spec, est.coefs_, est.intercepts_, dtype)
    if course.kept is not None:
        if (to_host(flat) == to_host(course.kept)).all():
            start = move(place, course.last, dtype, "coefs_")  # not from the best weights
        else:  # they were changed
            course.best, course.best_epoch = float("inf"), 0
    # a schedule that knows its end goes by max_iter epochs of `fit`, or of `partial_fit` in all
    epochs = max(course.epoch + 1, est.max_iter) if once else course.epoch + est.max_iter
    size = batch_size(est, len(table.target))
    chosen = settings_of(est, course, epochs, size, dtype, capture=not once)
    checked(est.callbacks)
    probe(place, spec, chosen)
    asked = need(place, spec, chosen, dtype)
    bring = partial(brought, asked)
    with explained(asked):
        run = begin(
            spec,
            chosen,
            place,
            table.data(place, dtype, bring),
            None if held is None else held.data(place, dtype, bring),
            Labels(None, False),
            start,
            asked,
            course.epoch,
        )
    if course.solver is est.solver or course.solver == est.solver:
        for buffer, value in zip(run.state.memory, course.memory, strict=False):
            buffer[...] = move(place, value, dtype, "memory")
    run.state.step[...] = course.step
    run.first = run.epoch = course.epoch
    run.once = once
    run.history, run.asked = est.history_, partial(asked_by, est)
    kept, way = course.engine, run.engine.way.name
    if kept is not None and course.engine_at == place.name and kept.way.name == way:
        run.engine = kept
    course.engine, course.engine_at = run.engine, place.name
    run.kept = flat
    run.best = xp.full_like(run.best, course.best)
    run.best_epoch = xp.full_like(run.best_epoch, course.best_epoch)
    if getattr(est, "class_weight", None) is not None and table.weight is not None:
        run.weigh = per_row(float(table.weight.mean()))
    else:
        run.weigh = per_batch
    run.score = scorer(est, held)
    return run


def train(est: Any, run: Run, *, once: bool) -> None:
    """Train `max_iter` epochs, or one, and leave the estimator with what came of it."""
    rule = Convergence(est, run)
    followed = following(None, False) if once else following(est.checkpoint, est.resume)
    est.coefs_, est.intercepts_ = lists(run.state.layers)  # under way: callbacks see them
    est.n_iter_ = 0
    try:
        with followed(run) as write:
            rule.resume()
            go(est, run, rule, write, once=once)
    except DivergedError as error:
        diverged(est, run, error)
    except KeyboardInterrupt:
        warnings.warn(INTERRUPTED, stacklevel=2)
    finally:
        rule.follow()
        leave(est, run)
        if not once:  # another partial_fit is soon to come, another fit is not
            est._optimizer.engine = None


def go(est: Any, run: Run, rule: Convergence, write: Any, *, once: bool) -> None:
    """The epochs of `train`, and the warning where they were too few."""
    bar = [ProgressBar()] if est.verbose == "bar" else []
    with patient(run):
        for _ in attended(run, [rule, *bar, *checked(est.callbacks)], write):
            if once:
                break
    if run.halted:
        warnings.warn(INTERRUPTED, stacklevel=2)
    elif not once and not rule.done and est.n_iter_ == est.max_iter:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
            "optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=2,
        )


def diverged(est: Any, run: Run, error: DivergedError) -> None:
    """Where there are held-out scores the best weights stand, as in scikit-learn; else an error."""
    est.n_iter_ += 1
    est.t_ += run.data.rows
    est.loss_ = float("nan")
    for curve in (est.loss_curve_, est.validation_scores_, est.validation_loss_curve_):
        if curve is not None:
            curve.append(est.loss_)
    where = (
        f"Training diverged in epoch {run.epoch} at step {error.step}, at learning rate "
        f"{error.rate:g}"
    )
    if run.held is None:
        raise NonFiniteError(f"{NON_FINITE} {where}: the weights before it are kept.") from error
    warnings.warn(
        f"{where}: the best weights on the held-out rows are kept, those of epoch "
        f"{int(run.best_epoch)}.",
        ConvergenceWarning,
        stacklevel=2,
    )


def leave(est: Any, run: Run) -> None:
    """What the next epoch would need goes into the course, the best weights into coefs_."""
    course, state, xp = est._optimizer, run.state, run.place.xp
    course.solver, course.memory = est.solver, state.memory
    course.step, course.epoch = int(state.step), run.epoch
    course.last = course.kept = None
    with running(run.place):
        finite = bool(run.alive > 0) and all_finite(xp, state.params)
        copied = xp.asarray(run.kept, copy=True)
    if run.held is not None or not finite:
        course.last = state.params if finite else run.kept
        course.kept = run.kept
        course.best, course.best_epoch = float(run.best), int(run.best_epoch)
        est.coefs_, est.intercepts_ = lists(windows(xp, run.spec, copied))
