"""When an estimator's training ends: scikit-learn's rules, as a callback."""

from typing import Any

from xpmlp.backends.namespace import to_host
from xpmlp.fit.loop import Report
from xpmlp.fit.steps import Run


class Convergence:
    """scikit-learn's rules of when to stop and what to print, as a callback.

    It writes the estimator's fitted attributes after every epoch.
    """

    def __init__(self, est: Any, run: Run) -> None:
        self.est, self.run, self.course = est, run, est._optimizer
        self.printing = bool(est.verbose) and est.verbose != "bar"
        self.throttle()
        self.done = False  # whether these rules, or a callback, ended training

    def throttle(self) -> None:
        """Give the run the learning rate that the course is at."""
        share = self.course.learning_rate / self.est.learning_rate_init
        self.run.throttle[...] = self.run.place.xp.full_like(self.run.throttle, share)
        self.given = to_host(self.run.throttle).item()

    def follow(self) -> None:
        """Take over what other callbacks made of the rate."""
        now = to_host(self.run.throttle).item()
        if now not in (0.0, self.given):
            self.course.learning_rate *= now / self.given
            self.given = now

    def __call__(self, report: Report) -> bool | None:
        est = self.est
        self.follow()
        est.n_iter_ += 1
        est.t_ += self.run.data.rows
        est.loss_ = report.loss
        est.loss_curve_.append(report.loss)
        self.say(f"Iteration {est.n_iter_}, loss = {report.loss:.8f}")
        self.judge(report)
        if est.solver == "sgd" and est.learning_rate == "invscaling":
            rate = est.learning_rate_init / (est.t_ + 1) ** est.power_t
            self.course.learning_rate = float(rate)
        if est._no_improvement_count > est.n_iter_no_change:
            self.done = self.ending()
            if not self.done:
                est._no_improvement_count = 0
        if not self.done:
            self.throttle()
        return True if self.done else None

    def say(self, line: str) -> None:
        if self.printing:
            print(line)

    def judge(self, report: Report) -> None:
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
        est, course = self.est, self.course
        what = "Validation score" if est.early_stopping else "Training loss"
        line = (
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} "
            "consecutive epochs."
        )
        if est.solver != "sgd" or est.learning_rate != "adaptive":
            self.say(f"{line} Stopping.")
            return True
        if course.learning_rate <= 1e-6:
            self.say(f"{line} Learning rate too small. Stopping.")
            return True
        course.learning_rate /= 5.0
        self.say(f"{line} Setting learning rate to {course.learning_rate:f}")
        return False
