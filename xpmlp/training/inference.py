"""What a network gives for any number of rows, in bounded memory."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from xpmlp.devices.namespace import dtype_name, to_host
from xpmlp.network import forward
from xpmlp.recording.engine import prediction_engine
from xpmlp.spec import Spec
from xpmlp.training.checks import all_finite
from xpmlp.training.data import Rows
from xpmlp.types import Array, Namespace

AT_ONCE = 2**24  # bytes that the values of one chunk may fill


class PredictionError(ValueError):
    """A prediction is no finite number."""


def scores(
    xp: Namespace,
    spec: Spec,
    params: Sequence[Any],
    rows: Rows,
    finish: Callable[[Array], Array] = lambda score: score,
) -> Array:
    """What the last layer computes for all the rows (N, n_in), finished chunk by chunk.

    finish: what is made of a chunk's scores (..., n, n_out), such as its most probable classes
    (..., n, 1). Returns (..., N, whatever it gives).
    """
    held = [one for layer, p in zip(spec.layers, params, strict=True) for one in layer.unpack(p)]
    lead = held[0].shape[: held[0].ndim - len(spec.layers[0].shapes[0])]
    row = prod(lead) * sum(spec.sizes) * xp.finfo(held[0].dtype).bits // 8  # its bytes
    count, found = rows.shape[0], None
    chunks = -(-count // max(256, AT_ONCE // row))
    chunk = max(1, -(-count // max(1, chunks)))  # all alike, but for the last
    with prediction_engine(xp) as fast:
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            fast.restart()
            traces = forward(fast.xp, spec, params, rows.between(start, stop), apply=fast.apply)
            part = finish(traces[-1].y)
            if found is None:
                shape = (*part.shape[:-2], count, part.shape[-1])
                found = xp.empty(shape, dtype=part.dtype, device=part.device)
            found[..., start:stop, :] = part
    return found


def certain(xp: Namespace, link: Callable[..., Array]) -> Callable[[Array], Array]:
    """link(xp, score) of one chunk after the other for the user, to whom no number that is none
    may look like an answer: PredictionError with the first row that has one."""
    done = 0

    def linked(score: Array) -> Array:
        nonlocal done
        found = link(xp, score)
        if not all_finite(xp, found):
            bad = to_host(~xp.isfinite(found))
            row = done + int(bad.any(axis=-1).reshape(-1, bad.shape[-2]).any(axis=0).argmax())
            raise PredictionError(
                f"the prediction of row {row} of X is no finite number: the row, or the weights, "
                f"are too large for {dtype_name(found)}"
            )
        done += found.shape[-2]
        return found

    return linked
