"""A table in, a trained TableModel out: split, columns, network, training, scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpmlp.activations import identity
from xpmlp.losses import Loss, loss
from xpmlp.names import title
from xpmlp.spec import Spec
from xpmlp.tabular.model import (
    CLASSIFICATION,
    REGRESSION,
    TableModel,
    guess_task,
    learn_columns,
)
from xpmlp.tabular.reading import TableError, column, features, find, narwhal, refuse_gaps
from xpmlp.tabular.scoring import class_scores, number_scores
from xpmlp.tabular.splits import Split, at_random, by_group, by_time
from xpmlp.training.checks import FLOAT32_MAX
from xpmlp.training.labels import is_missing, plain_labels
from xpmlp.training.train import train

VALIDATION = 0.15  # of the training rows: early stopping watches them
PATIENCE = 16
# Numbers are smooth and want a fast fit; labels are noisy, and over-fit within a few epochs
RATES = {REGRESSION: 5e-3, CLASSIFICATION: 1e-3}
DROPOUTS = {REGRESSION: 0.0, CLASSIFICATION: 0.1}
DEFAULTS: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "epochs": 60,
    "batch_size": 128,
}


@dataclass(frozen=True)
class Plan:
    """What is learnt from which rows; every field is checked before any work."""

    target: str
    task: str | None = None  # "regression" or "classification"; None is guessed
    drop: Sequence[str] = ()
    test_size: float = 0.2
    group: str | None = None
    time: str | None = None
    drop_missing_target: str = "refuse"  # or "drop"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in (None, REGRESSION, CLASSIFICATION):
            raise ValueError(f"task must be regression or classification; got {self.task!r}")
        if not 0 < self.test_size < 1:
            raise ValueError(f"test_size must be in (0, 1); got {self.test_size}")
        if self.target in (*self.drop, self.group, self.time):
            raise ValueError(f"{self.target!r} is the target: it cannot be left out or split by")
        if self.group is not None and self.time is not None:
            raise ValueError("give --group or --time, not both")


@dataclass(frozen=True)
class Fitted:
    """A model and how good it is on rows that it has not seen."""

    model: TableModel
    metrics: dict[str, float]
    baseline: dict[str, float]
    truth: np.ndarray = field(repr=False)  # (M,) of the held-out rows
    predicted: np.ndarray = field(repr=False)  # (M,) labels or numbers
    rows: dict[str, int] = field(default_factory=dict)  # learnt from, stopped by, held out


def read_target(frame: Any, plan: Plan) -> tuple[np.ndarray, str]:
    """The target (N,) as labels or float64, and the task; TableError where it is unfit."""
    kind, values, type_name, _ = column(frame, plan.target)
    if kind != "category":
        values = np.asarray(values)
    refuse_gaps(values, f"target {plan.target!r}", "--drop-missing-target leaves those rows out")
    task = plan.task or guess_task(values, kind, type_name)
    if task == REGRESSION:
        if kind == "category":
            raise TableError(f"target {plan.target!r} holds texts: it cannot be a regression's")
        y = np.asarray(values, dtype=np.float64)
    else:
        y = plain_labels(np.asarray(find(frame, plan.target).to_list()), f"target {plan.target!r}")
    return y, task


def known_labels(truth: np.ndarray, classes: Any, target: str) -> None:
    """TableError where `truth` has a label that is none of the classes learnt."""
    known = set(np.asarray(classes).tolist())
    strange = [label for label in np.unique(truth).tolist() if label not in known]
    if strange:
        raise TableError(
            f"target {target!r} is {strange[0]!r} in rows to compare with, which is in none to "
            f"learn from: a classification needs rows of every label, and there are {len(known)}"
        )


def rows_kept(frame: Any, plan: Plan) -> list[bool]:
    """Which rows are not left out because their target is missing."""
    if plan.drop_missing_target != "drop":
        return [True] * len(narwhal(frame))
    keep = [not is_missing(value) for value in column(frame, plan.target).values]
    if not any(keep):
        raise TableError(f"target {plan.target!r} is missing in every row")
    return keep


def without_gaps(frame: Any, plan: Plan) -> Any:
    """The frame without the rows whose target is missing, where that is asked for."""
    find(frame, plan.target)
    keep = rows_kept(frame, plan)
    return frame if all(keep) else narwhal(frame).filter(keep).to_native()


def split_rows(frame: Any, plan: Plan, labels: Any) -> Split:
    """The held-out rows: by group, by time, or at random."""
    count = len(narwhal(frame))
    if plan.group is not None:
        return by_group(find(frame, plan.group).to_list(), plan.test_size, plan.seed)
    if plan.time is not None:
        moments = column(frame, plan.time)
        if moments.kind == "category":
            raise TableError(f"column {plan.time!r} is no time and no number")
        return by_time(np.asarray(moments.values), plan.test_size)
    return at_random(labels, plan.test_size, plan.seed, 0, count)


def hold_out(
    frame: Any, plan: Plan, y: np.ndarray, task: str, test: Any
) -> tuple[np.ndarray, Any, np.ndarray]:
    """The rows to learn from, the held-out table, and its target."""
    if test is not None:
        test = without_gaps(test, plan)
        return np.arange(len(y)), test, read_target(test, Plan(plan.target, task))[0]
    learn, held = split_rows(frame, plan, y if task == CLASSIFICATION else None)
    if len(learn) < 2:
        raise TableError(
            f"of {len(y)} rows {len(learn)} are left to learn from: hold out fewer, or bring more"
        )
    return learn, take(frame, held), y[held]


def take(frame: Any, rows: np.ndarray) -> Any:
    return narwhal(frame)[rows.tolist(), :].to_native()


def fit_table(
    frame: Any,
    plan: Plan,
    *,
    network: Mapping[str, Any],
    settings: Mapping[str, Any],
    test: Any = None,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    started: Callable[[TableModel, dict[str, int]], None] = lambda model, rows: None,
) -> Fitted:
    """Learn `plan.target` from the other columns of `frame`.

    network: hidden (sizes), activation, dropout, loss (None is the task's). settings: of
    `xpmlp.train`, over DEFAULTS; a rate or dropout of None is the task's, a batch of None at most
    all rows. test: a frame to hold out instead of a share of the rows.
    started: called before training with an untrained stand-in of the model and the row counts.
    """
    names = features(frame, [plan.target, *plan.drop, *filter(None, [plan.group])])
    for name in names:
        column(frame, name)  # refused here, with the row's number in the whole table
    for name in filter(None, (plan.group, plan.time) if test is None else ()):
        instead = "rows are held out by it: fill those cells or leave the rows out"
        kept = zip(column(frame, name).values, rows_kept(frame, plan), strict=True)
        refuse_gaps([cell if keep else 0 for cell, keep in kept], f"column {name!r}", instead)
    frame = without_gaps(frame, plan)
    y, task = read_target(frame, plan)
    measure = loss_for(task, network)
    if len(np.unique(y)) < 2:
        raise TableError(f"target {plan.target!r} is constant ({y[0]}): nothing can be learnt")
    learn, test, truth = hold_out(frame, plan, y, task, test)
    labels = y[learn] if task == CLASSIFICATION else None
    inner = at_random(labels, VALIDATION, plan.seed, 1, len(learn))
    fitted, watched = learn[inner.learn], learn[inner.held]
    if labels is not None:
        known_labels(np.concatenate([y[watched], truth]), y[fitted], plan.target)
    source = take(frame, fitted)
    columns = learn_columns(source, names)
    # a link, such as poisson's, makes numbers of the target's own unit
    own = task == CLASSIFICATION or measure.link is not identity
    center, scale = (0.0, 1.0) if own else unit(y[fitted])
    rows = {"training": len(fitted), "validation": len(watched), "held_out": len(truth)}
    spec = network_for(columns, y, task, network)
    rate = RATES[task] if settings.get("learning_rate") is None else settings["learning_rate"]
    batch = settings.get("batch_size") or min(DEFAULTS["batch_size"], len(fitted))
    blank = TableModel(None, columns, plan.target, task, center, scale)  # type: ignore[arg-type]
    blank.inputs(test)  # refused before training, not after
    started(blank, rows)
    wanted = scaled(y, center, scale, plan.target) if task == REGRESSION else y
    model = train(
        spec,
        blank.inputs(source).x,
        wanted[fitted],
        X_val=blank.inputs(take(frame, watched)).x,
        y_val=wanted[watched],
        callbacks=callbacks,
        **{"patience": PATIENCE, "seed": plan.seed}
        | DEFAULTS
        | dict(settings)
        | {"learning_rate": rate, "batch_size": batch},
    )
    done = TableModel(model, columns, plan.target, task, center, scale)
    return scored(done, test, truth, y[fitted], rows)


def unit(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, the unit that a regression is learnt in."""
    with np.errstate(all="ignore"):  # what overflows is refused by `scaled`
        return float(values.mean()), float(values.std()) or 1.0


def scaled(y: np.ndarray, center: float, scale: float, target: str) -> np.ndarray:
    """The target in the unit it is learnt in; TableError where that is no number of float32."""
    with np.errstate(all="ignore"):
        wanted = np.asarray((y - center) / scale)
    if not (np.isfinite(scale) and (np.abs(wanted) <= FLOAT32_MAX).all()):
        row = int(np.abs(y).argmax())
        raise TableError(
            f"target {target!r} is too large to be learnt, such as {y[row]:g}: scale it, or leave "
            "such rows out"
        )
    return wanted


def network_for(columns: Any, y: np.ndarray, task: str, network: Mapping[str, Any]) -> Spec:
    """Inputs as wide as the columns, the hidden layers asked for, one output or one per class."""
    outputs = 1 if task == REGRESSION else len(np.unique(y))
    sizes = [sum(known.width for known in columns), *network["hidden"], outputs]
    dropout = DROPOUTS[task] if network.get("dropout") is None else network["dropout"]
    return Spec.parse(
        sizes, activation=network["activation"], dropout=dropout, loss=loss_for(task, network)
    )


def loss_for(task: str, network: Mapping[str, Any]) -> Loss:
    """The loss that was asked for, or the task's; TableError where it is for other targets."""
    usual = "squared_error" if task == REGRESSION else "cross_entropy"
    found = loss(network.get("loss") or usual)
    if task == CLASSIFICATION and found.labels != "classes":
        same = ", which for two classes is the same" if found.labels == "binary" else ""
        raise TableError(
            f"loss {title(found)!r} is not for the labels of a table: a classification has "
            f"{usual!r}{same}"
        )
    if task == REGRESSION and found.labels != "none":
        raise TableError(
            f"loss {title(found)!r} is for labels: a regression has {usual!r}, or is it "
            f"--task {CLASSIFICATION}?"
        )
    return found


def scored(
    model: TableModel, test: Any, truth: np.ndarray, learnt: np.ndarray, rows: dict[str, int]
) -> Fitted:
    """The model with its held-out scores, and what always answering the same would get."""
    metrics, predicted = evaluate(model, test, truth)
    if model.task == REGRESSION:
        baseline = number_scores(truth, np.full(len(truth), learnt.mean()))
    else:
        shares = np.array([(learnt == label).mean() for label in model.classes_])
        baseline = class_scores(truth, model.classes_, np.tile(shares, (len(truth), 1)))
    trained = {"metrics": metrics, "baseline": baseline, "rows": rows}
    kept = TableModel(
        model.model, model.columns, model.target, model.task, model.center, model.scale, trained
    )
    return Fitted(kept, metrics, baseline, truth, predicted, rows)


def evaluate(model: TableModel, frame: Any, truth: np.ndarray) -> tuple[dict[str, float], Any]:
    """Scores of the model on rows with a known target, and its predictions."""
    x = model.inputs(frame).x
    if model.task == CLASSIFICATION:
        known_labels(truth, model.classes_, model.target)
    if model.task == REGRESSION:
        predicted = model.from_network(model.model.predict(x))
        return number_scores(truth, predicted), predicted
    proba = model.model.predict_proba(x).astype(np.float64)
    proba = proba / proba.sum(axis=1, keepdims=True)  # float32 sums to 1 within 1e-7 only
    return class_scores(truth, model.classes_, proba), model.classes_[proba.argmax(axis=1)]
