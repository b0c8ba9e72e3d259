"""Where the layers lie in a flat buffer (..., P): windows are views, never copies.

Every window and P itself is padded to ALIGN elements, so that every member's every window
starts aligned. The padding stays zero; it is neither counted nor saved.
"""

from itertools import accumulate
from typing import NamedTuple

from xpmlp.core.spec import Spec
from xpmlp.core.types import Array, Namespace

ALIGN = 32


class Dense(NamedTuple):
    """What one layer owns: its weights and biases, or their gradients."""

    weights: Array  # (..., n_in, n_out)
    bias: Array  # (..., 1, n_out)


def shapes(spec: Spec) -> list[tuple[int, int]]:
    """The last two axes of every window, in order: weights, bias, weights, bias, ..."""
    return [shape for layer in spec.layers for shape in layer.shapes[1:]]


def padded(count: int) -> int:
    return -(-count // ALIGN) * ALIGN


def starts(spec: Spec) -> list[int]:
    """Where every window starts; the last entry is P."""
    return list(accumulate((padded(rows * columns) for rows, columns in shapes(spec)), initial=0))


def padded_size(spec: Spec) -> int:
    """P, the length of a flat buffer."""
    return starts(spec)[-1]


def windows(xp: Namespace, spec: Spec, flat: Array) -> tuple[Dense, ...]:
    """Each layer's views onto `flat` (..., P)."""
    views = [
        xp.reshape(flat[..., start : start + rows * columns], (*flat.shape[:-1], rows, columns))
        for start, (rows, columns) in zip(starts(spec), shapes(spec), strict=False)
    ]
    return tuple(Dense(*pair) for pair in zip(views[::2], views[1::2], strict=True))


def on_weights(xp: Namespace, spec: Spec, like: Array) -> Array:
    """(P,) ones where a weight lies, zeros on biases and padding: what decays."""
    flat = xp.zeros(padded_size(spec), dtype=like.dtype, device=like.device)
    for window in windows(xp, spec, flat):
        window.weights[...] = xp.ones_like(window.weights)
    return flat
