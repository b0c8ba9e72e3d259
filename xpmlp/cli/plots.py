"""Pictures of a training, drawn by matplotlib without a window (extra: table)."""

from math import nan
from typing import Any

from xpmlp.devices.extras import import_extra

LARGEST = 1e30  # a loss beyond has diverged, and an axis that reached it would show nothing else


def plot_history(model: Any, path: Any = None, *, title: str = "") -> Any:
    """Draw training and held-out loss, and the learning rate, over the epochs.

    model: a Model, a TableModel, a fitted estimator, or the history of one. path: where to write
    the picture (.png, .pdf, .svg); with none the matplotlib Figure is only returned. A population
    gets one line per member.
    """
    import_extra("matplotlib", "table")
    from matplotlib.figure import Figure

    held = [getattr(one, name, None) for one in (model, getattr(model, "model", None))
            for name in ("history", "history_")]  # fmt: skip
    history = next((one for one in (model, *held) if isinstance(one, dict)), None)
    if history is None:
        raise TypeError(
            "plot_history draws a trained model or its history (lbfgs keeps none); got "
            f"{type(model).__name__}"
        )
    if not history:
        raise ValueError("there is no history to draw: a model keeps it until it is saved")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    draw_history(axis, history)
    axis.set_title(title)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def draw_history(axis: Any, history: dict[str, list[Any]]) -> None:
    """Training and held-out loss, and the learning rate on an axis of its own."""
    epochs = range(1, len(history["loss"]) + 1)
    losses = [plain(entry) for entry in history["loss"]]
    if min((value for entry in losses for value in entry), default=0) > 0:
        axis.set_yscale("log")
    axis.plot(epochs, losses, color="tab:blue", label="training loss")
    if history["val_loss"][0] is not None:
        held = [plain(entry) for entry in history["val_loss"]]
        axis.plot(epochs, held, color="tab:orange", label="validation loss")
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("loss")
    right = axis.twinx()
    right.plot(
        epochs, history["learning_rate"], color="tab:gray", linestyle=":", label="learning rate"
    )
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    named: dict[str, Any] = {}  # a population draws a line per member under one label
    for part in (axis, right):
        lines, labels = part.get_legend_handles_labels()
        named |= dict(zip(labels, lines, strict=True))
    axis.legend(named.values(), named.keys(), loc="upper right")


def plain(entry: Any) -> list[float]:
    """A loss of one or of each member, with gaps where it left what can be drawn."""
    values = entry.tolist() if hasattr(entry, "tolist") else [entry]
    return [value if abs(value) < LARGEST else nan for value in values]


def plot_fit(fitted: Any, path: Any) -> Any:
    """Losses and rate, and beside them predicted against true values or the confusion matrix.

    fitted: a `tabular.fitting.Fitted`. path: where to write the picture.
    """
    import_extra("matplotlib", "table")
    from matplotlib.figure import Figure

    model = fitted.model
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_history(left, model.model.history)
    if model.task == "regression":
        draw_values(right, fitted.truth, fitted.predicted, model.target)
    else:
        draw_confusion(right, fitted.truth, fitted.predicted, model.classes_.tolist())
    figure.savefig(path, dpi=150)
    return figure


def draw_values(axis: Any, truth: Any, predicted: Any, name: str) -> None:
    """A point per held-out row, and the line on which a perfect prediction lies."""
    axis.scatter(truth, predicted, s=4, alpha=0.3, color="tab:blue", linewidths=0)
    low = min(truth.min(), predicted.min())
    high = max(truth.max(), predicted.max())
    axis.plot([low, high], [low, high], color="black", linewidth=1, linestyle="--")
    axis.set_xlabel(f"true {name}")
    axis.set_ylabel(f"predicted {name}")
    axis.set_title("held-out rows")


def draw_confusion(axis: Any, truth: Any, predicted: Any, classes: list[Any]) -> None:
    """How many held-out rows of each class were taken for which."""
    place = {label: i for i, label in enumerate(classes)}
    codes = ([place[label] for label in labels.tolist()] for labels in (truth, predicted))
    confusion_matrix = import_extra("sklearn.metrics", "table").confusion_matrix
    counts = confusion_matrix(*codes, labels=list(place.values()))
    axis.imshow(counts, cmap="Blues")
    words = [str(label) for label in classes]
    axis.set_xticks(range(len(words)), words, rotation=45 if len(words) > 4 else 0)
    axis.set_yticks(range(len(words)), words)
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            dark = count > counts.max() / 2
            axis.text(j, i, f"{count:,}", ha="center", va="center", color="w" if dark else "k")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title("held-out rows")
