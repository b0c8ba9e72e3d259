"""Pictures of a training, drawn by matplotlib without a window (extra: table)."""

from math import nan
from typing import Any

from xpmlp.backends.extras import needed

LARGEST = 1e30  # a loss beyond has diverged, and an axis that reached it would show nothing else


def plot_history(model: Any, path: Any = None, *, title: str = "") -> Any:
    """Draw training and held-out loss, and the learning rate, over the epochs.

    model: a Model or its history. path: where to write the picture (.png, .pdf, .svg); with none
    the matplotlib Figure is only returned. A population gets one line per member.
    """
    needed("matplotlib", "table")
    from matplotlib.figure import Figure

    history = getattr(model, "history", model)
    if not history:
        raise ValueError("there is no history to draw: a model keeps it until it is saved")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    epochs = range(1, len(history["loss"]) + 1)
    losses = [plain(entry) for entry in history["loss"]]
    if min((value for entry in losses for value in entry), default=0) > 0:
        axis.set_yscale("log")
    axis.plot(epochs, losses, color="tab:blue", label="training loss")
    if history["val_loss"][0] is not None:
        held = [plain(entry) for entry in history["val_loss"]]
        axis.plot(epochs, held, color="tab:orange", label="held-out loss")
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


def plain(entry: Any) -> list[float]:
    """A loss of one or of each member, with gaps where it left what can be drawn."""
    values = entry.tolist() if hasattr(entry, "tolist") else [entry]
    return [value if abs(value) < LARGEST else nan for value in values]
