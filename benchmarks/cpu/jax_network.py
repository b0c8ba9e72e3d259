"""A network in JAX as users write it: score, loss and a step of Adam."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # optax's and PyTorch's defaults
ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def score(activation: str, params: Any, x: Any) -> Any:
    *hidden, (weights, bias) = params
    for w, b in hidden:
        x = ACTIVATIONS[activation](x @ w + b)
    return x @ weights + bias


def loss(kind: str, activation: str, params: Any, x: Any, y: Any) -> Any:
    z = score(activation, params, x)
    if kind == "cross_entropy":
        log_probs = jax.nn.log_softmax(z)
        return -jnp.mean(jnp.take_along_axis(log_probs, y[:, None], axis=1))
    return 0.5 * jnp.mean((z - y.reshape(z.shape)) ** 2)


def update(kind: str, activation: str, state: Any, x: Any, y: Any) -> Any:
    """One step of one network; state is (params, m, v, step count, sum of the losses)."""
    params, m, v, t, total = state
    value, g = jax.value_and_grad(partial(loss, kind, activation))(params, x, y)
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    correction1, correction2 = -jnp.expm1(t * math.log(BETA1)), -jnp.expm1(t * math.log(BETA2))

    def new_param(p: Any, m: Any, v: Any) -> Any:
        return p - RATE / correction1 * m / (jnp.sqrt(v / correction2) + EPS)

    return jax.tree.map(new_param, params, m, v), m, v, t, total + value
