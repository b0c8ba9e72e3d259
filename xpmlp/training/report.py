"""What an epoch came to, and what a callback may do about it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xpmlp.devices.namespace import running
from xpmlp.training.held_out import Predictions, predictions
from xpmlp.training.model import Model

if TYPE_CHECKING:
    from xpmlp.training.trainer import Trainer


@dataclass(frozen=True)
class Report:
    """What one epoch came to. Numbers are floats, or arrays (K,) for a population."""

    epoch: int  # epochs done
    epochs: int  # epochs planned
    step: int  # updates done
    loss: Any  # weighted mean over the epoch's rows, penalty included, as met while training
    learning_rate: Any  # of the epoch's last update
    grad_norm: Any  # norm of the gradient of the epoch's last update, before clipping
    val_loss: Any  # on the held-out set; None without one
    val_score: Any  # accuracy, R2 or minus the loss (see metrics.score_for); None without one
    best_epoch: Any  # epoch of the best watched value so far
    seconds: float  # spent training so far
    executor: str  # how the steps ran: "eager", "replayed", or "captured" as a CUDA graph
    restored: Any  # 1 where the weights were put back after a divergence, else 0
    metrics: dict[str, Any]  # those that `train` was given, of the held-out rows
    trainer: "Trainer" = field(repr=False)

    @property
    def history(self) -> dict[str, list[Any]]:
        """The same numbers of every epoch up to this one."""
        return {name: values[: self.epoch] for name, values in self.trainer.history.items()}

    def model(self) -> Model:
        """A model with a copy of the weights kept so far; later training leaves it alone.

        Raises RuntimeError when training has gone on: the weights of this epoch are gone.
        """
        if self.trainer.epoch != self.epoch:
            raise RuntimeError(
                f"this is the report of epoch {self.epoch}, and training is at epoch "
                f"{self.trainer.epoch}: ask for model() when the report comes"
            )
        return self.trainer.model()

    def predictions(self) -> Predictions | None:
        """The held-out rows' y, with what the present weights predict of them; None without any.

        Raises RuntimeError when training has gone on.
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
        """Multiply the learning rate from here on, one factor for all or one per member.

        ValueError where one is below 0 or not finite.
        """
        self.trainer.scale_learning_rate(factor)

    def stop(self, which: Any = True) -> None:
        """End training after this epoch, of all or of the members that are true in `which`."""
        self.trainer.stop(which, "which")
