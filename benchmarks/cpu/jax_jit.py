"""JAX as a contender: one jitted step, losses summed on the device."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cpu.jax_network import update
from benchmarks.cpu.problems import Problem, flatten


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2,))
def step(kind: str, activation: str, state: Any, X: Any, y: Any, index: Any) -> Any:
    """One update on the rows of `index`."""
    return update(kind, activation, state, X[index], y[index])


class Training:
    """A user's training loop: the data on the device, each epoch's order drawn on the host."""

    def __init__(self, problem: Problem) -> None:
        # before the first array; timed arrays are float32 either way
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
        *rest, total = self.state
        self.curve.append(float(total) * batch / rows)  # waits for the epoch to end
        self.state = (*rest, jnp.zeros_like(total))

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.epoch()
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        self.seconds(count)
        return flatten(self.state[0])
