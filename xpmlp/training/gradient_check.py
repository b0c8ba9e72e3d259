"""The gradient check: backprop's gradient against central differences of the loss.

The differences use idea 1: every parameter, moved up and down, is one member of a population,
so one forward pass measures many slopes at once. They are of fourth order, f(+-h) and f(+-2h):
a hundred times closer than the usual two points, which in float64 know 1e-7 of a small gradient.
"""

import math
from collections.abc import Iterator
from math import prod
from numbers import Real
from typing import Any, NamedTuple

from xpmlp.devices.namespace import Place, place_of, running, to_host, to_place
from xpmlp.initializers import initial
from xpmlp.layout import blocks, starts, views, windows
from xpmlp.losses import Loss, loss
from xpmlp.names import title, whole, with_hints
from xpmlp.network import forward
from xpmlp.optimizers import optimizer
from xpmlp.random import Stream, generator
from xpmlp.spec import Spec
from xpmlp.step import Batch, gradient, new_state
from xpmlp.training.checks import numbers
from xpmlp.training.data import move
from xpmlp.training.settings import Settings
from xpmlp.training.validation import validate_layers
from xpmlp.types import Array, Namespace

MOVE = 3e-4  # where rounding and truncation of a fourth-order difference balance in float64
STENCIL = ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12))  # (moves, weight)
AT_ONCE = 2_000_000  # numbers held by one chunk of moved networks
TOLERANCE = 1e-7  # a right gradient comes out near 1e-10, a wrong slope near 1
HINTS = {  # what other functions call the arguments of `gradcheck`
    "X": "x", "y": "target", "batch": "rows", "batch_size": "rows", "random_state": "seed",
    "tol": "tolerance", "atol": "tolerance", "rtol": "tolerance",
    "loss": "Spec.parse(..., loss=...)",
}  # fmt: skip
EVERY, SAMPLED = 2000, 100  # of a window with more parameters than EVERY, SAMPLED are checked


class Difference(NamedTuple):
    """How far one window's gradient is from its central differences."""

    layer: int  # from 1
    name: str  # such as "W" or "b"
    parameters: int
    largest: float  # largest relative error
    checked: int = 0  # of how many parameters


class Check(NamedTuple):
    """The result of a gradient check."""

    network: str
    differences: tuple[Difference, ...]
    tolerance: float

    @property
    def largest(self) -> float:
        # NaN must not pass for small, and max() would let it
        errors = [d.largest for d in self.differences]
        return max(errors) if not any(map(math.isnan, errors)) else float("nan")

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance

    def __str__(self) -> str:
        rows = [
            f"  {d.name + str(d.layer):<8} {d.parameters:>10,} {d.checked:>8,}   {d.largest:.1e}"
            + ("" if d.largest <= self.tolerance else "   <- wrong")
            for d in self.differences
        ]
        verdict = "agree" if self.passed else "DO NOT AGREE"
        return "\n".join(
            [
                f"{self.network}: backprop against central differences, float64",
                f"  {'window':<8} {'parameters':>10} {'checked':>8}   largest relative error",
                *rows,
                f"they {verdict}: {self.largest:.1e}, allowed {self.tolerance:.0e}",
            ]
        )


def clear_rows(xp: Namespace, spec: Spec, params: tuple[Any, ...], x: Array, rows: int) -> Array:
    """Of the rows x, those whose pre-activations are farthest from 0, where relu has its kink."""
    traces = forward(xp, spec, params, x)
    pairs = zip(spec.layers, traces, strict=True)
    kinks = [z for layer, trace in pairs for z in layer.kinks(xp, trace)]
    if not kinks:
        return x[:rows, :]
    flat = [xp.reshape(z, (x.shape[0], -1)) for z in kinks]
    best = xp.argsort(-xp.min(xp.abs(xp.concat(flat, axis=-1)), axis=-1))
    return xp.take(x, best[:rows], axis=0)


def draw_target(rng: Any, measure: Loss, rows: int, n_out: int) -> Any:
    """Targets a loss accepts: counts, 0/1, distributions or numbers, (rows, n_out) float64."""
    if measure.labels == "classes":
        return rng.dirichlet([1.0] * n_out, rows)
    if measure.labels == "binary":
        return rng.uniform(0, 1, (rows, n_out))
    return rng.uniform(0.5, 3, (rows, measure.targets(n_out)))


def clear_target(place: Place, measure: Loss, score: Array, seed: int) -> Array:
    """Of several drawn targets those at which the loss bends least: clear of its kinks."""
    rng = generator(seed, Stream.SPLIT, 1)
    candidates = [draw_target(rng, measure, *score.shape[-2:]) for _ in range(20)]
    targets = [to_place(place, target, "float64") for target in candidates]
    return min(targets, key=lambda target: bend(place.xp, measure, score, target))


def bend(xp: Namespace, measure: Loss, score: Array, target: Array) -> float:
    """The largest second difference of the loss's delta: a kink within reach is seen in it."""
    step = 30 * MOVE  # farther than any move of a parameter moves a score
    low, middle, high = (measure.delta(xp, score + by, target) for by in (-step, 0.0, step))
    return float(to_host(xp.max(xp.abs(low - 2 * middle + high))))


def chosen(size: int, seed: int, window: int) -> Any:
    """Which of a window's parameters are checked, sorted: all, or a sample of many."""
    rng = generator(seed, Stream.SPLIT, 2 + window)
    indices = rng.permutation(size)[: size if size <= EVERY else SAMPLED]
    indices.sort()
    return indices


def loss_differences(
    xp: Namespace, spec: Spec, flat: Array, batch: Batch, index: Array
) -> Iterator[Array]:
    """Central differences of the loss with respect to the elements `index` of `flat` (P,)."""
    measure, size, count = loss(spec.loss), flat.shape[-1], index.shape[0]
    chunk = max(1, AT_ONCE // (size * batch.x.shape[-2]))
    column = xp.arange(size, dtype=index.dtype, device=flat.device)
    for start in range(0, count, chunk):
        part = index[start : min(start + chunk, count)]
        shifts = MOVE * xp.astype(column[None, :] == part[:, None], flat.dtype)
        slopes = xp.zeros(part.shape[0], dtype=flat.dtype, device=flat.device)
        for times, coefficient in STENCIL:
            params = windows(xp, spec, flat + times * shifts)
            score = forward(xp, spec, params, batch.x)[-1].y
            values = xp.sum(measure.value(xp, score, batch.target) * batch.weight, axis=-1)
            slopes = slopes + coefficient / MOVE * values
        yield slopes


def relative_errors(xp: Namespace, analytic: Array, numeric: Array, scale: Array) -> Array:
    """|analytic - numeric|, relative to the larger of the two.

    Entries far below `scale`, the largest of the whole gradient, are compared with a thousandth
    of it: a central difference knows no more digits of them.
    """
    size = xp.maximum(xp.abs(analytic), xp.abs(numeric))
    return xp.abs(analytic - numeric) / (size + 1e-3 * scale)


@with_hints(HINTS)
def gradcheck(
    spec: Any,
    x: Any = None,
    target: Any = None,
    *,
    activation: Any = "relu",
    xp: Namespace = None,
    rows: int = 8,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Check:
    """Compare backprop's gradient with central differences in float64, block by block.

    Parameters
    ----------
    spec : Spec or anything `Spec.parse` reads
        With activations, losses and layers of your own: a wrong derivative shows.
    x : array of shape (B, n_in), optional
        Drawn from `seed` where it is not given, clear of kinks.
    target : array of shape (B, n_out), optional
        Likewise.
    activation : str or function
        Of the hidden layers, where spec is written as sizes.
    xp : namespace, optional
        What computes; that of x, or NumPy.
    rows : int
        How many are drawn.
    seed : int
        Of weights, rows and targets.
    tolerance : float above 0
        The largest relative error that passes; a right gradient comes out near 1e-10.

    Returns
    -------
    Check
        `passed`, `largest`, and `differences` by block. Of a block of more than 2000 parameters
        100 are checked.

    Raises
    ------
    ValueError
        Naming the argument, or the function of yours that does not return what it should.

    Examples
    --------
    >>> gradcheck(Spec.parse("3-4-2", activation="tanh")).passed
    True
    """
    spec, rows = Spec.parse(spec, activation=activation), whole(rows, "rows")
    seed = Settings(seed=seed).seeds[0]
    limit: Any = tolerance
    if not isinstance(limit, Real) or not 0 < float(limit) < math.inf:
        raise ValueError(f"tolerance must be finite and above 0; got {tolerance!r}")
    own_place = place_of(x)
    place = own_place if xp is None else Place(xp, getattr(x, "device", None), xp.__name__)
    with running(place):
        validate_layers(place, spec)
        start = starting_point(place, spec, seed)
        batch = sample_batch(place, spec, start, x, target, rows, seed)
        differences = compare(place, spec, start, batch, seed)
    words = ", ".join(layer.title for layer in spec.layers)
    return Check(f"{spec} ({words}; {title(spec.loss)})", tuple(differences), tolerance)


def starting_point(place: Place, spec: Spec, seed: int) -> Array:
    """Drawn weights (P,), and every other block off where it starts, so that its derivative is
    checked where it is not special."""
    noise = generator(seed, Stream.SPLIT)
    flat = to_place(place, initial(spec, seed), "float64")
    for view, block in zip(views(place.xp, spec, flat), blocks(spec), strict=True):
        if not block.decay_factor:
            values = block.start + noise.normal(0, 0.1, block.shape)
            view[...] = to_place(place, values, "float64")
    return flat


def sample_batch(
    place: Place, spec: Spec, start: Array, x: Any, target: Any, rows: int, seed: int
) -> Batch:
    """Rows and targets as given, or drawn."""
    xp, params = place.xp, windows(place.xp, spec, start)
    if x is None:
        pool = generator(seed, Stream.SPLIT, 3).normal(size=(50 * rows, spec.n_in))
        x = clear_rows(xp, spec, params, to_place(place, pool, "float64"), rows)
    else:
        x = move(place, numbers(x, "x", (2,)), "float64", "x")
    if target is None:
        target = clear_target(place, loss(spec.loss), forward(xp, spec, params, x)[-1].y, seed)
    target = move(place, numbers(target, "target", (1, 2)), "float64", "target")
    target = target[:, None] if target.ndim == 1 else target
    weight = xp.full((x.shape[-2],), 1 / x.shape[-2], dtype=xp.float64, device=place.device)
    return Batch(x, target, weight)


def compare(
    place: Place, spec: Spec, start: Array, batch: Batch, seed: int
) -> Iterator[Difference]:
    """The differences, window by window."""
    xp = place.xp
    state = new_state(xp, spec, optimizer("sgd"), start)
    gradient(xp, spec, state, batch)
    scale = xp.max(xp.abs(state.grad)) + 1e-30
    named_blocks = [(i, block) for i, layer in enumerate(spec.layers, 1) for block in layer.blocks]
    for number, (begin, (layer, block)) in enumerate(zip(starts(spec), named_blocks, strict=False)):
        size = prod(block.shape)
        index = to_place(place, begin + chosen(size, seed, number))
        numeric = xp.concat(list(loss_differences(xp, spec, start, batch, index)), axis=0)
        errors = relative_errors(xp, xp.take(state.grad, index, axis=0), numeric, scale)
        largest = float(to_host(xp.max(errors)))
        yield Difference(layer, block.symbol, size, largest, int(index.shape[0]))
