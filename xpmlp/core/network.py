"""Forward and backward through a multi-layer perceptron: the screen everything is about.

Shapes, where (...) is () for one network and (K,) for a population of K:

    x (..., B, n_in)    W (..., n_in, n_out)    b (..., 1, n_out)
    z, a and delta = dL/dz (..., B, n_out)

    forward, layer by layer:      z = x W + b        a = f(z)        x <- a
    backward, last layer first:   dW = x^T delta     db = sum over rows of delta
                                  delta <- (delta W^T) * f'(z of the layer below)

One neuron reaches the next layer through many paths, so its share of the error is a sum over
them: the matrix product with W^T. Only the activation, which acts on each neuron alone, is
an elementwise product.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xpmlp.core.activations import activation
from xpmlp.core.apply import plain
from xpmlp.core.layout import Dense
from xpmlp.core.ledger import bad_delta, miscounted, misfit
from xpmlp.core.spec import Spec
from xpmlp.core.types import Array, Namespace


class Trace(NamedTuple):
    """What one layer remembers of the forward pass for the backward pass."""

    x: Array  # (..., B, n_in)   the rows this layer was given, after dropout
    z: Array  # (..., B, n_out)  pre-activation
    a: Array  # (..., B, n_out)  activation, before dropout
    mask: Array | None  # (..., B, n_out)  dropout factors applied to a


def activated(
    xp: Namespace, f: Callable[..., Array], product: Array, bias: Array, mask: Any = None
) -> tuple[Array, Array, Array]:
    """z = x W + b and a = f(z), of the product x W, and a after dropout: the next layer's x."""
    z = product + bias
    a = f(xp, z)
    return z, a, a if mask is None else a * mask


def returned(
    xp: Namespace, slope: Callable[..., Array], back: Array, z: Array, a: Array, mask: Any = None
) -> Array:
    """delta of the layer below: (delta W^T) * f'(z), of the product delta W^T, and its mask."""
    delta = back * slope(xp, z, a)
    return delta if mask is None else delta * mask


def gradients(xp: Namespace, x: Array, delta: Array) -> tuple[Array, Array]:
    """dW = x^T delta, and db, the sum of delta over the rows."""
    return xp.matmul(x.mT, delta), xp.sum(delta, axis=-2, keepdims=True)


def forward(
    xp: Namespace,
    spec: Spec,
    params: Sequence[Dense],
    x: Array,
    masks: Sequence[Array | None] = (),
    *,
    apply: Callable[..., Any] = plain,
) -> list[Trace]:
    """Carry the rows x (..., B, n_in) through every layer; the last trace's `a` is the score.

    params: one (weights, bias) per layer. masks: dropout factors per layer, none at inference.
    apply: how the functions above are run (see `plain`). Raises ShapeError naming the layer, the
    formula and both shapes where something does not fit.

    >>> import numpy as np
    >>> spec = Spec.parse("2-3-1")
    >>> params = [Dense(np.ones((2, 3)), np.zeros((1, 3))), Dense(np.ones((3, 1)), np.ones((1, 1)))]
    >>> [trace.a.shape for trace in forward(np, spec, params, np.ones((5, 2)))]
    [(5, 3), (5, 1)]
    """
    if len(params) != len(spec.layers) or len(masks) not in (0, len(spec.layers)):
        raise miscounted(spec, len(params), len(masks))
    traces = []
    for i, layer in enumerate(spec.layers):
        weights, bias = params[i]
        if (x.shape[-1:], weights.shape[-2:], bias.shape[-2:]) != layer.shapes or x.ndim < 2:
            raise misfit(spec, i, x.shape, weights.shape, bias=bias.shape)
        f, mask = activation(layer.activation).f, masks[i] if masks else None
        z, a, following = apply(activated, xp, f, xp.matmul(x, weights), bias, mask)
        traces.append(Trace(x, z, a, mask))
        x = following
    return traces


def backward(
    xp: Namespace,
    spec: Spec,
    params: Sequence[Dense],
    traces: Sequence[Trace],
    delta: Array,
    grads: Sequence[Dense],
    *,
    apply: Callable[..., Any] = plain,
) -> None:
    """Carry delta = dL/dz (..., B, n_out) from the last layer to the first, writing over grads.

    delta: the loss's derivative with respect to the last layer's z, each row times its weight.
    grads: one (weights, bias) per layer, each written in place. Raises ShapeError where delta is
    not shaped like that z.
    """
    if tuple(delta.shape) != tuple(traces[-1].z.shape):
        raise bad_delta(spec, delta.shape, traces[-1].z.shape)
    for i in reversed(range(len(traces))):
        apply(gradients, xp, traces[i].x, delta, into=grads[i])
        if i > 0:  # from this layer's delta to that of the layer below
            (weights, _), below = params[i], traces[i - 1]
            slope = activation(spec.layers[i - 1].activation).slope
            back = xp.matmul(delta, weights.mT)
            delta = apply(returned, xp, slope, back, below.z, below.a, below.mask)
