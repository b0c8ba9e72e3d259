"""scikit-learn's stopping rules, as a callback of training."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.devices.namespace import dtype_name, running, to_host
from xpmlp.training.trainer import Trainer

RECORDED = ("loss", "val_loss", "val_score")  # of a history


class Convergence:
    """scikit-learn's rules of when to stop and what to print, as a callback.

    It updates the estimator's fitted attributes after every epoch. Its state is in the trainer's
    history and extra_state, and so in a checkpoint.
    """

    def __init__(self, est: Any, trainer: Trainer) -> None:
        self.est, self.trainer, self.state = est, trainer, est._optimizer
        self.printing = False  # until `resume` has run
        self.done = False  # whether these rules stopped training
        self.set_scale()

    def resume(self) -> None:
        """Update the estimator to the trainer's epoch, which a checkpoint may have restored."""
        est, trainer = self.est, self.trainer
        for i in range(trainer.first_epoch - trainer.epoch, 0):
            self.record(SimpleNamespace(**{name: trainer.history[name][i] for name in RECORDED}))
        self.state.learning_rate = trainer.extra_state["learning_rate"]
        est._no_improvement_count, self.done = (
            trainer.extra_state["missed"],
            trainer.extra_state["done"],
        )
        self.printing = bool(est.verbose) and est.verbose != "bar"

    def learning_rate_scale(self) -> float:
        """The learning rate divided by the initial one, rounded to the trainer's dtype."""
        scale = self.state.learning_rate / self.est.learning_rate_init
        dtype = dtype_name(self.trainer.step.learning_rate_scale)
        with np.errstate(all="ignore"):
            return float(np.asarray(scale, dtype=dtype))

    def set_scale(self) -> None:
        """Pass the learning rate to the trainer, and the state of these rules to checkpoints."""
        place, scale = self.trainer.place, self.trainer.step.learning_rate_scale
        if not self.done:
            with running(place):
                scale[...] = place.xp.full_like(scale, self.learning_rate_scale())
        self.trainer.extra_state |= {
            "learning_rate": self.state.learning_rate,
            "missed": self.est._no_improvement_count,
            "done": self.done,
        }

    def adopt_learning_rate(self) -> None:
        """Adopt the learning rate that another callback may have set."""
        scale, own = (
            to_host(self.trainer.step.learning_rate_scale).item(),
            self.learning_rate_scale(),
        )
        if scale and own and scale != own:  # 0 is a stop
            self.state.learning_rate *= scale / own

    def __call__(self, report: Any) -> bool | None:
        est = self.est
        self.adopt_learning_rate()
        self.record(report)
        if est.solver == "sgd" and est.learning_rate == "invscaling":
            rate = est.learning_rate_init / (est.t_ + 1) ** est.power_t
            self.state.learning_rate = float(rate)
        if est._no_improvement_count > est.n_iter_no_change:
            self.done = self.check_stopping()
            if not self.done:
                est._no_improvement_count = 0
        self.set_scale()
        return True if self.done else None

    def print_line(self, line: str) -> None:
        if self.printing:
            print(line)

    def record(self, report: Any) -> None:
        """Add an epoch to the fitted attributes."""
        est = self.est
        est.n_iter_ += 1
        est.t_ += self.trainer.data.rows
        est.loss_ = report.loss
        est.loss_curve_.append(report.loss)
        self.print_line(f"Iteration {est.n_iter_}, loss = {report.loss:.8f}")
        self.track_improvement(report)

    def track_improvement(self, report: Any) -> None:
        """Count the epochs without a better training loss or, stopping early, validation score."""
        est = self.est
        if report.val_score is not None:
            est.validation_loss_curve_.append(report.val_loss)
            est.validation_scores_.append(report.val_score)
            self.print_line(f"Validation score: {report.val_score:f}")
        if est.early_stopping:
            missed = report.val_score < est.best_validation_score_ + est.tol
        else:
            missed = report.loss > est.best_loss_ - est.tol
            est.best_loss_ = min(est.best_loss_, report.loss)
        est._no_improvement_count = est._no_improvement_count + 1 if missed else 0
        if report.val_score is not None:
            est.best_validation_score_ = max(est.best_validation_score_, report.val_score)

    def check_stopping(self) -> bool:
        """Whether to stop for lack of improvement; "adaptive" first divides the learning rate."""
        est, state = self.est, self.state
        what = "Validation score" if est.early_stopping else "Training loss"
        line = (
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} "
            "consecutive epochs."
        )
        if est.solver != "sgd" or est.learning_rate != "adaptive":
            self.print_line(f"{line} Stopping.")
            return True
        if state.learning_rate <= 1e-6:
            self.print_line(f"{line} Learning rate too small. Stopping.")
            return True
        state.learning_rate /= 5.0
        self.print_line(f"{line} Setting learning rate to {state.learning_rate:f}")
        return False
