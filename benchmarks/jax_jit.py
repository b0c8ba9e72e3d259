"""JAX as a contender: one jitted step, Adam written out, losses added up on the device."""

import math
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xpmlp.bench.problems import Problem, joined

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # optax's defaults, which are PyTorch's
ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def score(activation: str, params: Any, x: Any) -> Any:
    *hidden, (weights, bias) = params
    for w, b in hidden:
        x = ACTIVATIONS[activation](x @ w + b)
    return x @ weights + bias


def loss(kind: str, activation: str, params: Any, x: Any, y: Any) -> Any:
    found = score(activation, params, x)
    if kind == "cross_entropy":
        logs = jax.nn.log_softmax(found)
        return -jnp.mean(jnp.take_along_axis(logs, y[:, None], axis=1))
    return 0.5 * jnp.mean((found[:, 0] - y) ** 2)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,))
def step(kind: str, activation: str, state: Any, X: Any, y: Any, index: Any) -> Any:
    """One update; state is (params, m, v, steps done, sum of the losses)."""
    params, m, v, t, total = state
    measure = partial(loss, kind, activation)
    value, g = jax.value_and_grad(measure)(params, X[index], y[index])
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    seen1, seen2 = -jnp.expm1(t * math.log(BETA1)), -jnp.expm1(t * math.log(BETA2))

    def moved(p: Any, m: Any, v: Any) -> Any:
        return p - RATE / seen1 * m / (jnp.sqrt(v / seen2) + EPS)

    return jax.tree.map(moved, params, m, v), m, v, t, total + value


class Training:
    """A user's loop: the data on the device, an order from the host for every epoch."""

    def __init__(self, problem: Problem) -> None:
        # before any array is made; the timed ones are float32 either way
        jax.config.update("jax_enable_x64", problem.X.dtype == np.float64)
        self.shape, self.shuffle, self.units = problem.shape, problem.shuffle, problem.shape.steps
        self.X = jnp.asarray(problem.X)
        self.y = jnp.asarray(problem.y, dtype=jnp.int32 if problem.y.dtype.kind == "i" else None)
        params = [(jnp.array(w), jnp.array(b)) for w, b in problem.start]
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        zero = jnp.zeros((), dtype=problem.X.dtype)
        self.state = (params, m, v, zero, jnp.zeros_like(zero))
        self.rng = np.random.default_rng(0)
        self.curve: list[float] = []

    def epoch(self) -> None:
        rows, batch = len(self.X), self.shape.batch
        order = self.rng.permutation(rows) if self.shuffle else np.arange(rows)
        order = order.astype(np.int32)
        for start in range(0, rows, batch):
            index = order[start : start + batch]
            self.state = step(
                self.shape.loss, self.shape.activation, self.state, self.X, self.y, index
            )
        *kept, total = self.state
        self.curve.append(float(total) * batch / rows)  # waits for the epoch to end
        self.state = (*kept, jnp.zeros_like(total))

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.epoch()
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        self.seconds(count)
        return joined(self.state[0])
