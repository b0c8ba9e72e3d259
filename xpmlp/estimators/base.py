"""What classifier and regressor share: fit, partial_fit, and the network's answer for rows."""

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.devices.threads import limited
from xpmlp.devices.words import choose, home, release
from xpmlp.estimators import files, lbfgs, onnx, stochastic
from xpmlp.estimators.inference import LINKS
from xpmlp.estimators.inputs import (
    incoming,
    named_val,
    read_both,
    read_weight,
)
from xpmlp.estimators.network import (
    ResumeState,
    drawn,
    hidden_sizes,
    lists,
    new_resume_state,
    plain,
    spec_of,
)
from xpmlp.estimators.parameters import CONSTRAINTS
from xpmlp.estimators.signature import refuse as refuse_checkpoint
from xpmlp.estimators.stochastic import NON_FINITE, NonFiniteError, Table
from xpmlp.layout import windows
from xpmlp.losses import loss as find_loss
from xpmlp.recording.onnx_graph import Graph
from xpmlp.spec import AnyLoss, Spec
from xpmlp.storage.model_file import save
from xpmlp.training.checks import warn_of_constant_data
from xpmlp.training.data import own_dtype
from xpmlp.training.memory import estimate_memory, explain_memory_error
from xpmlp.training.metrics import reported
from xpmlp.training.model import Model
from xpmlp.types import Array

LBFGS = "lbfgs"
OWN_ARRAYS = ("coefs_", "intercepts_")


def stochastic_only(est: Any) -> bool:
    """Whether `partial_fit` is there: AttributeError for the solver that has no epochs."""
    if est.solver == LBFGS:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {est.solver} is not "
            "stochastic."
        )
    return True


@contextmanager
def all_or_nothing(est: Any) -> Iterator[None]:
    """An error leaves the estimator as it was; one that diverges has its last good weights."""
    before = dict(vars(est))
    try:
        yield
    except NonFiniteError:
        raise
    except BaseException:
        est.__dict__ = before
        raise


class MLPBase(BaseEstimator):  # type: ignore[misc]
    """Training and inference; subclasses say what y means and what the network's answer is."""

    _parameter_constraints = CONSTRAINTS
    coefs_: list[Array]
    intercepts_: list[Array]
    history_: dict[str, list[Any]]
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    validation_loss_curve_: list[float] | None
    best_loss_: float | None
    best_validation_score_: float | None
    _no_improvement_count: int
    _optimizer: ResumeState  # as scikit-learn calls it

    def take(self, given: dict[str, Any]) -> None:
        """Hold the arguments of __init__ as they are, as scikit-learn asks."""
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)

    # what a subclass says

    def loss_asked(self) -> AnyLoss:
        """The loss by our name."""
        raise NotImplementedError

    def learn_labels(self, y: np.ndarray, *, anew: bool) -> None:
        """Take or compare the classes of y."""

    def check_labels(self, y: Any) -> None:
        """ValueError where y holds no labels but numbers."""

    def targets(self, y: Any) -> np.ndarray:
        """y as the loss takes it, (N, n_outputs)."""
        raise NotImplementedError

    def weights(self, given: np.ndarray | None, y: np.ndarray) -> np.ndarray | None:
        """Sample weights (N,), with what the classes weigh."""
        return given

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """What held-out rows are stratified by."""
        return None

    # fitting

    def fit_rows(
        self, X: Any, y: Any, sample_weight: Any, held: tuple[Any, Any, Any], *, once: bool
    ) -> Self:
        """`fit`, or `partial_fit` where it is `once`."""
        with all_or_nothing(self):
            place, training = self.prepared(X, y, sample_weight, held, once=once)
            with limited(self.n_threads):
                training()
            del training
            release(place)
        if not all(np.isfinite(to_host(part)).all() for part in (*self.coefs_, *self.intercepts_)):
            raise NonFiniteError(NON_FINITE)
        return self

    def prepared(
        self, X: Any, y: Any, sample_weight: Any, held: tuple[Any, Any, Any], *, once: bool
    ) -> tuple[Place, Callable[[], None]]:
        """Everything checked and in its place, and the training that is left to do."""
        if once:
            self.validate_what_changed()
        self.refuse(*held, once=once)
        sizes = hidden_sizes(self)
        first = not (hasattr(self, "coefs_") and (self.warm_start or once))
        table = self.table(X, y, sample_weight, first=first, anew=not (self.warm_start or once))
        apart = None if held[0] is None else self.held_table(*held, table.target.shape[1])
        n_out = len(self.levels()) or table.target.shape[1]
        spec = spec_of(self, table.x.shape[1], sizes, n_out, reported(self.loss_asked()))
        place, dtype = self.whereabouts(table.x, first=first)
        if not once:
            warn_of_constant_data(table.x, table.target if is_classifier(self) else None)
        asked = estimate_memory(place, spec, dtype, min(200, len(table.target)))
        with running(place), explain_memory_error(asked):
            if first:
                self.start(spec, place, dtype)
            if self.solver == LBFGS:
                honest = Spec(spec.layers, self.loss_asked())
                data = table.data(place, dtype)
                return place, partial(lbfgs.minimise, self, honest, spec, place, dtype, data)
            state = self._optimizer = self.resume_state(first=first, once=once)
            if self.early_stopping and apart is None:
                strata = self.strata(table.target)
                table, apart = stochastic.held_out(self, state, table, strata)
            self.open_curves(apart)
            tables = (table, apart)
            trainer = stochastic.make_trainer(self, spec, place, dtype, tables, once=once)
            return place, partial(stochastic.train, self, trainer, once=once)

    def validate_what_changed(self) -> None:
        """Check the parameters again where one was set since `partial_fit` last did.

        (scikit-learn leaves that out where an estimator is fitted.)
        """
        now = [getattr(self, name) for name in self._parameter_constraints]
        before = self.__dict__.get("_validated", ())
        if len(before) != len(now) or not all(map(operator.is_, before, now)):
            self._validate_params()
            self._validated = now

    def refuse(self, X_val: Any, y_val: Any, weight_val: Any, *, once: bool) -> None:
        """ValueError for arguments that do not go together."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"{missing} is missing: give both or none")
        if X_val is None and weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val")
        if once and self.early_stopping and X_val is None:
            raise ValueError("partial_fit does not support early_stopping=True without X_val")
        if self.solver == LBFGS:
            lbfgs.refuse(self, X_val)
        if not once:
            refuse_checkpoint(self)

    def table(self, X: Any, y: Any, sample_weight: Any, *, first: bool, anew: bool) -> Table:
        """The checked rows to learn from; the estimator takes or compares features and classes."""
        x, labels = read_both(self, incoming(X), y, reset=first)
        own = read_weight(sample_weight, x.shape[0])
        self.learn_labels(labels, anew=anew)
        weight = self.weights(own, labels)
        return Table(x, self.targets(labels), labels, weight)

    def held_table(self, X: Any, y: Any, sample_weight: Any, n_out: int) -> Table:
        """The checked held-out rows; errors name them as such."""
        with named_val():
            x, labels = read_both(self, incoming(X), y, reset=False)
            self.check_labels(labels)
            weight, target = read_weight(sample_weight, x.shape[0]), self.targets(labels)
            if target.shape[1] != n_out:
                raise ValueError(f"y has {target.shape[1]} columns, but there are {n_out} to learn")
        return Table(x, target, labels, weight, "_val")

    def levels(self) -> tuple[float, ...]:
        """The quantiles that the outputs stand for, if any."""
        return ()

    def whereabouts(self, x: Any, *, first: bool) -> tuple[Place, str]:
        """Where to train, and in which dtype: as asked for, else where the weights or X lie."""
        like = x if first else self.coefs_[0]
        if self.device is None and not first:
            place = home(like, self.precision)
        else:
            place = choose(self.device, x, self.precision)
        return place, self.dtype or own_dtype(like)

    def start(self, spec: Spec, place: Place, dtype: str) -> None:
        """Initial weights, empty curves, and a state at epoch 0."""
        random = check_random_state(self.random_state)
        flat = to_place(place, drawn(self, spec, random), dtype)
        self.coefs_, self.intercepts_ = lists(windows(place.xp, spec, flat))
        self.n_iter_, self.t_ = 0, 0
        self.n_outputs_, self.n_layers_ = spec.n_out, len(spec.sizes)
        link = find_loss(spec.loss).link
        self.out_activation_ = next(name for name, known in LINKS.items() if known is link)
        self.__dict__.pop("_optimizer", None)
        if self.solver == LBFGS:
            return
        self._optimizer = new_resume_state(self, random)
        self.loss_curve_ = []
        self.history_ = {}
        self._no_improvement_count = 0
        self.best_loss_ = self.best_validation_score_ = None
        self.validation_scores_ = self.validation_loss_curve_ = None

    def resume_state(self, *, first: bool, once: bool) -> ResumeState:
        """The state to go on with."""
        state: ResumeState | None = getattr(self, "_optimizer", None)
        if state is None:
            return new_resume_state(self, check_random_state(self.random_state))
        state = replace(state)  # an error on the way leaves the old one as it was
        if not (first or once) and self.continuation == "scikit-learn":
            anew = new_resume_state(self, check_random_state(self.random_state))
            anew.epoch, anew.best, anew.best_epoch = state.epoch, state.best, state.best_epoch
            return anew
        if state.learning_rate_init != self.learning_rate_init:
            state.learning_rate_init = self.learning_rate_init
            state.learning_rate = float(self.learning_rate_init)
        return state

    def open_curves(self, held: Table | None) -> None:
        """The lists and bests that this training writes, in copies where they are there."""
        self._no_improvement_count = getattr(self, "_no_improvement_count", 0)
        self.history_ = {k: list(v) for k, v in getattr(self, "history_", {}).items()}
        self.loss_curve_ = list(getattr(self, "loss_curve_", ()))
        for name in ("validation_scores_", "validation_loss_curve_"):
            if getattr(self, name, None) is not None:
                setattr(self, name, list(getattr(self, name)))
        if not self.early_stopping and getattr(self, "best_loss_", None) is None:
            self.best_loss_ = np.inf
        if held is not None and getattr(self, "validation_scores_", None) is None:
            self.validation_scores_ = []
            self.validation_loss_curve_ = []
            self.best_validation_score_ = -np.inf

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file, whole or not at all.

        Everything is in it that `load` and further training need, but callbacks and checkpoint;
        `xpmlp.load` reads the network alone, with NumPy alone. Raises ValueError naming a
        parameter that is a function or an object, which a file cannot hold.

        Parameters
        ----------
        path : str or path
        """
        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """The estimator that `save` wrote, on the CPU or on the device named.

        Parameters
        ----------
        path : str or path
        device : {'cpu', 'gpu', 'gpu:N'} or None, default=None

        Returns
        -------
        the fitted estimator; ValueError with the path for anything but a whole file of it
        """
        found: Self = files.restored(cls, path, device)
        return found

    def parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
        """What a model file holds (see `xpmlp.save`)."""
        return files.parts(self)

    def into_onnx(self, graph: Graph) -> None:
        """Write the fitted network and its answer (see `xpmlp.to_onnx`)."""
        check_is_fitted(self)
        onnx.write(self, graph)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: arrays of the host, so that a GPU is not needed to load."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_validated", None)
        for name in OWN_ARRAYS:
            if name in state:
                state[name] = [to_host(plain(part)) for part in state[name]]
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
