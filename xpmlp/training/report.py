"""What an epoch came to, and what a callback may do about it."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from xpmlp.devices.namespace import running
from xpmlp.training.held_out import Predictions, predictions
from xpmlp.training.model import Model

if TYPE_CHECKING:
    from xpmlp.training.trainer import Trainer


@dataclass(frozen=True)
class Report:
    """What one epoch came to: what callbacks are given, and `epochs` yields.

    Attributes
    ----------
    epoch, epochs : int
        Epochs done and epochs planned.
    step : int
        Updates done.
    loss : float, or array of shape (K,) for a population, as are the next five
        Weighted mean over the epoch's rows, penalty included, as met while training.
    learning_rate
        Of the epoch's last update.
    grad_norm
        Norm of the gradient of that update, before clipping.
    val_loss
        On the held-out set; None without one.
    val_score
        Likewise: accuracy for labels, R2 for numbers, minus the loss for several quantiles.
    best_epoch
        Epoch of the best result so far, as `patience` of `train` measures it.
    seconds : float
        Spent training so far.
    executor : {"eager", "replayed", "captured"}
        How the steps ran; "captured" is as a CUDA graph.
    restored : int, or array of shape (K,)
        1 where the weights were put back after a divergence, else 0.
    metrics : dict
        Those that `train` was given: floats or arrays (K,).
    history

    Examples
    --------
    >>> import xpmlp
    >>> for report in xpmlp.epochs("1-1", [[0.0], [1.0]], [1.0, 3.0], epochs=2):
    ...     print(report.epoch, report.step)
    1 1
    2 2
    >>> bool(report.loss < report.history["loss"][0])
    True
    """

    epoch: int
    epochs: int
    step: int
    loss: Any
    learning_rate: Any
    grad_norm: Any
    val_loss: Any
    val_score: Any
    best_epoch: Any
    seconds: float
    executor: str
    restored: Any
    metrics: dict[str, Any]
    trainer: "Trainer" = field(repr=False)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The same numbers of every epoch up to this one."""
        return {name: values[: self.epoch] for name, values in self.trainer.history.items()}

    def model(self) -> Model:
        """The model so far, which later training leaves alone.

        Returns
        -------
        Model
            With a copy of the weights that are kept: the best, or the last (see `train`).

        Raises
        ------
        RuntimeError
            When training has gone on: the weights of this epoch are gone.
        """
        if self.trainer.epoch != self.epoch:
            raise RuntimeError(
                f"this is the report of epoch {self.epoch}, and training is at epoch "
                f"{self.trainer.epoch}: ask for model() when the report comes"
            )
        return self.trainer.model()

    def predictions(self) -> Predictions | None:
        """What the present weights predict of the held-out rows.

        Returns
        -------
        Predictions or None
            NumPy arrays `y` (N,) or (N, n_out), `prediction` (..., N) or (..., N, n_out), and for
            labels `proba` (..., N, C), else None. None without held-out rows.

        Raises
        ------
        RuntimeError
            When training has gone on.

        Examples
        --------
        >>> import xpmlp
        >>> rows = dict(X=[[0.0], [1.0]], y=[1.0, 3.0], X_val=[[0.5]], y_val=[2.0])
        >>> for report in xpmlp.epochs("1-1", **rows, epochs=1):
        ...     print(report.predictions().y)
        [2.]
        """
        data = self.trainer.val_data
        if self.trainer.epoch != self.epoch:
            raise RuntimeError(
                f"this is the report of epoch {self.epoch}, and training is at epoch "
                f"{self.trainer.epoch}: ask for predictions() when the report comes"
            )
        if data is None:
            return None
        with running(self.trainer.place):
            return predictions(self.trainer, data)

    def scale_learning_rate(self, factor: Any) -> None:
        """Multiply the learning rate from here on.

        Parameters
        ----------
        factor : float at least 0, or one per member

        Raises
        ------
        ValueError
            Where one is below 0 or not finite.
        """
        self.trainer.scale_learning_rate(factor)

    def stop(self, members: Any = True) -> None:
        """End training after this epoch.

        Parameters
        ----------
        members : bool, or one per member
            The members that end.

        Raises
        ------
        ValueError
            For what is not boolean.

        Examples
        --------
        >>> import xpmlp
        >>> for report in xpmlp.epochs("1-1", [[0.0], [1.0]], [1.0, 3.0], epochs=100):
        ...     report.stop(report.epoch == 3)
        >>> report.epoch
        3
        """
        self.trainer.stop(members, "members")


NO_SERIES = ("epoch", "epochs", "step", "metrics", "trainer")
SERIES = [entry.name for entry in fields(Report) if entry.name not in NO_SERIES]  # of a history
