"""`MLPRegressor`: that of scikit-learn with more parameters."""

from typing import Any, Self

import numpy as np
from sklearn.metrics import d2_pinball_score, r2_score

from xpmlp.estimators.base import MLPBase
from xpmlp.estimators.inference import predict_rows
from xpmlp.estimators.inputs import read_targets, read_weight, to_host_array
from xpmlp.estimators.parameters import CONSTRAINTS, HINTS, NameWithArguments, shared_doc
from xpmlp.estimators.sklearn_base import RegressorMixin, fit_context, stochastic_only
from xpmlp.losses import LOSSES, Loss, gaussian_parts
from xpmlp.names import with_hints
from xpmlp.types import Array

REGRESSION_LOSSES = {name for name in LOSSES if not name.endswith("cross_entropy")}


def one_dimensional_if_single(prediction: Array) -> Array:
    """Predictions (N, n_outputs) as y has them: (N,) of a single output."""
    return prediction[:, 0] if prediction.shape[1] == 1 else prediction


class MLPRegressor(RegressorMixin, MLPBase):
    __doc__ = f"""A multi-layer perceptron that predicts numbers, one or several per row.

    scikit-learn's `MLPRegressor` with the same parameters, defaults, attributes and behaviour,
    and with parameters that it lacks (from `dropout` on).

    Parameters
    ----------
    loss : {{'squared_error', 'poisson'}}, any of xpmlp's, or a function, default='squared_error'
        Half of the squared error, half of the Poisson deviance (for counts, with a logarithmic
        link). Beyond those 'huber', 'huber:1.35', 'absolute_error', 'quantile:0.9', and
        'gaussian', which learns a standard deviation beside the mean (see `predict`).
    {shared_doc("R2")}
    quantiles : sequence of floats in (0, 1) or None, default=None
        Predict these quantiles of one target, (n_samples, n_quantiles), by the pinball loss.

    Attributes
    ----------
    coefs_ : list of weights (n_in, n_out) per layer; may be changed and assigned
    intercepts_ : list of biases (n_out,) per layer; likewise
    loss_ : loss of the last epoch, a mean over outputs
    loss_curve_ : loss of every epoch
    best_loss_ : the lowest of them, or None with `early_stopping`
    validation_scores_, validation_loss_curve_ : of every epoch with held-out rows, or None
    best_validation_score_ : the highest of them, or None
    history_ : dict of lists, everything measured per epoch
    n_iter_ : epochs of the last `fit`
    t_ : rows seen
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_ : as scikit-learn's

    References
    ----------
    Kingma & Ba 2015, "Adam"; Glorot & Bengio 2010, "Understanding the difficulty of training
    deep feedforward neural networks"; Koenker & Bassett 1978, "Regression quantiles".

    Examples
    --------
    >>> import numpy as np
    >>> from xpmlp import MLPRegressor
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> model = MLPRegressor(activation="tanh", solver="lbfgs", max_iter=1000, random_state=0)
    >>> model = model.fit(X, X[:, 0] ** 2)
    >>> bool(abs(model.predict([[0.5]])[0] - 0.25) < 0.02)
    True
    """

    _parameter_constraints = CONSTRAINTS | {
        "loss": [NameWithArguments(REGRESSION_LOSSES), callable, Loss],
        "quantiles": ["array-like", None],
    }
    loss: Any
    quantiles: Any

    @with_hints(HINTS)
    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        quantiles: Any = None,
        schedule: Any = None,
        weight_decay: float | None = None,
        clip: float | None = None,
        scoring: Any = None,
        callbacks: Any = (),
        continuation: str = "exact",
        device: str | None = None,
        dtype: str | None = None,
        precision: str = "full",
        n_threads: int | None = None,
        output: str | None = None,
        checkpoint: Any = None,
        resume: bool = False,
    ) -> None:
        self._store_arguments(locals())

    # targets and quantiles

    def _quantile_levels(self) -> tuple[float, ...]:
        if self.quantiles is None:
            if (
                isinstance(self.loss, str)
                and self.loss.startswith("quantile:")
                and "," in self.loss
            ):
                text = self.loss.partition(":")[2]
                raise ValueError(f"loss is {self.loss!r}: give quantiles=({text}) instead")
            return ()
        levels = np.atleast_1d(np.asarray(self.quantiles))
        if self.loss not in ("squared_error", "quantile"):
            raise ValueError(f"quantiles have a loss of their own; loss is {self.loss!r}")
        numeric = levels.dtype.kind in "iuf" and levels.ndim == 1 and levels.size > 0
        if not (numeric and ((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"quantiles must be numbers in (0, 1); got {self.quantiles!r}")
        return tuple(levels.tolist())

    def _resolve_loss(self) -> Any:
        levels = self._quantile_levels()
        return f"quantile:{','.join(map(str, levels))}" if levels else self.loss

    def _targets(self, y: Any) -> np.ndarray:
        target: np.ndarray = y.toarray() if hasattr(y, "toarray") else y
        if self.loss == "poisson" and target.min() < 0:
            raise ValueError(f"y must be at least 0 for loss='poisson'; got {target.min():g}")
        if target.ndim == 1:
            return target[:, None]
        if self._quantile_levels() and target.shape[1] != 1:
            raise ValueError(f"quantiles are of one target; y has {target.shape[1]} columns")
        return target

    # scikit-learn's methods

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Learn from rows X and their numbers y.

        Parameters
        ----------
        X : (n_samples, n_features) array of any namespace, frame, or sparse matrix
        y : (n_samples,) or (n_samples, n_outputs) numbers
        sample_weight : (n_samples,) at least 0, default=None
        X_val, y_val, sample_weight_val : held-out rows, measured after every epoch; the weights
            that do best on them are restored at the end

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), single_epoch=False)

    @stochastic_only
    @fit_context
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """One more epoch over X and y: five calls are `fit` with max_iter=5, bit for bit.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val : as for `fit`

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), single_epoch=True)

    def predict(self, X: Any, return_std: bool = False) -> Array:
        """The number, numbers or quantiles of each row.

        Parameters
        ----------
        X : (n_samples, n_features)
        return_std : whether to give the standard deviations too, of loss='gaussian' alone

        Returns
        -------
        (n_samples,), or (n_samples, n_outputs); with `return_std` a pair of them
        """
        out = predict_rows(self, X, lambda xp, prediction: prediction, return_std=return_std)
        if return_std:
            return tuple(map(one_dimensional_if_single, gaussian_parts(np, out)))
        return one_dimensional_if_single(out)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 of the predictions; of quantiles the mean of their D2 pinball scores.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        float
        """
        predicted = to_host_array(self.predict(X))
        truth = read_targets(self, y, len(predicted))
        weight = read_weight(sample_weight, len(predicted))
        levels = self._quantile_levels()
        if not levels:
            return float(r2_score(truth, predicted, sample_weight=weight))
        columns = predicted.reshape(len(predicted), -1).T
        scores = [
            d2_pinball_score(truth, column, sample_weight=weight, alpha=level)
            for column, level in zip(columns, levels, strict=True)
        ]
        return float(np.mean(scores))
