"""What a network gives for any number of rows, in bounded memory."""

from collections.abc import Callable, Sequence
from math import prod

from xpmlp.core.layout import Dense
from xpmlp.core.network import forward
from xpmlp.core.spec import Spec
from xpmlp.core.types import Array, Namespace
from xpmlp.fit.data import Rows

AT_ONCE = 2**22  # numbers that one chunk's traces may hold: 16 MB in float32


def scores(
    xp: Namespace,
    spec: Spec,
    params: Sequence[Dense],
    rows: Rows,
    finish: Callable[[Array], Array] = lambda score: score,
) -> Array:
    """What the last layer computes for all the rows (N, n_in), finished chunk by chunk.

    finish: what is made of a chunk's scores (..., n, n_out), such as its most probable classes
    (..., n, 1). Returns (..., N, whatever it gives).
    """
    members = prod(params[0].weights.shape[:-2])
    chunk = max(256, AT_ONCE // (2 * members * sum(spec.sizes)))
    count, found = rows.shape[0], None
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        part = finish(forward(xp, spec, params, rows.between(start, stop))[-1].a)
        if found is None:
            if stop == count:
                return part
            shape = (*part.shape[:-2], count, part.shape[-1])
            found = xp.empty(shape, dtype=part.dtype, device=part.device)
        found[..., start:stop, :] = part
    return found
