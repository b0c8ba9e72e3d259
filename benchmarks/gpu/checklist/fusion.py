"""Checks of the fused kernels of a step: their results and their number."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.checklist.check import (
    FAULT,
    FIGURE,
    Check,
    Result,
    Setting,
    check_bound,
    nodes,
    over_bound,
)
from benchmarks.gpu.checklist.runs import (
    SMALL,
    longest_graph,
    open_reports,
    quick_spec,
    sized_trainer,
    unfused,
)
from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, gradients, returned
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording.cuda_writer import CudaBackend
from xpmlp.step import PENALTIES, outcome
from xpmlp.training.trainer import Trainer
from xpmlp.types import Array

# the same operations in the same order, without contraction; the difference is how a compiler
# inlines exp, tanh and such functions, whose last bits 1 - tanh(z)**2 amplifies
KERNEL_ALLOWED = {"float32": 1e-5, "float64": 2e-14}
SPECIAL = (0.0, -0.0, 30.0, -30.0, 1e3, -1e3, float("inf"), float("nan"))


class Call(NamedTuple):
    """A call of a function as a step makes it by `apply`."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    into: tuple[Array, ...] = ()  # arrays that its results overwrite


class RandomArrays:
    """Random arrays on a place, of one dtype and with the same leading axes."""

    def __init__(self, place: Place, seed: int, dtype: str, lead: tuple[int, ...]) -> None:
        self.place, self.dtype, self.lead = place, dtype, lead
        self.rng = np.random.default_rng([seed, 6])

    def at(self, values: np.ndarray) -> Array:
        return to_place(self.place, values, self.dtype)

    def special(self, *shape: int) -> Array:
        """Numbers for every branch, including those of SPECIAL."""
        values = 3 * self.rng.standard_normal((*self.lead, *shape))
        values.reshape(-1)[: len(SPECIAL)] = SPECIAL
        return self.at(values)

    def uniform(self, *shape: int) -> Array:
        """Numbers in (0.1, 0.9)."""
        return self.at(self.rng.uniform(0.1, 0.9, (*self.lead, *shape)))


def rules(random: RandomArrays) -> Iterator[Call]:
    now, decay = random.at(np.asarray(3.0)), random.at(np.full(1000, 0.1))
    for name, rule in OPTIMIZERS.items():
        theta, g, *slots = (random.uniform(1000) for _ in range(2 + rule.slots))
        settings = {"learning_rate": random.uniform(1), "weight_decay": decay}
        h = SimpleNamespace(**rule.defaults | settings)
        yield Call(name, rule.rule, (h, now, theta, g, *slots), (theta, *slots))


def activations(random: RandomArrays) -> Iterator[Call]:
    for name in ACTIVATIONS:
        f, slope, _ = activation(name)
        product, back, z, bias = *(random.special(6, 8) for _ in range(3)), random.uniform(1, 8)
        yield Call(name, activated, (f, product, bias))
        yield Call(f"{name}'s slope", returned, (slope, back, z, f(random.place.xp, z)))


def penalties(random: RandomArrays) -> Iterator[Call]:
    strength = random.at(np.linspace(0.0, 1.0, 1000))
    for name, (cost, pull) in PENALTIES.items():
        theta, g = random.special(1000), random.special(1000)
        yield Call(name, cost, (strength, 0.5, theta))
        yield Call(f"{name}'s pull", pull, (strength, 0.5, theta, g), (g,))


def outcomes(random: RandomArrays) -> Iterator[Call]:
    """Value and last delta of every loss in one kernel."""
    for name in LOSSES:
        measure = loss(name)
        columns = measure.scores_per_target if measure.scores_per_target > 1 else 4
        score, target, weight = (random.uniform(5, count) for count in (columns, columns, 1))
        target = target[..., : measure.targets(columns)]
        yield Call(name, outcome, (measure.value, measure.delta, score, target, weight))


def layers(random: RandomArrays) -> Iterator[Call]:
    """A layer's gradients, which are written into given arrays."""
    x, delta, weights, bias = (random.uniform(*shape) for shape in ((9, 6), (9, 5), (6, 5), (1, 5)))
    yield Call("a layer's gradients", gradients, (x, delta), (weights, bias))


def difference(actual: Array, expected: Array) -> float:
    """The largest difference, relative to the value or to 1; inf for another dtype or shape."""
    if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
        return float("inf")
    a, b = to_host(actual), to_host(expected)
    with np.errstate(all="ignore"):
        error = np.abs(a - b) / np.maximum(np.abs(b), 1)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.where(equal, 0.0, error)))  # NaN propagates


def as_sequence(results: Any) -> Sequence[Array]:
    return results if isinstance(results, tuple) else (results,)


def compare_kernel(kernels: CudaBackend, call: Call) -> tuple[float, bool]:
    """The error of a function by `apply`, and whether it became a kernel."""
    expected = as_sequence(call.function(kernels.base, *call.arguments))
    kernels.restart()
    results = kernels.apply(call.function, kernels.xp, *call.arguments, into=call.into)
    kernels.join()
    actual = call.into or as_sequence(results)
    errors = [difference(a, b) for a, b in zip(actual, expected, strict=True)]
    return float(np.max(errors)), any(entry.plan is not None for entry in kernels.calls[:1])


def fusion_check(kind: Callable[[RandomArrays], Iterator[Call]]) -> Callable[[Setting], Result]:
    """The check of every function of a kind, in both dtypes, for a network and a population."""

    def run(env: Setting) -> Result:
        import cupy

        errors, is_kernel, kernels = {}, {}, CudaBackend(env.place.xp, cupy)
        with running(env.place):
            for dtype, allowed in KERNEL_ALLOWED.items():
                for lead in ((),) if env.quick else ((), (3,)):
                    for call in kind(RandomArrays(env.place, env.seed, dtype, lead)):
                        name = f"{call.name}, {dtype}, {lead}"
                        error, is_kernel[name] = compare_kernel(kernels, call)
                        errors[name] = error / allowed
        largest = float(np.max(list(errors.values())))
        detail = over_bound(errors, 1.0)
        result = check_bound(largest, 1.0, detail, errors=errors, kernels=is_kernel)
        figure = f"{largest:.2f} of the bound, {sum(is_kernel.values())} of {len(errors)} kernels"
        return result._replace(figure=figure, allowed="1")

    return run


def per_step(trainer: Trainer) -> dict[str, float]:
    """Number of nodes of each kind in a recorded step of the trainer."""
    with open_reports(trainer) as reports:
        next(reports)
        steps, recorded = longest_graph(trainer)
        return {kind: count / steps for kind, count in nodes(recorded.graph).items()}


def node_counts(env: Setting) -> Result:
    """The nodes of a recorded step, without and with fused kernels."""
    spec = quick_spec(SMALL) if env.quick else SMALL
    before = per_step(unfused(sized_trainer(env.place, spec, 128, 16, env.seed)))
    after = per_step(sized_trainer(env.place, spec, 128, 16, env.seed))
    fewer = sum(after.values()) < sum(before.values())
    counts = ", ".join(f"{count:g} {kind}" for kind, count in after.items())
    return Result(
        f"{counts} nodes a step; {sum(before.values()):g} before",
        verdict=FIGURE if fewer else FAULT,
        figures={"before": before, "after": after},
    )


CHECKS = (
    Check(6, "fused-rules", fusion_check(rules)),
    Check(6, "fused-activations", fusion_check(activations)),
    Check(6, "fused-penalties", fusion_check(penalties)),
    Check(6, "fused-outcomes", fusion_check(outcomes)),
    Check(6, "fused-layers", fusion_check(layers)),
    Check(6, "kernels", node_counts),
)
