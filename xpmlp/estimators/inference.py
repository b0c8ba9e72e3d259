"""What a fitted network gives for rows from anywhere, chunk by chunk."""

from collections.abc import Callable
from typing import Any

from sklearn.utils.validation import check_is_fitted

from xpmlp.activations import identity, sigmoid
from xpmlp.devices.namespace import like_caller, running, to_host
from xpmlp.devices.threads import limited
from xpmlp.devices.words import home
from xpmlp.estimators.inputs import incoming, read_rows
from xpmlp.estimators.network import bare_spec, dense
from xpmlp.losses import exp, softmax
from xpmlp.training.checks import is_float
from xpmlp.training.data import StreamedRows, own_dtype
from xpmlp.training.inference import require_finite, scores
from xpmlp.types import Array, Namespace

LINKS = {"identity": identity, "exp": exp, "softmax": softmax, "logistic": sigmoid}


def answer(est: Any, X: Any, finish: Callable[[Namespace, Array], Array]) -> Array:
    """finish(xp, prediction) (N, whatever) of the rows X, as an array like X.

    prediction: the linked scores (n, n_outputs) of a chunk of rows.
    """
    check_is_fitted(est)
    X = incoming(X)
    rows = read_rows(est, X)
    place, dtype = home(est.coefs_[0], est.precision), own_dtype(est.coefs_[0])
    xp, layers = place.xp, dense(est.coefs_, est.intercepts_)
    sizes = [layer.weights.shape[1] for layer in layers]
    spec = bare_spec(est, layers[0].weights.shape[0], sizes[:-1], sizes[-1])
    wanted = getattr(xp, own_dtype(rows) if is_float(rows) else dtype)

    linked = require_finite(xp, LINKS[est.out_activation_])

    def finished(score: Array) -> Array:
        found = finish(xp, linked(score))
        real = xp.isdtype(found.dtype, "real floating")
        return xp.astype(found, wanted, copy=False) if real else found

    with limited(est.n_threads), running(place):
        found = scores(xp, spec, layers, StreamedRows(place, rows, dtype), finished)
        return to_host(found) if est.output == "numpy" else like_caller(X, found, place)
