"""Training on a table: split, encoders, network, training, scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpmlp.activations import identity
from xpmlp.losses import Loss, gaussian_mean, loss as get_loss
from xpmlp.names import title
from xpmlp.spec import Spec
from xpmlp.tabular.model import (
    CLASSIFICATION,
    REGRESSION,
    TableModel,
    fit_columns,
    guess_task,
)
from xpmlp.tabular.reading import (
    Table,
    TableError,
    as_table,
    check_no_missing,
    feature_names,
    get_series,
)
from xpmlp.tabular.scoring import class_scores, number_scores
from xpmlp.tabular.splits import Split, group_split, random_split, time_split
from xpmlp.training.checks import FLOAT32_MAX
from xpmlp.training.labels import is_missing, plain_labels
from xpmlp.training.train import train

VALIDATION = 0.15  # fraction of the training rows, for early stopping
PATIENCE = 16
# a regression is smooth and is fitted fast; labels are noisy and overfit within a few epochs
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
    """The target, and how rows are selected and split; validated on construction."""

    target: str
    task: str | None = None  # "regression" or "classification"; None: guess
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
            raise ValueError(f"{self.target!r} is the target: it cannot be dropped or split by")
        if self.group is not None and self.time is not None:
            raise ValueError("give --group or --time, not both")


@dataclass(frozen=True)
class FitResult:
    """A model and its scores on held-out rows."""

    model: TableModel
    metrics: dict[str, float]
    baseline: dict[str, float]
    truth: np.ndarray = field(repr=False)  # (M,) of the held-out rows
    predicted: np.ndarray = field(repr=False)  # (M,) labels or numbers
    rows: dict[str, int] = field(default_factory=dict)  # training, validation, held out


def read_target(table: Table, plan: Plan) -> tuple[np.ndarray, str]:
    """The target (N,) as labels or float64, and the task; TableError if it is invalid."""
    kind, values, type_name, _ = table.column(plan.target)
    if kind != "category":
        values = np.asarray(values)
    check_no_missing(values, f"target {plan.target!r}", "--drop-missing-target drops such rows")
    task = plan.task or guess_task(values, kind, type_name)
    if task == REGRESSION:
        if kind == "category":
            raise TableError(
                f"target {plan.target!r} holds strings: it cannot be the target of a regression"
            )
        y = np.asarray(values, dtype=np.float64)
    else:
        y = plain_labels(np.asarray(table.cells(plan.target)), f"target {plan.target!r}")
    return y, task


def check_labels(truth: np.ndarray, classes: Any, target: str) -> None:
    """TableError if `truth` has a label that is not in `classes`."""
    known = set(np.asarray(classes).tolist())
    unknown = [label for label in np.unique(truth).tolist() if label not in known]
    if unknown:
        raise TableError(
            f"target {target!r} is {unknown[0]!r} in held-out rows but in no training row: a "
            f"classification needs training rows of every label, and has {len(known)} labels"
        )


def selected_rows(table: Table, plan: Plan) -> list[bool]:
    """Whether each row is used: not if it is dropped because its target is missing."""
    if plan.drop_missing_target != "drop":
        return [True] * len(table)
    selected = [not is_missing(value) for value in table.column(plan.target).values]
    if not any(selected):
        raise TableError(f"target {plan.target!r} is missing in every row")
    return selected


def drop_missing_target(table: Table, plan: Plan) -> Table:
    """The table without rows whose target is missing, if the plan drops them."""
    get_series(table.frame, plan.target)
    selected = selected_rows(table, plan)
    return table if all(selected) else table.take(np.flatnonzero(selected))


def split_rows(table: Table, plan: Plan, labels: Any) -> Split:
    """Split into training and held-out rows: by group, by time, or at random."""
    if plan.group is not None:
        return group_split(table.cells(plan.group), plan.test_size, plan.seed)
    if plan.time is not None:
        times = table.column(plan.time)
        if times.kind == "category":
            raise TableError(f"column {plan.time!r} is neither a time nor a number")
        return time_split(np.asarray(times.values), plan.test_size)
    return random_split(labels, plan.test_size, plan.seed, 0, len(table))


def hold_out(
    table: Table, plan: Plan, y: np.ndarray, task: str, test: Any
) -> tuple[np.ndarray, Table, np.ndarray]:
    """The training rows, the held-out table, and its target."""
    if test is not None:
        test = drop_missing_target(as_table(test), plan)
        return np.arange(len(y)), test, read_target(test, Plan(plan.target, task))[0]
    train_rows, test_rows = split_rows(table, plan, y if task == CLASSIFICATION else None)
    if len(train_rows) < 2:
        raise TableError(
            f"of {len(y)} rows {len(train_rows)} are left to train on: hold out fewer rows"
        )
    return train_rows, table.take(test_rows), y[test_rows]


def fit_table(
    frame: Any,
    plan: Plan,
    *,
    network: Mapping[str, Any],
    settings: Mapping[str, Any],
    test: Any = None,
    callbacks: Sequence[Callable[[Any], Any]] = (),
    on_start: Callable[[TableModel, dict[str, int]], None] = lambda model, rows: None,
) -> FitResult:
    """Train a model that predicts `plan.target` from the other columns of `frame`.

    network: hidden (sizes), activation, dropout, loss (None: by the task). settings: of
    `xpmlp.train`, over DEFAULTS; a learning rate or dropout of None is set by the task, a batch
    size of None is at most all rows. test: a held-out frame, instead of a part of `frame`.
    on_start: called before training with the untrained model and the numbers of rows.
    """
    table = as_table(frame)
    names = feature_names(table.frame, [plan.target, *plan.drop, *filter(None, [plan.group])])
    for name in names:
        table.column(name)  # first, so that errors count the rows of the whole table
    for name in filter(None, (plan.group, plan.time) if test is None else ()):
        hint = "rows are held out by it: fill those cells or drop the rows"
        cells = zip(table.column(name).values, selected_rows(table, plan), strict=True)
        check_no_missing([c if used else 0 for c, used in cells], f"column {name!r}", hint)
    table = drop_missing_target(table, plan)
    y, task = read_target(table, plan)
    loss = resolve_loss(task, network)
    if len(np.unique(y)) < 2:
        raise TableError(f"target {plan.target!r} is constant ({y[0]}): there is nothing to learn")
    rest, test, truth = hold_out(table, plan, y, task, test)
    labels = y[rest] if task == CLASSIFICATION else None
    inner = random_split(labels, VALIDATION, plan.seed, 1, len(rest))
    train_rows, val_rows = rest[inner.train], rest[inner.test]
    if labels is not None:
        check_labels(np.concatenate([y[val_rows], truth]), y[train_rows], plan.target)
    source = table.take(train_rows)
    columns = fit_columns(source, names)
    # any other link, such as that of poisson, predicts in the unit of the target
    unscaled = task == CLASSIFICATION or loss.link not in (identity, gaussian_mean)
    center, scale = (0.0, 1.0) if unscaled else mean_and_std(y[train_rows])
    rows = {"training": len(train_rows), "validation": len(val_rows), "held_out": len(truth)}
    spec = build_spec(columns, y, task, network)
    rate = RATES[task] if settings.get("learning_rate") is None else settings["learning_rate"]
    batch = settings.get("batch_size") or min(DEFAULTS["batch_size"], len(train_rows))
    untrained = TableModel(None, columns, plan.target, task, center, scale)  # type: ignore[arg-type]
    untrained.inputs(test)  # so that its errors come before training
    on_start(untrained, rows)
    y_scaled = standardize(y, center, scale, plan.target) if task == REGRESSION else y
    model = train(
        spec,
        untrained.inputs(source).x,
        y_scaled[train_rows],
        X_val=untrained.inputs(table.take(val_rows)).x,
        y_val=y_scaled[val_rows],
        callbacks=callbacks,
        **{"patience": PATIENCE, "seed": plan.seed}
        | DEFAULTS
        | dict(settings)
        | {"learning_rate": rate, "batch_size": batch},
    )
    trained = TableModel(model, columns, plan.target, task, center, scale)
    return evaluate_fit(trained, test, truth, y[train_rows], rows)


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 for a standard deviation of 0."""
    with np.errstate(all="ignore"):  # `standardize` raises on overflow
        return float(values.mean()), float(values.std()) or 1.0


def standardize(y: np.ndarray, center: float, scale: float, target: str) -> np.ndarray:
    """(y - center) / scale; TableError if it overflows float32."""
    with np.errstate(all="ignore"):
        y_scaled = np.asarray((y - center) / scale)
    if not (np.isfinite(scale) and (np.abs(y_scaled) <= FLOAT32_MAX).all()):
        row = int(np.abs(y).argmax())
        raise TableError(
            f"target {target!r} is too large, such as {y[row]:g}: scale it, or drop such rows"
        )
    return y_scaled


def build_spec(columns: Any, y: np.ndarray, task: str, network: Mapping[str, Any]) -> Spec:
    """The network: inputs of the columns, hidden layers, the scores of one number or of classes."""
    loss = resolve_loss(task, network)
    outputs = loss.scores_per_target if task == REGRESSION else len(np.unique(y))
    sizes = [sum(known.width for known in columns), *network["hidden"], outputs]
    dropout = DROPOUTS[task] if network.get("dropout") is None else network["dropout"]
    return Spec.parse(sizes, activation=network["activation"], dropout=dropout, loss=loss)


def resolve_loss(task: str, network: Mapping[str, Any]) -> Loss:
    """The loss, by default that of the task; TableError if it is for other targets."""
    default = "squared_error" if task == REGRESSION else "cross_entropy"
    loss = get_loss(network.get("loss") or default)
    if task == CLASSIFICATION and loss.labels != "classes":
        same = ", which is the same for two classes" if loss.labels == "binary" else ""
        raise TableError(
            f"loss {title(loss)!r} is not for the labels of a table: a classification uses "
            f"{default!r}{same}"
        )
    if task == REGRESSION and loss.labels != "none":
        raise TableError(
            f"loss {title(loss)!r} is for labels: a regression uses {default!r}, or is it "
            f"--task {CLASSIFICATION}?"
        )
    if loss.scores_per_target > 1 and loss.link is identity:
        raise TableError(
            f"loss {title(loss)!r} predicts {loss.scores_per_target} numbers for each row; the "
            "model of a table predicts one: train a model for each"
        )
    return loss


def evaluate_fit(
    model: TableModel, test: Any, truth: np.ndarray, y_train: np.ndarray, rows: dict[str, int]
) -> FitResult:
    """The model with its held-out scores and those of a constant prediction."""
    metrics, predicted = evaluate(model, test, truth)
    if model.task == REGRESSION:
        baseline = number_scores(truth, np.full(len(truth), y_train.mean()))
    else:
        shares = np.array([(y_train == label).mean() for label in model.classes_])
        baseline = class_scores(truth, model.classes_, np.tile(shares, (len(truth), 1)))
    trained = {"metrics": metrics, "baseline": baseline, "rows": rows}
    with_scores = TableModel(
        model.model, model.columns, model.target, model.task, model.center, model.scale, trained
    )
    return FitResult(with_scores, metrics, baseline, truth, predicted, rows)


def evaluate(model: TableModel, frame: Any, truth: np.ndarray) -> tuple[dict[str, float], Any]:
    """Scores of the model on a frame with target `truth`, and its predictions."""
    x = model.inputs(frame).x
    if model.task == CLASSIFICATION:
        check_labels(truth, model.classes_, model.target)
    if model.task == REGRESSION:
        predicted = model.unscale(model.model.predict(x))
        return number_scores(truth, predicted), predicted
    proba = model.model.predict_proba(x).astype(np.float64)
    proba = proba / proba.sum(axis=1, keepdims=True)  # float32 sums to 1 within 1e-7 only
    return class_scores(truth, model.classes_, proba), model.classes_[proba.argmax(axis=1)]
