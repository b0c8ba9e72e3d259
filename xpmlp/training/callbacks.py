"""Callbacks: functions of a report that return True to stop training, or one truth per member.

They keep nothing: what they decide follows from the report and its history, so that a resumed
run decides as the uninterrupted one would. Write your own in one line:
`lambda report: report.val_score > 0.97`.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from xpmlp.devices.extras import import_extra
from xpmlp.names import whole

WATCHED = ("loss", "val_loss", "val_score")


def number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value)):
        raise ValueError(f"{name} must be a finite number; got {value!r}")
    return float(value)


def early_stopping(patience: int) -> Callable[[Any], Any]:
    """Stop (each member) when `patience` epochs have passed without a better result."""
    waited = whole(patience, "patience")
    return lambda report: report.epoch - report.best_epoch >= waited


def stop_at(name: str, value: float) -> Callable[[Any], Any]:
    """Stop when a loss has come down to a value, or a score up to it.

    Parameters
    ----------
    name : {"loss", "val_loss", "val_score"}
    value : float

    Returns
    -------
    function of a Report
        For `train(callbacks=[...])`; a population's members stop one by one.

    Examples
    --------
    >>> import xpmlp
    >>> model = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], learning_rate=0.1, epochs=500,
    ...                     callbacks=[stop_at("loss", 1e-3)])
    >>> bool(model.history["loss"][-1] <= 1e-3 < model.history["loss"][-2])
    True
    """
    if name not in WATCHED:
        raise ValueError(f"stop_at goes by {', '.join(WATCHED)}; got {name!r}")
    aim = number(value, "value")

    def reached(report: Any) -> Any:
        latest = getattr(report, name)
        if latest is None:
            raise ValueError(f"stop_at({name!r}) needs a held-out set: give X_val and y_val")
        return latest <= aim if name.endswith("loss") else latest >= aim

    return reached


def plateau(
    factor: float = 0.1, patience: int = 10, min_learning_rate: float = 1e-8
) -> Callable[[Any], None]:
    """Multiply the learning rate by a factor after every so many epochs without a better result.

    Parameters
    ----------
    factor : float in (0, 1)
    patience : int
        Epochs without a better result than the best of the whole training; the wait starts again
        at every reduction.
    min_learning_rate : float at least 0
        A rate never falls below it.

    Returns
    -------
    function of a Report
        For `train(callbacks=[...])`.

    Examples
    --------
    >>> import xpmlp
    >>> model = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], learning_rate=2.0, epochs=60,
    ...                     callbacks=[plateau(factor=0.5, patience=5)])
    >>> bool(model.history["learning_rate"][-1] < 2.0)
    True
    """
    if not 0 < number(factor, "factor") < 1:
        raise ValueError(f"factor must be in (0, 1); got {factor}")
    if number(min_learning_rate, "min_learning_rate") < 0:
        raise ValueError(f"min_learning_rate must be at least 0; got {min_learning_rate}")
    period = whole(patience, "patience")

    least = min_learning_rate * (1 - 1e-6)  # 1e-4 * 0.1 is a little below 1e-5

    def reduce_rate(report: Any) -> None:
        epochs_without = report.epoch - report.best_epoch
        is_due = (
            (epochs_without > 0)
            & (epochs_without % period == 0)
            & (report.learning_rate * factor >= least)
        )
        report.scale_learning_rate(1 - (1 - factor) * is_due)

    return reduce_rate


class ProgressBar:
    """A tqdm bar over the epochs, with loss, held-out score and metrics (extra: table).

    Parameters
    ----------
    **options
        Of `tqdm.tqdm`, such as leave=False.

    Raises
    ------
    ImportError
        Where tqdm is not installed, with the line that installs it.

    Examples
    --------
    >>> import xpmlp
    >>> model = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], epochs=5,
    ...                     callbacks=[ProgressBar(disable=True)])
    """

    def __init__(self, **options: Any) -> None:
        self.tqdm, self.options = import_extra("tqdm", "table").tqdm, options
        self.bar: Any = None  # drawn with the first report: an error before stands alone

    def __call__(self, report: Any) -> None:
        if self.bar is None:
            self.bar = self.tqdm(unit="epoch", **self.options)
        self.bar.total = report.epochs
        shown = {"loss": report.loss, "val_loss": report.val_loss, "score": report.val_score}
        shown |= report.metrics
        text = {name: f"{mean(value):.4g}" for name, value in shown.items() if value is not None}
        self.bar.set_postfix(text, refresh=False)
        self.bar.update(report.epoch - self.bar.n)

    def close(self) -> None:
        """Called by `train` when training ends, however it ends."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None  # another training has another


def mean(value: Any) -> float:
    """The mean over members, or the value of the only one."""
    return float(value.mean()) if hasattr(value, "mean") else float(value)
