"""solver="lbfgs": SciPy's L-BFGS-B on the flat buffer, with rows in chunks of bounded memory."""

from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.optimize import _check_optimize_result

from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.estimators.network import coefs_and_intercepts, pack_weights
from xpmlp.layout import block_factors
from xpmlp.spec import Spec
from xpmlp.step import Batch, gradient, new_state, penalize
from xpmlp.training.data import Data
from xpmlp.training.inference import CHUNK_BYTES
from xpmlp.types import Array

EPOCH_PARAMETERS = ("schedule", "clip", "weight_decay", "checkpoint")


def check_supported(est: Any, X_val: Any) -> None:
    """ValueError naming a parameter or argument that lbfgs does not support."""
    unsupported = [name for name in EPOCH_PARAMETERS if getattr(est, name) is not None]
    unsupported += ["dropout"] if np.any(np.asarray(est.dropout) != 0) else []
    unsupported += ["X_val"] if X_val is not None else []
    unsupported += ["callbacks"] if len(est.callbacks) else []
    if unsupported:
        raise ValueError(
            f"{unsupported[0]} needs a solver with epochs, such as 'adam'; solver is 'lbfgs'"
        )


class Objective:
    """Mean loss with its penalty, and its gradient, as functions of the flat buffer (P,)."""

    def __init__(self, spec: Spec, place: Place, data: Data, flat: Array, alpha: float) -> None:
        xp = place.xp
        self.spec, self.place, self.data = spec, place, data
        self.state = new_state(xp, spec, "sgd", flat)
        total = xp.sum(data.weight)
        self.weight = data.weight / total
        self.strength = alpha * block_factors(xp, spec, flat, "decay_factor") / total
        self.chunk = max(256, CHUNK_BYTES // (12 * sum(spec.sizes)))

    def loss(self, spec: Spec) -> Array:
        """The loss at the current weights; its gradient is left in state.grad."""
        xp, state, count = self.place.xp, self.state, self.data.rows
        value, grad = xp.sum(self.weight[:1]) * 0, xp.zeros_like(state.grad)
        for start in range(0, count, self.chunk):
            stop = min(start + self.chunk, count)
            rows, target = self.data.x.slice(start, stop), self.data.target[start:stop, :]
            batch = Batch(rows, target, self.weight[start:stop])
            value = value + gradient(xp, spec, state, batch)
            grad = grad + state.grad
        state.grad[...] = grad
        return value + penalize(xp, state, "l2", self.strength)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        self.state.params[...] = to_place(self.place, theta, str(to_host(self.weight).dtype))
        value = to_host(self.loss(self.spec)).item()
        return value, to_host(self.state.grad).astype(np.float64)


def minimize_loss(
    est: Any, spec: Spec, reported_spec: Spec, place: Place, dtype: str, data: Data
) -> None:
    """Minimize the loss over the estimator's weights.

    reported_spec: the network with the loss that `loss_` reports.
    """
    flat = pack_weights(place, spec, est.coefs_, est.intercepts_, dtype)
    with running(place):
        objective = Objective(spec, place, data, flat, est.alpha)
        initial = to_host(objective.state.params).astype(np.float64)
        result = minimize(
            objective,
            initial,
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": est.max_fun, "maxiter": est.max_iter, "gtol": est.tol},
        )
        objective(result.x)
        est.n_iter_ = _check_optimize_result("lbfgs", result, est.max_iter)
        est.loss_ = to_host(objective.loss(reported_spec)).item()
    est.coefs_, est.intercepts_ = coefs_and_intercepts(objective.state.layers)
