"""Checks of the kernels that a step's functions are written out as: their numbers, their count."""

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
    held_to,
    nodes,
    worst,
)
from benchmarks.gpu.checklist.runs import SMALL, longest, quick_spec, sized, under_way, unfused
from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, gradients, returned
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording.cuda_writer import CudaBackend
from xpmlp.step import PENALTIES, outcome
from xpmlp.training.trainer import Trainer
from xpmlp.types import Array

# the same operations in the same order, without contraction; what is left is how a compiler
# inlines exp, tanh and their like, the last bits of which 1 - tanh(z)**2 lays bare
KERNEL_ALLOWED = {"float32": 1e-5, "float64": 2e-14}
SPECIAL = (0.0, -0.0, 30.0, -30.0, 1e3, -1e3, float("inf"), float("nan"))


class Asked(NamedTuple):
    """A function as a step runs it by `apply`."""

    name: str
    function: Callable[..., Any]
    given: tuple[Any, ...]
    into: tuple[Array, ...] = ()  # what its results are written over


class Draw:
    """Arrays at a place, in one dtype and under the same leading axes."""

    def __init__(self, place: Place, seed: int, dtype: str, lead: tuple[int, ...]) -> None:
        self.place, self.dtype, self.lead = place, dtype, lead
        self.rng = np.random.default_rng([seed, 6])

    def at(self, values: np.ndarray) -> Array:
        return to_place(self.place, values, self.dtype)

    def any(self, *shape: int) -> Array:
        """Numbers that reach every branch."""
        drawn = 3 * self.rng.standard_normal((*self.lead, *shape))
        drawn.reshape(-1)[: len(SPECIAL)] = SPECIAL
        return self.at(drawn)

    def some(self, *shape: int) -> Array:
        """Numbers in (0.1, 0.9)."""
        return self.at(self.rng.uniform(0.1, 0.9, (*self.lead, *shape)))


def rules(draw: Draw) -> Iterator[Asked]:
    now, decay = draw.at(np.asarray(3.0)), draw.at(np.full(1000, 0.1))
    for name, rule in OPTIMIZERS.items():
        theta, g, *slots = (draw.some(1000) for _ in range(2 + rule.slots))
        own = {"learning_rate": draw.some(1), "weight_decay": decay}
        h = SimpleNamespace(**rule.defaults | own)
        yield Asked(name, rule.rule, (h, now, theta, g, *slots), (theta, *slots))


def activations(draw: Draw) -> Iterator[Asked]:
    for name in ACTIVATIONS:
        f, slope, _ = activation(name)
        product, back, z, bias = *(draw.any(6, 8) for _ in range(3)), draw.some(1, 8)
        yield Asked(name, activated, (f, product, bias))
        yield Asked(f"{name}'s slope", returned, (slope, back, z, f(draw.place.xp, z)))


def penalties(draw: Draw) -> Iterator[Asked]:
    strength = draw.at(np.linspace(0.0, 1.0, 1000))
    for name, (cost, pull) in PENALTIES.items():
        theta, g = draw.any(1000), draw.any(1000)
        yield Asked(name, cost, (strength, 0.5, theta))
        yield Asked(f"{name}'s pull", pull, (strength, 0.5, theta, g), (g,))


def outcomes(draw: Draw) -> Iterator[Asked]:
    """Of every loss, value and last delta at once."""
    for name in LOSSES:
        measure = loss(name)
        columns = measure.scores_per_target if measure.scores_per_target > 1 else 4
        score, target, weight = (draw.some(5, count) for count in (columns, columns, 1))
        target = target[..., : measure.targets(columns)]
        yield Asked(name, outcome, (measure.value, measure.delta, score, target, weight))


def layers(draw: Draw) -> Iterator[Asked]:
    """A layer's gradients, which are written where they are wanted."""
    x, delta, weights, bias = (draw.some(*shape) for shape in ((9, 6), (9, 5), (6, 5), (1, 5)))
    yield Asked("a layer's gradients", gradients, (x, delta), (weights, bias))


def apart(found: Array, expected: Array) -> float:
    """The largest difference, relative to the number or to 1; inf for another dtype or shape."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return float("inf")
    a, b = to_host(found), to_host(expected)
    with np.errstate(all="ignore"):
        far = np.abs(a - b) / np.maximum(np.abs(b), 1)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.where(alike, 0.0, far)))  # NaN wins


def listed(results: Any) -> Sequence[Array]:
    return results if isinstance(results, tuple) else (results,)


def held(kernels: CudaBackend, asked: Asked) -> tuple[float, bool]:
    """How far a function by `apply` is from itself as it is, and whether it became a kernel."""
    expected = listed(asked.function(kernels.base, *asked.given))
    kernels.restart()
    made = kernels.apply(asked.function, kernels.xp, *asked.given, into=asked.into)
    kernels.join()
    found = asked.into or listed(made)
    far = [apart(a, b) for a, b in zip(found, expected, strict=True)]
    return float(np.max(far)), any(call.plan is not None for call in kernels.calls[:1])


def fused(kind: Callable[[Draw], Iterator[Asked]]) -> Callable[[Setting], Result]:
    """The check of every function of a kind, in both floats, of one network and of a population."""

    def run(on: Setting) -> Result:
        import cupy

        far, became, kernels = {}, {}, CudaBackend(on.place.xp, cupy)
        with running(on.place):
            for dtype, allowed in KERNEL_ALLOWED.items():
                for lead in ((),) if on.quick else ((), (3,)):
                    for asked in kind(Draw(on.place, on.seed, dtype, lead)):
                        name = f"{asked.name}, {dtype}, {lead}"
                        difference, became[name] = held(kernels, asked)
                        far[name] = difference / allowed
        largest = float(np.max(list(far.values())))
        result = held_to(largest, 1.0, worst(far, 1.0), far=far, kernels=became)
        figure = f"{largest:.2f} of the allowed, {sum(became.values())} of {len(far)} kernels"
        return result._replace(figure=figure, allowed="1")

    return run


def per_step(trainer: Trainer) -> dict[str, float]:
    """How many nodes of each kind a recorded step of the trainer has."""
    with under_way(trainer) as coming:
        next(coming)
        steps, made = longest(trainer)
        return {kind: count / steps for kind, count in nodes(made.graph).items()}


def node_counts(on: Setting) -> Result:
    """What recorded steps consist of, before the functions are made kernels and after."""
    spec = quick_spec(SMALL) if on.quick else SMALL
    before = per_step(unfused(sized(on.place, spec, 128, 16, on.seed)))
    after = per_step(sized(on.place, spec, 128, 16, on.seed))
    fewer = sum(after.values()) < sum(before.values())
    shown = ", ".join(f"{count:g} {kind}" for kind, count in after.items())
    return Result(
        f"{shown} nodes a step; {sum(before.values()):g} before",
        verdict=FIGURE if fewer else FAULT,
        figures={"before": before, "after": after},
    )


CHECKS = (
    Check(6, "fused-rules", fused(rules)),
    Check(6, "fused-activations", fused(activations)),
    Check(6, "fused-penalties", fused(penalties)),
    Check(6, "fused-outcomes", fused(outcomes)),
    Check(6, "fused-layers", fused(layers)),
    Check(6, "kernels", node_counts),
)
