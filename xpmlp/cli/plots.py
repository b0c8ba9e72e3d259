"""Pictures of a training, drawn by matplotlib without a window (extra: table)."""

from math import isnan, nan
from typing import Any

from xpmlp.devices.extras import import_extra
from xpmlp.training.report import SERIES

COLORS = ("tab:blue", "tab:orange")
PALETTE = tuple(f"C{k}" for k in range(10))
MARKERS = {"-": "o", "--": "s", ":": "x"}
NAMED = 10  # members that a legend lists
LARGEST = 1e30  # a loss beyond has diverged, and an axis that reached it would show nothing else


def plot_history(model: Any, path: Any = None, *, title: str = "") -> Any:
    """Draw training and held-out loss, and the learning rate, over the epochs.

    Parameters
    ----------
    model : Model, TableModel, fitted estimator, or the history of one
        A population has one colour per member, and its best is marked; metrics have panels of
        their own.
    path : path, optional
        Where to write the picture (.png, .pdf, .svg).
    title : str

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    TypeError, ValueError
        For what has no history.
    ImportError
        Where matplotlib is not installed (extra: table).

    Examples
    --------
    >>> import xpmlp
    >>> model = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], epochs=5)
    >>> plot_history(model, title="a line").axes[0].get_title()
    'a line'
    """
    import_extra("matplotlib", "table")
    from matplotlib.figure import Figure

    owners = (model, getattr(model, "model", None))
    candidates = [
        getattr(owner, name, None) for owner in owners for name in ("history", "history_")
    ]
    history = next((entry for entry in (model, *candidates) if isinstance(entry, dict)), None)
    if history is None:
        raise TypeError(
            "plot_history draws a trained model or its history (lbfgs keeps none); got "
            f"{type(model).__name__}"
        )
    if not history:
        raise ValueError("there is no history to draw: a model keeps it until it is saved")
    metrics = [name for name in history if name not in SERIES]
    figure = Figure(figsize=(7, 4.2 + 1.8 * len(metrics)), layout="constrained")
    ratios = [2.4, *[1] * len(metrics)]
    panels = figure.subplots(len(ratios), squeeze=False, sharex=True, height_ratios=ratios)[:, 0]
    axis, *others = panels
    draw_history(axis, history)
    for name, below in zip(metrics, others, strict=True):
        draw_series(below, history[name], COLORS[0])
        below.set_ylabel(name)
    panels[-1].set_xlabel("epoch")
    axis.set_title(title)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def draw_history(axis: Any, history: dict[str, list[Any]]) -> None:
    """Training and held-out loss, and the learning rate on an axis of its own. A population has
    one colour per member; its best is drawn thick."""
    losses = [plain(entry) for entry in history["loss"]]
    if min((value for entry in losses for value in entry), default=0) > 0:
        axis.set_yscale("log")
    held_out, members = history["val_loss"][0] is not None, len(losses[0])
    lines = draw_series(axis, history["loss"], COLORS[0], "training loss")
    if 1 < members <= NAMED:
        for k, line in enumerate(lines):
            line.set_label(f"member {k}" + " (diverged)" * isnan(losses[-1][k]))
    if held_out:
        dashed = "-" if members == 1 else "--"
        lines = draw_series(axis, history["val_loss"], COLORS[1], "validation loss", dashed)
    if held_out or members > 1:
        mark_best(axis, lines, history.get("best_epoch"))
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.set_ylabel("loss")
    right = axis.twinx()
    rates = history["learning_rate"]
    if all(len({*plain(entry)}) == 1 for entry in rates):
        rates = [plain(entry)[0] for entry in rates]
    draw_series(right, rates, "tab:gray", "learning rate", ":")
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    legends = [part.get_legend_handles_labels() for part in (axis, right)]
    handles, labels = ([*left, *rest] for left, rest in zip(*legends, strict=True))
    axis.figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")


def draw_series(
    axis: Any, series: list[Any], color: str, label: str | None = None, style: str = "-"
) -> list[Any]:
    """One line, or a line for each member in a colour of its own."""
    columns = list(zip(*map(plain, series), strict=True))
    epochs = range(1, len(series) + 1)
    marker = MARKERS[style] if len(series) == 1 else None  # a line of one point shows nothing
    if len(columns) == 1:
        return [*axis.plot(epochs, columns[0], style, color=color, label=label, marker=marker)]
    axis.plot([], [], style, color="black", label=label, marker=marker)
    return [
        axis.plot(epochs, column, style, color=PALETTE[k % len(PALETTE)], linewidth=1, alpha=0.7,
                  marker=marker)[0]
        for k, column in enumerate(columns)
    ]  # fmt: skip


def mark_best(axis: Any, lines: list[Any], best_epoch: list[Any] | None) -> None:
    """The line that came lowest, thick in a population, and the epoch of its best weights."""
    lowest = [(value, epoch, k) for k, line in enumerate(lines)
              for epoch, value in enumerate(line.get_ydata(), 1) if not isnan(value)]  # fmt: skip
    if not lowest:
        return
    _, epoch, k = min(lowest)
    if best_epoch:  # the score may have been monitored
        epoch = int(plain(best_epoch[-1])[k]) or epoch
    line = lines[k]
    if len(lines) > 1:
        line.set(linewidth=2.5, alpha=1, zorder=3)
    name = f"member {k}, epoch {epoch}" if len(lines) > 1 else f"epoch {epoch}"
    axis.plot(
        epoch, line.get_ydata()[epoch - 1], "o", color=line.get_color(), label=f"best: {name}"
    )


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
    left.set_xlabel("epoch")
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
