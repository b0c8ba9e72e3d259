"""Predictions for any number of rows in bounded memory."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from xpmlp.devices.namespace import dtype_name, to_host
from xpmlp.losses import gaussian_mean, gaussian_mean_and_std
from xpmlp.names import title
from xpmlp.network import forward
from xpmlp.recording.engine import prediction_engine
from xpmlp.spec import AnyLoss, Spec
from xpmlp.training.checks import all_finite
from xpmlp.training.data import Rows
from xpmlp.types import Array, Namespace

CHUNK_BYTES = 2**24  # of the activations of a chunk of rows


def link_for(loss: AnyLoss, link: Callable[..., Array], *, return_std: bool) -> Any:
    """The link of `predict`; ValueError where `return_std` is asked of a loss without one."""
    if return_std and link is not gaussian_mean:
        raise ValueError(
            "return_std needs loss='gaussian', which learns a deviation for each row; loss is "
            f"{title(loss)!r}"
        )
    return gaussian_mean_and_std if return_std else link


class PredictionError(ValueError):
    """A prediction is not finite."""


def scores(
    xp: Namespace,
    spec: Spec,
    params: Sequence[Any],
    rows: Rows,
    finish: Callable[[Array], Array] = lambda score: score,
) -> Array:
    """The outputs of the last layer for all rows (N, n_in), passed to `finish` chunk by chunk.

    finish: a function of a chunk's scores (..., n, n_out), such as its most probable classes
    (..., n, 1). Returns its results (..., N, n_finished).
    """
    pairs = zip(spec.layers, params, strict=True)
    array = next(array for layer, p in pairs for array in layer.unpack(p))
    members_shape = array.shape[: array.ndim - len(spec.blocks[0].shape)]
    row_bytes = prod(members_shape) * sum(spec.sizes) * xp.finfo(array.dtype).bits // 8
    count, out = rows.shape[0], None
    chunks = -(-count // max(256, CHUNK_BYTES // row_bytes))
    chunk = max(1, -(-count // max(1, chunks)))  # all of one size but the last
    with prediction_engine(xp) as fast:
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            fast.restart()
            traces = forward(fast.xp, spec, params, rows.slice(start, stop), apply=fast.apply)
            part = finish(traces[-1].y)
            if out is None:
                shape = (*part.shape[:-2], count, part.shape[-1])
                out = xp.empty(shape, dtype=part.dtype, device=part.device)
            out[..., start:stop, :] = part
    return out


def require_finite(xp: Namespace, link: Callable[..., Array]) -> Callable[[Array], Array]:
    """The link as a function of one chunk of scores after the other, which raises
    PredictionError with the first row whose prediction is not finite."""
    rows_done = 0

    def finite_link(score: Array) -> Array:
        nonlocal rows_done
        prediction = link(xp, score)
        if not all_finite(xp, prediction):
            bad = to_host(~xp.isfinite(prediction))
            row = rows_done + int(bad.any(axis=-1).reshape(-1, bad.shape[-2]).any(axis=0).argmax())
            raise PredictionError(
                f"the prediction of row {row} of X is not finite: the row or the weights are too "
                f"large for {dtype_name(prediction)}"
            )
        rows_done += prediction.shape[-2]
        return prediction

    return finite_link
