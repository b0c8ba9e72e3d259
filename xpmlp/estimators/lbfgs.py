"""solver="lbfgs": SciPy's L-BFGS-B over the flat buffer, the rows in chunks of bounded memory."""

from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.optimize import _check_optimize_result

from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.estimators.network import lists, packed
from xpmlp.layout import block_factors
from xpmlp.spec import Spec
from xpmlp.step import Batch, gradient, new_state, penalize
from xpmlp.training.data import Data
from xpmlp.training.inference import CHUNK_BYTES
from xpmlp.types import Array

NEED_EPOCHS = ("schedule", "clip", "weight_decay", "checkpoint")


def refuse(est: Any, X_val: Any) -> None:
    """ValueError naming what was asked for that lbfgs cannot do."""
    asked = [name for name in NEED_EPOCHS if getattr(est, name) is not None]
    asked += ["dropout"] if np.any(np.asarray(est.dropout) != 0) else []
    asked += ["X_val"] if X_val is not None else []
    asked += ["callbacks"] if len(est.callbacks) else []
    if asked:
        raise ValueError(
            f"{asked[0]} needs a solver that goes in epochs, such as 'adam'; solver is 'lbfgs'"
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
        """The loss of the present weights; their gradient is in state.grad."""
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


def minimise(est: Any, spec: Spec, shown: Spec, place: Place, dtype: str, data: Data) -> None:
    """Bring the estimator's weights to a minimum of the loss.

    shown: the network with the loss as it is reported.
    """
    flat = packed(place, spec, est.coefs_, est.intercepts_, dtype)
    with running(place):
        objective = Objective(spec, place, data, flat, est.alpha)
        started = to_host(objective.state.params).astype(np.float64)
        found = minimize(
            objective,
            started,
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": est.max_fun, "maxiter": est.max_iter, "gtol": est.tol},
        )
        objective(found.x)
        est.n_iter_ = _check_optimize_result("lbfgs", found, est.max_iter)
        est.loss_ = to_host(objective.loss(shown)).item()
    est.coefs_, est.intercepts_ = lists(objective.state.layers)
