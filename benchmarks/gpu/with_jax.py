"""JAX as contenders: one jitted step per call, and a whole epoch by scan."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cpu.jax_network import update
from benchmarks.gpu.clock import WARMUP_EPOCHS, Times, median_us
from benchmarks.gpu.works import Problem, flatten

jax.config.update("jax_enable_x64", True)  # for the check; timed arrays are float32 either way
VARIANTS = {"jit": 1, "scan": 16}  # steps per call when the step is timed
VERSION = jax.__version__
CLOCK = "host, from the call to block_until_ready"


class Learner:
    """A network, or a population by `vmap`, with rows and orders on the device."""

    def __init__(self, problem: Problem, variant: str) -> None:
        work, dtype = problem.work, problem.X.dtype
        self.problem, self.variant = problem, variant
        self.X, self.y = jnp.asarray(problem.X), jnp.asarray(problem.y)
        params = [(jnp.asarray(w), jnp.asarray(b[..., 0, :])) for w, b in problem.start]
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        lead = () if work.members is None else (work.members,)
        self.state = (params, m, v, jnp.zeros(lead, dtype), jnp.zeros(lead, dtype))
        self.index = jnp.zeros((), dtype=jnp.int32)  # of the next minibatch of the epoch
        self.key = jax.random.key(problem.seed)
        learn = partial(update, work.loss, "relu")
        learn = learn if work.members is None else jax.vmap(learn)

        def one_step(state: Any, index: Any, X: Any, y: Any, order: Any) -> Any:
            rows = order[index]
            return learn(state, X[rows], y[rows]), index + 1

        def whole_epoch(state: Any, index: Any, X: Any, y: Any, order: Any) -> Any:
            def body(state: Any, rows: Any) -> Any:
                return learn(state, X[rows], y[rows]), None

            return jax.lax.scan(body, state, order)[0], index

        def repeat(state: Any, x: Any, y: Any) -> Any:
            def body(state: Any, _: Any) -> Any:
                return learn(state, x, y), None

            return jax.lax.scan(body, state, None, length=VARIANTS[variant])[0]

        self.calls = work.batches if variant == "jit" else 1
        advance = one_step if variant == "jit" else whole_epoch
        self.learn = jax.jit(advance, donate_argnums=(0, 1))
        self.repeat = jax.jit(learn if variant == "jit" else repeat, donate_argnums=0)
        self.draw_order = jax.jit(self.order)

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
        order = self.draw_order(key)
        for _ in range(self.calls):
            self.state, self.index = self.learn(self.state, self.index, self.X, self.y, order)
        *rest, total = self.state
        mean = float(jnp.mean(total)) / self.problem.work.batches
        self.state, self.index = (*rest, jnp.zeros_like(total)), jnp.zeros_like(self.index)
        return mean

    def wait(self) -> None:
        jax.block_until_ready(self.state)


def set_device(device: str, precision: str) -> None:
    """Use a device such as "gpu:0" with this precision of float32 products."""
    names = {"tf32": "tensorfloat32", "full": "float32"}
    jax.config.update("jax_default_matmul_precision", names[precision])
    kind, _, index = device.partition(":")
    jax.config.update("jax_default_device", jax.devices(kind)[int(index or 0)])


def trained_weights(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, parameters)."""
    set_device(device, problem.work.precision)
    learner = Learner(problem, variant)
    learner.epoch()
    params = [(np.asarray(w), np.asarray(b)) for w, b in learner.state[0]]
    if problem.work.members is None:
        return flatten(params)[None]
    return np.stack([flatten([(w[k], b[k]) for w, b in params]) for k in range(len(params[0][0]))])


def times(problem: Problem, variant: str, device: str, rounds: int) -> Times:
    set_device(device, problem.work.precision)
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
            raise FloatingPointError("the loss is not finite")

    def step() -> None:
        learner.state = learner.repeat(learner.state, x, y)

    for _ in range(WARMUP_EPOCHS):
        epoch()
    measure = partial(median_us, elapsed, rounds=rounds)
    per_epoch = measure(epoch, calls=1) / problem.work.batches
    steps = VARIANTS[variant]
    return Times(per_epoch, measure(step, calls=max(1, 80 // steps)) / steps)


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    set_device(device, precision)
    return np.asarray(jnp.matmul(jnp.asarray(a), jnp.asarray(b)))


def variants(members: int | None) -> list[str]:
    return list(VARIANTS)
