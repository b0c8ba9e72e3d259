"""When an estimator's training ends: scikit-learn's rules, as a callback."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.devices.namespace import dtype_name, running, to_host
from xpmlp.training.trainer import Trainer

RECORDED = ("loss", "val_loss", "val_score")  # of a history


class Convergence:
    """scikit-learn's rules of when to stop and what to print, as a callback.

    It writes the estimator's fitted attributes after every epoch. What it goes by stands in the
    trainer's history or its extra_state, and so in a checkpoint.
    """

    def __init__(self, est: Any, trainer: Trainer) -> None:
        self.est, self.trainer, self.state = est, trainer, est._optimizer
        self.printing = False  # until `resume` is over
        self.done = False  # whether these rules ended training
        self.set_scale()

    def resume(self) -> None:
        """Let the estimator stand where the trainer does, which a checkpoint may have moved."""
        est, trainer = self.est, self.trainer
        for i in range(trainer.first_epoch - trainer.epoch, 0):
            self.record(SimpleNamespace(**{name: trainer.history[name][i] for name in RECORDED}))
        self.state.learning_rate = trainer.extra_state["learning_rate"]
        est._no_improvement_count, self.done = (
            trainer.extra_state["missed"],
            trainer.extra_state["done"],
        )
        self.printing = bool(est.verbose) and est.verbose != "bar"

    def share(self) -> float:
        """The part of its first learning rate that the state is at, in the trainer's dtype."""
        share = self.state.learning_rate / self.est.learning_rate_init
        with np.errstate(all="ignore"):
            return float(np.asarray(share, dtype=dtype_name(self.trainer.step.learning_rate_scale)))

    def set_scale(self) -> None:
        """Give the trainer the learning rate that the state is at, and let a checkpoint know."""
        place, scale = self.trainer.place, self.trainer.step.learning_rate_scale
        if not self.done:
            with running(place):
                scale[...] = place.xp.full_like(scale, self.share())
        self.trainer.extra_state |= {
            "learning_rate": self.state.learning_rate,
            "missed": self.est._no_improvement_count,
            "done": self.done,
        }

    def follow(self) -> None:
        """Take over what other callbacks made of the rate."""
        now, given = to_host(self.trainer.step.learning_rate_scale).item(), self.share()
        if now and given and now != given:  # 0 is a stop
            self.state.learning_rate *= now / given

    def __call__(self, report: Any) -> bool | None:
        est = self.est
        self.follow()
        self.record(report)
        if est.solver == "sgd" and est.learning_rate == "invscaling":
            rate = est.learning_rate_init / (est.t_ + 1) ** est.power_t
            self.state.learning_rate = float(rate)
        if est._no_improvement_count > est.n_iter_no_change:
            self.done = self.ending()
            if not self.done:
                est._no_improvement_count = 0
        self.set_scale()
        return True if self.done else None

    def say(self, line: str) -> None:
        if self.printing:
            print(line)

    def record(self, report: Any) -> None:
        """Write the fitted attributes of one epoch more."""
        est = self.est
        est.n_iter_ += 1
        est.t_ += self.trainer.data.rows
        est.loss_ = report.loss
        est.loss_curve_.append(report.loss)
        self.say(f"Iteration {est.n_iter_}, loss = {report.loss:.8f}")
        self.judge(report)

    def judge(self, report: Any) -> None:
        """Count the epochs without a better training loss or, stopping early, held-out score."""
        est = self.est
        if report.val_score is not None:
            est.validation_loss_curve_.append(report.val_loss)
            est.validation_scores_.append(report.val_score)
            self.say(f"Validation score: {report.val_score:f}")
        if est.early_stopping:
            missed = report.val_score < est.best_validation_score_ + est.tol
        else:
            missed = report.loss > est.best_loss_ - est.tol
            est.best_loss_ = min(est.best_loss_, report.loss)
        est._no_improvement_count = est._no_improvement_count + 1 if missed else 0
        if report.val_score is not None:
            est.best_validation_score_ = max(est.best_validation_score_, report.val_score)

    def ending(self) -> bool:
        """Whether too many epochs without improvement end training; "adaptive" slows down first."""
        est, state = self.est, self.state
        what = "Validation score" if est.early_stopping else "Training loss"
        line = (
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} "
            "consecutive epochs."
        )
        if est.solver != "sgd" or est.learning_rate != "adaptive":
            self.say(f"{line} Stopping.")
            return True
        if state.learning_rate <= 1e-6:
            self.say(f"{line} Learning rate too small. Stopping.")
            return True
        state.learning_rate /= 5.0
        self.say(f"{line} Setting learning rate to {state.learning_rate:f}")
        return False
