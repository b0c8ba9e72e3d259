"""Predictions of a fitted estimator for rows of any namespace, chunk by chunk."""

from collections.abc import Callable
from typing import Any

from sklearn.utils.validation import check_is_fitted

from xpmlp.activations import identity, sigmoid
from xpmlp.devices.namespace import like_caller, running, to_host
from xpmlp.devices.threads import limit_threads
from xpmlp.devices.words import writable_place
from xpmlp.estimators.inputs import convert_input, read_rows
from xpmlp.estimators.network import inference_network
from xpmlp.losses import exp, gaussian_mean, softmax
from xpmlp.training.checks import is_float
from xpmlp.training.data import StreamedRows, own_dtype
from xpmlp.training.inference import link_for, require_finite, scores
from xpmlp.types import Array, Namespace

LINKS = {
    "identity": identity, "exp": exp, "softmax": softmax, "logistic": sigmoid,
    "gaussian_mean": gaussian_mean,
}  # fmt: skip


def predict_rows(
    est: Any,
    X: Any,
    finish: Callable[[Namespace, Array], Array],
    *,
    return_std: bool = False,
) -> Array:
    """finish(xp, prediction) (N, n_finished) of the rows X, as an array like X.

    prediction: (n, n_outputs), for a chunk of rows; with return_std means, then deviations.
    """
    check_is_fitted(est)
    linked = link_for(est.loss, LINKS[est.out_activation_], return_std=return_std)
    X = convert_input(X)
    rows = read_rows(est, X)
    place, dtype = writable_place(est.coefs_[0], est.precision), own_dtype(est.coefs_[0])
    xp, (spec, params) = place.xp, inference_network(est)
    out_dtype = getattr(xp, own_dtype(rows) if is_float(rows) else dtype)

    link = require_finite(xp, linked)

    def finish_chunk(score: Array) -> Array:
        out = finish(xp, link(score))
        is_floating = xp.isdtype(out.dtype, "real floating")
        return xp.astype(out, out_dtype, copy=False) if is_floating else out

    with limit_threads(est.n_threads), running(place):
        out = scores(xp, spec, params, StreamedRows(place, rows, dtype), finish_chunk)
        return to_host(out) if est.output == "numpy" else like_caller(X, out, place)
