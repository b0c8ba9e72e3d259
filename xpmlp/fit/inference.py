"""Scores of any number of rows in bounded memory."""

from collections.abc import Sequence
from math import prod

from xpmlp.core.layout import Dense
from xpmlp.core.network import forward
from xpmlp.core.spec import Spec
from xpmlp.core.types import Array, Namespace

AT_ONCE = 2**22  # numbers that one chunk's traces may hold: 16 MB in float32


def scores(xp: Namespace, spec: Spec, params: Sequence[Dense], x: Array) -> Array:
    """What the last layer computes for the rows x (N, n_in): (..., N, n_out)."""
    members = prod(params[0].weights.shape[:-2])
    chunk = max(256, AT_ONCE // (2 * members * sum(spec.sizes)))
    count = x.shape[-2]
    parts = [
        forward(xp, spec, params, x[start : min(start + chunk, count), :])[-1].a
        for start in range(0, count, chunk)
    ]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)
