"""Forward and backward through a multi-layer perceptron: the screen everything is about.

Shapes, where (...) is () for one network and (K,) for a population of K:

    x (..., B, n_in)    W (..., n_in, n_out)    b (..., 1, n_out)
    z, a, g = dL/da and delta = dL/dz (..., B, n_out)

    forward, layer by layer:      z = x W + b        a = f(z)        x <- a
    backward, last layer first:   delta = g * f'(z)
                                  dW = x^T delta     db = sum over rows of delta
                                  g <- delta W^T     for the layer below

One neuron reaches the next layer through many paths, so its share of the error is a sum over
them: the matrix product with W^T. Only the activation, which acts on each neuron alone, is
an elementwise product. Other kinds of layers, in `layers`, go through the same loop.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpmlp.activations import activation
from xpmlp.apply import plain
from xpmlp.types import Array, Namespace

if TYPE_CHECKING:
    from xpmlp.layers.dense import Dense
    from xpmlp.layers.stack import Stack


class Trace(NamedTuple):
    """What a dense layer remembers of the forward pass for the backward pass."""

    x: Array  # (..., B, n_in)   the rows this layer was given
    z: Array  # (..., B, n_out)  pre-activation
    a: Array  # (..., B, n_out)  activation, before dropout
    mask: Array | None  # (..., B, n_out)  dropout factors applied to a
    y: Array  # (..., B, n_out)  what the layer passes on: a after dropout


def activated(
    xp: Namespace, f: Callable[..., Array], product: Array, bias: Array, mask: Any = None
) -> tuple[Array, Array, Array]:
    """z = x W + b and a = f(z), of the product x W, and a after dropout: the next layer's x."""
    z = product + bias
    a = f(xp, z)
    return z, a, a if mask is None else a * mask


def returned(
    xp: Namespace, slope: Callable[..., Array], g: Array, z: Array, a: Array, mask: Any = None
) -> Array:
    """delta = g * f'(z), of g = dL/da, and the mask of a."""
    delta = g * slope(xp, z, a)
    return delta if mask is None else delta * mask


def gradients(xp: Namespace, x: Array, delta: Array) -> tuple[Array, Array]:
    """dW = x^T delta, and db, the sum of delta over the rows."""
    return xp.matmul(x.mT, delta), xp.sum(delta, axis=-2, keepdims=True)


def dense_forward(xp: Namespace, layer: "Dense", p: Any, x: Array, mask: Any, apply: Any) -> Trace:
    (weights, bias), f = p, activation(layer.activation).f
    z, a, y = apply(activated, xp, f, xp.matmul(x, weights), bias, mask)
    return Trace(x, z, a, mask, y)


def dense_backward(
    xp: Namespace, layer: "Dense", p: Any, trace: Trace, g: Array, grads: Any, apply: Any
) -> Callable[[], Array]:
    """Write dW and db over grads; what is returned gives dL/dx, if anyone asks."""
    (weights, _), slope = p, activation(layer.activation).slope
    delta = apply(returned, xp, slope, g, trace.z, trace.a, trace.mask)
    apply(gradients, xp, trace.x, delta, into=grads)
    return lambda: xp.matmul(delta, weights.mT)


def forward(
    xp: Namespace,
    spec: "Stack",
    params: Sequence[Any],
    x: Array,
    masks: Sequence[Any] = (),
    *,
    apply: Callable[..., Any] = plain,
) -> list[Any]:
    """Carry the rows x (..., B, n_in) through every layer; the last trace's `y` is the score.

    params: per layer its blocks, such as (weights, bias). masks: per layer its dropout factors,
    none at inference. apply: how functions are run (see `plain`). Raises ShapeError.
    """
    spec.check_counts(params, masks)
    traces: list[Any] = []
    for i, layer in enumerate(spec.layers):
        layer.check_shapes(i + 1, x, params[i])
        traces.append(layer.run_forward(xp, params[i], x, masks[i] if masks else None, apply))
        x = traces[i].y
    return traces


def backward(
    xp: Namespace,
    spec: "Stack",
    params: Sequence[Any],
    traces: Sequence[Any],
    g: Array,
    grads: Sequence[Any],
    *,
    apply: Callable[..., Any] = plain,
) -> Callable[[], Array]:
    """Carry g = dL/dscore (..., B, n_out) from the last layer to the first, writing over grads.

    grads: like params. Returns a function that gives dL/dx of the rows. Raises ShapeError.
    """
    spec.check_score_gradient(g, traces[-1].y)
    for i in reversed(range(len(traces))):
        back = spec.layers[i].run_backward(xp, params[i], traces[i], g, grads[i], apply)
        if i > 0:
            g = back()
    return back
