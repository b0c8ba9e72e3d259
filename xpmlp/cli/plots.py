"""Pictures of a training, drawn by matplotlib without a window (extra: table)."""

from typing import Any

from xpmlp.backends.extras import needed


def plot_history(model: Any, path: Any = None, *, title: str = "") -> Any:
    """Draw training and held-out loss, and the learning rate, over the epochs.

    model: a Model or its history. path: where to write the picture (.png, .pdf, .svg); with none
    the matplotlib Figure is only returned. A population gets one line per member.
    """
    needed("matplotlib", "table")
    from matplotlib.figure import Figure

    history = getattr(model, "history", model)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    count = len(history["loss"])
    epochs = range(1, count + 1)
    if min(smallest(entry) for entry in history["loss"]) > 0:
        axis.set_yscale("log")
    axis.plot(epochs, history["loss"], color="tab:blue", label="training loss")
    if history["val_loss"][0] is not None:
        axis.plot(epochs, history["val_loss"], color="tab:orange", label="held-out loss")
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    axis.set_title(title)
    right = axis.twinx()
    right.plot(epochs, history["rate"], color="tab:gray", linestyle=":", label="learning rate")
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    named: dict[str, Any] = {}  # a population draws a line per member under one label
    for part in (axis, right):
        lines, labels = part.get_legend_handles_labels()
        named |= dict(zip(labels, lines, strict=True))
    axis.legend(named.values(), named.keys(), loc="upper right")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def smallest(entry: Any) -> float:
    return float(entry.min()) if hasattr(entry, "min") else float(entry)
