"""The base class of classifier and regressor: fit, partial_fit, files and weights."""

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.devices.threads import limit_threads
from xpmlp.devices.words import choose_place, release, writable_place
from xpmlp.estimators import files, lbfgs, onnx, stochastic
from xpmlp.estimators.inference import LINKS
from xpmlp.estimators.inputs import (
    convert_input,
    name_errors_val,
    read_rows_and_targets,
    read_weight,
)
from xpmlp.estimators.network import (
    ResumeState,
    as_array,
    coefs_and_intercepts,
    draw_initial_weights,
    hidden_sizes,
    make_spec,
    new_resume_state,
)
from xpmlp.estimators.parameters import CONSTRAINTS, LEARNING_RATES
from xpmlp.estimators.signature import check_checkpoint
from xpmlp.estimators.sklearn_base import LBFGS, BaseEstimator
from xpmlp.estimators.stochastic import NON_FINITE, NonFiniteError, RowSet
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

WEIGHT_ATTRIBUTES = ("coefs_", "intercepts_")
ValidationSet = tuple[Any, Any, Any]  # X_val, y_val, sample_weight_val


@contextmanager
def restore_on_error(est: Any) -> Iterator[None]:
    """Restore the attributes on an error, except for divergence, which keeps finite weights."""
    attributes = dict(vars(est))
    try:
        yield
    except NonFiniteError:
        raise
    except BaseException:
        est.__dict__ = attributes
        raise


class MLPBase(BaseEstimator):
    """Training and inference; subclasses define the meaning of y and of the outputs."""

    _parameter_constraints = CONSTRAINTS
    # arguments of __init__
    hidden_layer_sizes: Any
    activation: Any
    solver: Any
    alpha: float
    batch_size: Any
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: Any
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: Any
    max_fun: int
    dropout: Any
    schedule: Any
    weight_decay: float | None
    clip: float | None
    scoring: Any
    callbacks: Any
    continuation: str
    device: str | None
    dtype: str | None
    precision: str
    n_threads: int | None
    output: str | None
    checkpoint: Any
    resume: bool
    # what is learned
    coefs_: list[Array]
    intercepts_: list[Array]
    history_: dict[str, list[Any]]
    loss_: float
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    validation_loss_curve_: list[float] | None
    best_loss_: float | None
    best_validation_score_: float | None
    n_iter_: int
    t_: int
    n_features_in_: int
    feature_names_in_: np.ndarray
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    _no_improvement_count: int
    _optimizer: ResumeState  # scikit-learn's name

    def _store_arguments(self, arguments: dict[str, Any]) -> None:
        """Store the arguments of __init__ unchanged, as scikit-learn requires."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    # defined by subclasses

    def _resolve_loss(self) -> AnyLoss:
        """The loss by xpmlp's name."""
        raise NotImplementedError

    def _learn_labels(self, y: np.ndarray, *, reset: bool) -> None:
        """Learn the classes of y, or compare them with those known."""

    def _check_labels(self, y: Any) -> None:
        """ValueError where y holds numbers instead of labels."""

    def _targets(self, y: Any) -> np.ndarray:
        """The targets of the loss, (N, n_outputs)."""
        raise NotImplementedError

    def _row_weights(self, sample_weight: np.ndarray | None, y: np.ndarray) -> np.ndarray | None:
        """Sample weights times class weights, (N,)."""
        return sample_weight

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        """The classes by which the validation split is stratified, if any."""
        return None

    def _quantile_levels(self) -> tuple[float, ...]:
        """The quantiles that the outputs predict, if any."""
        return ()

    # fitting

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, val_set: ValidationSet, *, single_epoch: bool
    ) -> Self:
        """`partial_fit` where `single_epoch`, else `fit`."""
        with restore_on_error(self):
            place, training = self._prepare_training(
                X, y, sample_weight, val_set, single_epoch=single_epoch
            )
            with limit_threads(self.n_threads):
                training()
            del training
            release(place)
        if not all(np.isfinite(to_host(part)).all() for part in (*self.coefs_, *self.intercepts_)):
            raise NonFiniteError(NON_FINITE)
        return self

    def _prepare_training(
        self, X: Any, y: Any, sample_weight: Any, val_set: ValidationSet, *, single_epoch: bool
    ) -> tuple[Place, Callable[[], None]]:
        """Validate everything and copy it to the device; returns the place and the training."""
        if single_epoch:
            self._revalidate_parameters()
        self._check_arguments(*val_set, single_epoch=single_epoch)
        sizes = hidden_sizes(self)
        warm = self.warm_start or single_epoch
        first_fit = not (hasattr(self, "coefs_") and warm)
        rows = self._read_rows(X, y, sample_weight, first_fit=first_fit, reset_classes=not warm)
        n_targets, val_rows = rows.target.shape[1], None
        if val_set[0] is not None:
            val_rows = self._read_val_rows(*val_set, n_targets)
        n_out = n_targets * find_loss(self._resolve_loss()).scores_per_target
        spec = make_spec(self, rows.x.shape[1], sizes, n_out, reported(self._resolve_loss()))
        place, dtype = self._training_place(rows.x, first_fit=first_fit)
        if not single_epoch:
            warn_of_constant_data(rows.x, rows.target if is_classifier(self) else None)
        memory = estimate_memory(place, spec, dtype, min(200, len(rows.target)))
        with running(place), explain_memory_error(memory):
            if first_fit:
                self._initialize(spec, place, dtype)
            if self.solver == LBFGS:
                loss_spec = Spec(spec.layers, self._resolve_loss())
                data = rows.to_data(place, dtype)
                return place, partial(
                    lbfgs.minimize_loss, self, loss_spec, spec, place, dtype, data
                )
            state = self._optimizer = self._resume_state(first_fit, single_epoch)
            if self.early_stopping and val_rows is None:
                strata = self._strata(rows.target)
                rows, val_rows = stochastic.split_validation(self, state, rows, strata)
            self._copy_curves(val_rows)
            trainer = stochastic.make_trainer(
                self, spec, place, dtype, rows, val_rows, single_epoch=single_epoch
            )
            return place, partial(stochastic.train, self, trainer, single_epoch=single_epoch)

    def _validate_params(self) -> None:
        value: Any = self.learning_rate
        if isinstance(value, Real):  # as `train` has it
            raise InvalidParameterError(
                f"learning_rate is one of the words {', '.join(LEARNING_RATES)}; got {value!r}: "
                "the number is learning_rate_init"
            )
        super()._validate_params()

    def _revalidate_parameters(self) -> None:
        """Validate the parameters again if one was set since the last `partial_fit`.

        (scikit-learn omits that for a fitted estimator.)
        """
        now = [getattr(self, name) for name in self._parameter_constraints]
        before = self.__dict__.get("_validated", ())
        if len(before) != len(now) or not all(map(operator.is_, before, now)):
            self._validate_params()
            self._validated = now

    def _check_arguments(
        self, X_val: Any, y_val: Any, weight_val: Any, *, single_epoch: bool
    ) -> None:
        """ValueError for arguments that cannot be combined."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"{missing} is missing: give both or none")
        if X_val is None and weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val")
        if single_epoch and self.early_stopping and X_val is None:
            raise ValueError("partial_fit does not support early_stopping=True without X_val")
        if self.solver == LBFGS:
            lbfgs.check_supported(self, X_val)
        if not single_epoch:
            check_checkpoint(self)

    def _read_rows(
        self, X: Any, y: Any, sample_weight: Any, *, first_fit: bool, reset_classes: bool
    ) -> RowSet:
        """The validated training rows; the estimator learns or compares features and classes."""
        x, labels = read_rows_and_targets(self, convert_input(X), y, reset=first_fit)
        weight = read_weight(sample_weight, x.shape[0])
        self._learn_labels(labels, reset=reset_classes)
        weight = self._row_weights(weight, labels)
        return RowSet(x, self._targets(labels), labels, weight)

    def _read_val_rows(self, X: Any, y: Any, sample_weight: Any, n_targets: int) -> RowSet:
        """The validated validation rows; errors name X_val and so on."""
        with name_errors_val():
            x, labels = read_rows_and_targets(self, convert_input(X), y, reset=False)
            self._check_labels(labels)
            weight, target = read_weight(sample_weight, x.shape[0]), self._targets(labels)
            if target.shape[1] != n_targets:
                raise ValueError(f"y has {target.shape[1]} columns, not {n_targets} as in training")
        return RowSet(x, target, labels, weight, "_val")

    def _training_place(self, x: Any, *, first_fit: bool) -> tuple[Place, str]:
        """The place and dtype of training: the parameters', else those of the weights or of X."""
        like = x if first_fit else self.coefs_[0]
        if self.device is None and not first_fit:
            place = writable_place(like, self.precision)
        else:
            place = choose_place(self.device, x, self.precision)
        return place, self.dtype or own_dtype(like)

    def _initialize(self, spec: Spec, place: Place, dtype: str) -> None:
        """Initial weights, empty curves, and a state at epoch 0."""
        random = check_random_state(self.random_state)
        flat = to_place(place, draw_initial_weights(self, spec, random), dtype)
        self.coefs_, self.intercepts_ = coefs_and_intercepts(windows(place.xp, spec, flat))
        self.n_iter_, self.t_ = 0, 0
        self.n_outputs_, self.n_layers_ = spec.n_out, len(spec.sizes)
        link = find_loss(spec.loss).link
        self.out_activation_ = next(name for name, value in LINKS.items() if value is link)
        self.__dict__.pop("_optimizer", None)
        if self.solver == LBFGS:
            return
        self._optimizer = new_resume_state(self, random)
        self.loss_curve_ = []
        self.history_ = {}
        self._no_improvement_count = 0
        self.best_loss_ = self.best_validation_score_ = None
        self.validation_scores_ = self.validation_loss_curve_ = None

    def _resume_state(self, first_fit: bool, single_epoch: bool) -> ResumeState:
        """The state to continue from."""
        state: ResumeState | None = getattr(self, "_optimizer", None)
        if state is None:
            return new_resume_state(self, check_random_state(self.random_state))
        state = replace(state)  # an error leaves the old one unchanged
        if not (first_fit or single_epoch) and self.continuation == "scikit-learn":
            new = new_resume_state(self, check_random_state(self.random_state))
            new.epoch, new.best, new.best_epoch = state.epoch, state.best, state.best_epoch
            return new
        if state.learning_rate_init != self.learning_rate_init:
            state.learning_rate_init = self.learning_rate_init
            state.learning_rate = float(self.learning_rate_init)
        return state

    def _copy_curves(self, val_rows: RowSet | None) -> None:
        """Copy the curves that this training extends, or start them."""
        self._no_improvement_count = getattr(self, "_no_improvement_count", 0)
        self.history_ = {k: list(v) for k, v in getattr(self, "history_", {}).items()}
        self.loss_curve_ = list(getattr(self, "loss_curve_", ()))
        for name in ("validation_scores_", "validation_loss_curve_"):
            if getattr(self, name, None) is not None:
                setattr(self, name, list(getattr(self, name)))
        if not self.early_stopping and getattr(self, "best_loss_", None) is None:
            self.best_loss_ = np.inf
        if val_rows is not None and getattr(self, "validation_scores_", None) is None:
            self.validation_scores_ = []
            self.validation_loss_curve_ = []
            self.best_validation_score_ = -np.inf

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a single file, atomically.

        It has all that `load` and further training need, except for callbacks and checkpoint;
        `xpmlp.load` reads the network alone and needs NumPy alone. Raises ValueError naming a
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
        est: Self = files.load(cls, path, device)
        return est

    def _parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
        """The contents of a model file (see `xpmlp.save`)."""
        return files.parts(self)

    def _into_onnx(self, graph: Graph) -> None:
        """Write the fitted network and its predictions (see `xpmlp.to_onnx`)."""
        check_is_fitted(self)
        onnx.write(self, graph)

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with arrays on the host, so that loading needs no GPU."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_validated", None)
        for name in WEIGHT_ATTRIBUTES:
            if name in state:
                state[name] = [to_host(as_array(part)) for part in state[name]]
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
