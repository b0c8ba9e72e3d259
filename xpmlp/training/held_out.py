"""What the present weights of a training say of its held-out rows, as a person compares it."""

from collections.abc import Callable, Mapping
from inspect import Signature, signature
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from xpmlp.devices.namespace import CPU, to_host
from xpmlp.layout import windows
from xpmlp.losses import loss
from xpmlp.training.inference import scores
from xpmlp.training.labels import class_probabilities, most_probable_class
from xpmlp.types import Array

if TYPE_CHECKING:
    from xpmlp.training.data import Data
    from xpmlp.training.trainer import Trainer

Metric = Callable[..., Any]
RESERVED = (
    "epoch", "epochs", "step", "loss", "learning_rate", "grad_norm", "val_loss", "val_score",
    "best_epoch", "seconds", "executor", "restored", "metrics", "trainer",
)  # fmt: skip


class Predictions(NamedTuple):
    """Rows with what is predicted of them by the present weights; NumPy's arrays."""

    y: Array  # (N,) or (N, n_out): labels or numbers, as they were given
    prediction: Array  # (..., N) or (..., N, n_out): what `predict` would give
    proba: Array | None  # (..., N, C): what `predict_proba` would give, for labels


def predictions(trainer: "Trainer", data: "Data") -> Predictions:
    """What the present weights predict of a set."""
    xp, measure, labels = trainer.place.xp, loss(trainer.spec.loss), trainer.labels
    params = windows(xp, trainer.spec, trainer.step.weights)
    prediction = scores(xp, trainer.spec, params, data.x, lambda score: measure.link(xp, score))
    linked, target = to_host(prediction), to_host(data.target).copy()  # for whoever writes there
    if labels.classes is None:
        y, prediction = (
            part[..., 0] if labels.flat and part.shape[-1] == 1 else part
            for part in (target, linked)
        )
        return Predictions(y, prediction, None)
    y = labels.classes[most_probable_class(CPU.xp, target)]
    return Predictions(
        y, labels.classes[most_probable_class(CPU.xp, linked)], class_probabilities(CPU.xp, linked)
    )


def check_metrics(metrics: Any) -> dict[str, Metric]:
    """Metrics by name; ValueError where they are no such dict."""
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics must be a dict {{name: function}}; got {metrics!r}")
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"a metric's name must be a text; got {name!r}")
        if name in RESERVED:
            raise ValueError(f"a metric must not be called {name!r}: a report has that already")
        if not callable(metric) or not takes_two(metric):
            raise ValueError(f"metric {name!r} must be a function (y, prediction); got {metric!r}")
    return dict(metrics)


def arguments_of(metric: Metric) -> Signature:
    try:
        return signature(metric)
    except ValueError:  # some functions of C have none
        return signature(lambda y, prediction: None)


def takes_two(metric: Metric) -> bool:
    """Whether a function can be called with two arguments."""
    try:
        arguments_of(metric).bind(None, None)
    except TypeError:
        return False
    return True


def measure_metrics(
    metrics: Mapping[str, Metric], trainer: "Trainer", data: "Data"
) -> dict[str, Any]:
    """Every metric of a set: a float, or an array (K,) of a population."""
    if not metrics:
        return {}
    rows = predictions(trainer, data)
    return {name: measured(name, metric, rows, trainer) for name, metric in metrics.items()}


def measured(name: str, metric: Metric, rows: Predictions, trainer: "Trainer") -> Any:
    by_probability = "proba" in arguments_of(metric).parameters
    if by_probability and rows.proba is None:
        raise ValueError(f"metric {name!r} asks for proba, but y holds numbers and no labels")
    prediction = rows.proba if by_probability else rows.prediction
    members = trainer.settings.members
    members_predictions: Any = [prediction] if members is None else prediction
    try:
        values = [metric(rows.y, member_prediction) for member_prediction in members_predictions]
    except Exception as error:  # the user's function may raise anything
        raise ValueError(f"metric {name!r} failed: {type(error).__name__}: {error}") from error
    for value in values:
        if not isinstance(value, Real) and getattr(value, "ndim", 1) != 0:
            raise ValueError(f"metric {name!r} must return a number; got {repr(value)[:80]}")
    numbers = CPU.xp.asarray([float(value) for value in values])
    return float(numbers[0]) if members is None else numbers
