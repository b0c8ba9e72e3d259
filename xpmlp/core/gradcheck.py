"""The gradient check: backprop's gradient against central differences of the loss.

The differences use idea 1: every parameter, moved up and down, is one member of a population,
so one forward pass measures many slopes at once. They are of fourth order, f(+-h) and f(+-2h):
a hundred times closer than the usual two points, which in float64 know 1e-7 of a small gradient.
"""

from collections.abc import Iterator
from math import isnan
from typing import Any, NamedTuple

from xpmlp.core.activations import activation
from xpmlp.core.initializers import initial
from xpmlp.core.layout import Dense, windows
from xpmlp.core.losses import Loss, loss
from xpmlp.core.network import forward
from xpmlp.core.optimizers import optimizer
from xpmlp.core.random import Stream, generator
from xpmlp.core.spec import Spec, whole
from xpmlp.core.training import Batch, gradient, new_state
from xpmlp.core.types import Array, Namespace

MOVE = 3e-4  # where rounding and truncation of a fourth-order difference balance in float64
STENCIL = ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12))  # (moves, weight)
AT_ONCE = 2_000_000  # numbers held by one chunk of moved networks
TOLERANCE = 1e-7  # a right gradient comes out near 1e-10, a wrong slope near 1


class Difference(NamedTuple):
    """How far one window's gradient is from its central differences."""

    layer: int  # from 1
    name: str  # "W" or "b"
    parameters: int
    largest: float  # largest relative error


class Check(NamedTuple):
    """The result of a gradient check."""

    network: str
    differences: tuple[Difference, ...]
    tolerance: float

    @property
    def largest(self) -> float:
        # NaN must not pass for small, and max() would let it
        errors = [d.largest for d in self.differences]
        return max(errors) if not any(map(isnan, errors)) else float("nan")

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance

    def __str__(self) -> str:
        rows = [
            f"  {d.name + str(d.layer):<8} {d.parameters:>10,}   {d.largest:.1e}"
            + ("" if d.largest <= self.tolerance else "   <- wrong")
            for d in self.differences
        ]
        verdict = "agree" if self.passed else "DO NOT AGREE"
        return "\n".join(
            [
                f"{self.network}: backprop against central differences, float64",
                f"  {'window':<8} {'parameters':>10}   largest relative error",
                *rows,
                f"they {verdict}: {self.largest:.1e}, allowed {self.tolerance:.0e}",
            ]
        )


def clear_rows(xp: Namespace, spec: Spec, params: tuple[Dense, ...], x: Array, rows: int) -> Array:
    """Of the rows x, those whose pre-activations are farthest from 0, where relu has its kink."""
    nearest = xp.stack([xp.min(xp.abs(trace.z), axis=-1) for trace in forward(xp, spec, params, x)])
    best = xp.argsort(-xp.min(nearest, axis=0))
    return xp.take(x, best[:rows], axis=0)


def sample_target(measure: Loss, seed: int, rows: int, n_out: int) -> Any:
    """Targets a loss accepts: counts, 0/1, distributions or numbers, (rows, n_out) float64."""
    rng = generator(seed, Stream.SPLIT, 1)
    if measure.labels == "classes":
        return rng.dirichlet([1.0] * n_out, rows)
    if measure.labels == "binary":
        return rng.uniform(0, 1, (rows, n_out))
    return rng.uniform(0.5, 3, (rows, 1 if measure.levels else n_out))


def loss_differences(xp: Namespace, spec: Spec, flat: Array, batch: Batch) -> Iterator[Array]:
    """Central differences of the loss with respect to each of `flat` (P,), in chunks."""
    measure, count = loss(spec.loss), flat.shape[-1]
    chunk = max(1, AT_ONCE // (count * batch.x.shape[-2]))
    moves = MOVE * xp.eye(count, dtype=flat.dtype, device=flat.device)
    for start in range(0, count, chunk):
        part = moves[start : min(start + chunk, count), :]
        slopes = xp.zeros(part.shape[0], dtype=flat.dtype, device=flat.device)
        for times, share in STENCIL:
            moved = windows(xp, spec, flat + times * part)
            score = forward(xp, spec, moved, batch.x)[-1].a
            values = xp.sum(measure.value(xp, score, batch.target) * batch.weight, axis=-1)
            slopes = slopes + share / MOVE * values
        yield slopes


def relative_error(xp: Namespace, analytic: Array, numeric: Array, scale: Array) -> float:
    """The largest |analytic - numeric|, relative to the larger of the two.

    Entries far below `scale`, the largest of the whole gradient, are compared with a thousandth
    of it: a central difference knows no more digits of them.
    """
    size = xp.maximum(xp.abs(analytic), xp.abs(numeric))
    return float(xp.max(xp.abs(analytic - numeric) / (size + 1e-3 * scale)))


def gradcheck(
    spec: Spec | str,
    x: Array | None = None,
    target: Array | None = None,
    *,
    xp: Namespace = None,
    rows: int = 8,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Check:
    """Compare backprop's gradient with central differences in float64, window by window.

    x (B, n_in) and target (B, n_out): float64 arrays of xp; drawn from `seed` where not given,
    clear of kinks. xp: NumPy where not given. It checks a user's own activation or loss as well:
    a wrong slope shows.

    >>> gradcheck(Spec.parse("3-4-2", activation="tanh")).passed
    True
    """
    spec, rows = Spec.parse(spec), whole(rows, "rows")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64); got {seed}")
    drawn = initial(spec, seed)
    xp = xp or drawn.__array_namespace__()
    device = None if x is None else x.device

    def numbers(values: Any) -> Array:
        return xp.asarray(values.tolist(), dtype=xp.float64, device=device)

    # normal numbers beside the drawn weights: biases off zero are checked too
    noise = generator(seed, Stream.SPLIT)
    start = numbers(drawn)
    for window in windows(xp, spec, start):
        window.bias[...] = numbers(noise.normal(0, 0.1, tuple(window.bias.shape)))
    params = windows(xp, spec, start)
    if x is None:
        pool = numbers(noise.normal(size=(50 * rows, spec.n_in)))
        x = clear_rows(xp, spec, params, pool, rows)
    if target is None:
        target = numbers(sample_target(loss(spec.loss), seed, x.shape[-2], spec.n_out))
    weight = xp.full((x.shape[-2],), 1 / x.shape[-2], dtype=xp.float64, device=device)
    batch = Batch(x, target, weight)
    state = new_state(xp, spec, optimizer("sgd"), start)
    gradient(xp, spec, state, batch)
    numeric = windows(xp, spec, xp.concat(list(loss_differences(xp, spec, start, batch)), axis=0))
    scale = xp.max(xp.abs(state.grad)) + 1e-30
    found = [
        Difference(i, name, getattr(analytic, part).size, error)
        for i, (analytic, differences) in enumerate(zip(state.grads, numeric, strict=True), 1)
        for name, part in (("W", "weights"), ("b", "bias"))
        for error in [
            relative_error(xp, getattr(analytic, part), getattr(differences, part), scale)
        ]
    ]
    activations = ", ".join(sorted({activation(y.activation).name or "yours" for y in spec.layers}))
    return Check(f"{spec} ({activations})", tuple(found), tolerance)
