"""JAX as contenders: one jitted step called again and again, and a whole epoch by scan."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cpu.jax_network import update
from benchmarks.gpu.clock import WARM, Times, median_us
from benchmarks.gpu.works import Problem, joined

jax.config.update("jax_enable_x64", True)  # for the check: what is timed is float32 all the same
VARIANTS = {"jit": 1, "scan": 16}  # and how many steps on the same minibatch a call makes
VERSION = jax.__version__
CLOCK = "host, from the call to block_until_ready"


class Learner:
    """A network, or a population under `vmap`, with rows and orders on the device."""

    def __init__(self, problem: Problem, variant: str) -> None:
        work, dtype = problem.work, problem.X.dtype
        self.problem, self.variant = problem, variant
        self.X, self.y = jnp.asarray(problem.X), jnp.asarray(problem.y)
        params = [(jnp.asarray(w), jnp.asarray(b[..., 0, :])) for w, b in problem.start]
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        lead = () if work.members is None else (work.members,)
        self.state = (params, m, v, jnp.zeros(lead, dtype), jnp.zeros(lead, dtype))
        self.at = jnp.zeros((), dtype=jnp.int32)  # minibatches of this epoch so far
        self.key = jax.random.key(problem.seed)
        learn = partial(update, work.loss, "relu")
        learn = learn if work.members is None else jax.vmap(learn)

        def one(state: Any, at: Any, X: Any, y: Any, order: Any) -> Any:
            index = order[at]
            return learn(state, X[index], y[index]), at + 1

        def whole(state: Any, at: Any, X: Any, y: Any, order: Any) -> Any:
            def body(state: Any, index: Any) -> Any:
                return learn(state, X[index], y[index]), None

            return jax.lax.scan(body, state, order)[0], at

        def again(state: Any, x: Any, y: Any) -> Any:
            def body(state: Any, _: Any) -> Any:
                return learn(state, x, y), None

            return jax.lax.scan(body, state, None, length=VARIANTS[variant])[0]

        self.calls = work.batches if variant == "jit" else 1
        self.learn = jax.jit(one if variant == "jit" else whole, donate_argnums=(0, 1))
        self.again = jax.jit(learn if variant == "jit" else again, donate_argnums=0)
        self.drawn = jax.jit(self.order)

    def order(self, key: Any) -> Any:
        """The rows of every minibatch of an epoch, (batches, ..., B)."""
        work, rows = self.problem.work, len(self.problem.X)
        keys = jax.random.split(key, work.members or 1)
        if self.problem.shuffle:
            order = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
        else:
            order = jnp.broadcast_to(jnp.arange(rows), (len(keys), rows))
        order = order.astype(jnp.int32).reshape(len(keys), work.batches, work.batch)
        order = jnp.moveaxis(order, 0, 1)
        return order if work.members else order[:, 0]

    def epoch(self) -> float:
        self.key, key = jax.random.split(self.key)
        order = self.drawn(key)
        for _ in range(self.calls):
            self.state, self.at = self.learn(self.state, self.at, self.X, self.y, order)
        *kept, total = self.state
        mean = float(jnp.mean(total)) / self.problem.work.batches
        self.state, self.at = (*kept, jnp.zeros_like(total)), jnp.zeros_like(self.at)
        return mean

    def wait(self) -> None:
        jax.block_until_ready(self.state)


def place(device: str, precision: str) -> None:
    """Work on the device of a word such as "gpu:0", products of float32 as asked."""
    words = {"tf32": "tensorfloat32", "full": "float32"}
    jax.config.update("jax_default_matmul_precision", words[precision])
    kind, _, index = device.partition(":")
    jax.config.update("jax_default_device", jax.devices(kind)[int(index or 0)])


def learnt(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, numbers)."""
    place(device, problem.work.precision)
    learner = Learner(problem, variant)
    learner.epoch()
    params = [(np.asarray(w), np.asarray(b)) for w, b in learner.state[0]]
    if problem.work.members is None:
        return joined(params)[None]
    return np.stack([joined([(w[k], b[k]) for w, b in params]) for k in range(len(params[0][0]))])


def times(problem: Problem, variant: str, device: str, rounds: int) -> Times:
    place(device, problem.work.precision)
    learner = Learner(problem, variant)
    first = slice(problem.work.batch)
    x, y = learner.X[first], learner.y[first]
    if problem.work.members:
        x, y = (jnp.repeat(part[None], problem.work.members, axis=0) for part in (x, y))

    def elapsed(call: Callable[[], object], calls: int) -> float:
        learner.wait()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        learner.wait()
        return (time.perf_counter() - started) / calls * 1e6

    def epoch() -> None:
        if not math.isfinite(learner.epoch()):
            raise FloatingPointError("the loss is no finite number")

    def again() -> None:
        learner.state = learner.again(learner.state, x, y)

    for _ in range(WARM):
        epoch()
    measured = partial(median_us, elapsed, rounds=rounds)
    whole = measured(epoch, calls=1) / problem.work.batches
    steps = VARIANTS[variant]
    return Times(whole, measured(again, calls=max(1, 80 // steps)) / steps)


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    place(device, precision)
    return np.asarray(jnp.matmul(jnp.asarray(a), jnp.asarray(b)))


def variants(members: int | None) -> list[str]:
    return list(VARIANTS)
