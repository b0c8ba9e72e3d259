"""Checks of training on a GPU: captured steps against eager ones and NumPy, memory, fusion, times.

Run by `scripts/gpu_check.py`, as those of `backends.gpu_checks` are.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from xpmlp.backends.gemm import WORKSPACE
from xpmlp.backends.gpu_bench import (
    FAULT,
    FIGURE,
    NOTE,
    OK,
    Captured,
    Check,
    Lane,
    Result,
    Setting,
    device_us,
    disturb,
    held_to,
    nodes,
    worst,
)
from xpmlp.backends.namespace import Place, running, to_host, to_place
from xpmlp.core.activations import ACTIVATIONS, activation
from xpmlp.core.ledger import ledger
from xpmlp.core.optimizers import OPTIMIZERS
from xpmlp.core.random import dropout_keys, lanes, mask
from xpmlp.core.spec import Spec
from xpmlp.core.training import Batch, gradient, new_state
from xpmlp.core.types import Array
from xpmlp.fit import loop
from xpmlp.fit.data import Drawn, batches, epoch_order, unshuffled
from xpmlp.fit.loop import Run, rates, train_epoch
from xpmlp.fit.parity import ALLOWED, CASES, Case, compare, relative, rows_for
from xpmlp.fit.run import assemble, train

EPOCHS = 4
NAMED = {case.name: case for case in CASES}
SMALL = Spec.parse("784-512-256-10", loss="cross_entropy")
LARGE = Spec.parse("1024-4096-4096-10", loss="cross_entropy")


# A run whose step is captured -----------------------------------------------------------------


def begun(place: Place, case: Case, dtype: str, seed: int) -> Run:
    """A case of `fit.parity` at epoch 0."""
    arguments = {"batch": 16, **case.arguments, "epochs": EPOCHS, "seed": seed}
    arguments |= rows_for(case.spec, dtype, place, arguments)
    X, y = arguments.pop("X"), arguments.pop("y")
    return assemble(case.spec, X, y, dtype=dtype, device=place.name, **arguments)


def sized(place: Place, spec: Spec, batch: int, seed: int, **arguments: Any) -> Run:
    """A run on four batches of random rows of classes, in float32."""
    rng = np.random.default_rng([seed, 11])
    X = rng.standard_normal((4 * batch, spec.n_in), dtype="float32")
    y = np.arange(len(X)) % spec.n_out
    return assemble(spec, X, y, batch=batch, seed=seed, device=place.name, **arguments)


def minibatches(run: Run) -> Iterator[Batch]:
    """The batches of the run's coming epoch, as the loop draws them."""
    s = run.settings
    ordered = epoch_order if s.shuffle else unshuffled
    orders = ordered(s.seeds, s.lead, run.epoch, run.data.rows)
    for drawn in batches(run.place, run.data, orders, run.batch):
        yield drawn.batch


def step(run: Run, batch: Batch) -> Array:
    """One update by the loop, its loss (...): what is captured."""
    value, _ = loop.step(run, Drawn(batch, 1.0, 1.0), SimpleNamespace(**run.hyper), rates(run))
    return value


def buffers(run: Run) -> tuple[Array, ...]:
    return (run.state.step, run.state.params, run.state.grad, *run.state.memory)


def copies(run: Run) -> list[Array]:
    return [run.place.xp.asarray(buffer, copy=True) for buffer in buffers(run)]


def restore(run: Run, saved: list[Array]) -> None:
    for buffer, value in zip(buffers(run), saved, strict=True):
        buffer[...] = value


def fill(static: Batch, batch: Batch) -> None:
    for buffer, value in zip(static, batch, strict=True):
        buffer[...] = value


def frozen(run: Run) -> Batch:
    """Buffers for the batches of a run, filled with its first."""
    first = next(minibatches(run))
    return Batch(*(run.place.xp.asarray(part, copy=True) for part in first))


def capture(lane: Lane, run: Run, batch: Batch) -> Captured:
    """The run's step on these buffers as a graph; the run is as it was before."""
    saved = copies(run)

    def warm() -> None:
        for _ in range(2):
            step(run, batch)
        restore(run, saved)

    return lane.capture(lambda: step(run, batch), warm)


def replay(run: Run, batch: Batch, captured: Captured) -> None:
    """An epoch of the run by replays."""
    for fresh in minibatches(run):
        fill(batch, fresh)
        captured.launch()
    run.epoch += 1


def eager(run: Run) -> None:
    """An epoch of the run by the loop."""
    with running(run.place):
        train_epoch(run)
        run.epoch += 1


def same(one: Run, other: Run) -> bool:
    """Whether two runs hold the same bits."""
    pairs = zip(buffers(one), buffers(other), strict=True)
    return all(to_host(a).tobytes() == to_host(b).tobytes() for a, b in pairs)


def counted(found: Mapping[str, bool]) -> Result:
    """All must be true; the others are named."""
    wrong = [name for name, right in found.items() if not right]
    figure = f"{len(found) - len(wrong)} of {len(found)}"
    return Result(figure, "all", FAULT if wrong else OK, ", ".join(wrong), {"found": dict(found)})


# 4. captured against eager, and against NumPy -------------------------------------------------


def replays(on: Setting) -> Result:
    """Every case by replays and by the loop: the same bits after every epoch."""
    found = {}
    for dtype in ("float32", "float64"):
        lane = Lane(on.place)
        for case in CASES[:: 5 if on.quick else 1]:
            plain = begun(on.place, case, dtype, on.seed)
            with lane.open():
                run = begun(on.place, case, dtype, on.seed)
                batch = frozen(run)
                captured = capture(lane, run, batch)
            equal = True
            for _ in range(EPOCHS):
                with lane.open():
                    replay(run, batch, captured)
                eager(plain)
                equal = equal and same(run, plain)
            moved = bool(np.isfinite(to_host(run.state.params)).all()) and int(run.state.step) > 0
            found[f"{case.name}, {dtype}"] = equal and moved
            del captured
    return counted(found)


def against_numpy(dtype: str) -> Callable[[Setting], Result]:
    """Every case trained on NumPy and on the GPU."""

    def run(on: Setting) -> Result:
        found = {}
        for case in CASES[:: 5 if on.quick else 1]:
            seeded = case._replace(arguments={**case.arguments, "seed": on.seed})
            found[case.name] = compare(on.place, seeded, dtype).largest
        largest = float(np.max(list(found.values())))
        return held_to(largest, ALLOWED[dtype], worst(found, ALLOWED[dtype]), cases=found)

    return run


# 5. memory ------------------------------------------------------------------------------------


def crowded(on: Setting) -> Result:
    """Replays with others allocating all around them, against replays left alone."""
    rng, found = np.random.default_rng([on.seed, 5]), {}
    others = [Lane(on.place) for _ in range(3)]
    for name in ("classes, dropout", "three members, dropout", "mish, l1, l2, clipped"):
        ends = []
        for noisy in (False, True):
            lane = Lane(on.place)
            with lane.open():
                run = begun(on.place, NAMED[name], "float32", on.seed)
                batch = frozen(run)
                captured = capture(lane, run, batch)
            with running(on.place):
                for _ in range(30):
                    captured.graph.launch(lane.stream)
                    if noisy:
                        disturb(others, rng)
                on.place.device.synchronize()
            ends.append(run)
            del captured
        found[name] = same(*ends)
    return counted(found)


def free_bytes(place: Place) -> int:
    """Bytes free on the card when nobody holds what could be let go of."""
    import cupy

    gc.collect()
    with running(place):
        place.device.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.cuda.runtime.memGetInfo()[0])


def one_trainer(on: Setting) -> int:
    """Make a captured run and drop it; what its pool still lends afterwards, in bytes."""
    lane = Lane(on.place)
    with lane.open():
        run = sized(on.place, SMALL, 128, on.seed)
        batch = frozen(run)
        captured = capture(lane, run, batch)
        replay(run, batch, captured)
    pool = captured.pool
    del captured
    gc.collect()
    with running(on.place):
        pool.free_all_blocks()
        return int(pool.used_bytes())


def dropped(on: Setting) -> Result:
    """Trainers that come and go leave no memory behind; the first pays for what is kept."""
    kept = [one_trainer(on)]
    before = free_bytes(on.place)
    kept += [one_trainer(on) for _ in range(4)]
    lost = before - free_bytes(on.place)
    allowed = 8 << 20
    shown = f"{lost / 2**20:.1f} MiB after 4 more trainers"
    figures = {"lost": lost, "kept": kept}
    detail = (
        f"each left up to {max(kept) / 2**20:.0f} MiB in its pool; the product's workspace of "
        f"every stream it has seen is {WORKSPACE / 2**20:.0f} MiB"
    )
    verdict = OK if lost <= allowed else FAULT
    return Result(
        shown, f"{allowed >> 20} MiB", verdict, detail if verdict == FAULT else "", figures
    )


# 6. fusion ------------------------------------------------------------------------------------


def fused(function: Callable[..., Any], *arguments: Array) -> tuple[Any, Any, str]:
    """(fused, plain, why not) of an elementwise function: the reason where it cannot be traced."""
    import cupy

    plain = function(*arguments)
    try:
        return cupy.fuse(kernel_name="checked")(function)(*arguments), plain, ""
    except Exception as error:  # the tracer raises whatever its stand-ins lack
        return None, plain, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def pair(*results: Any) -> tuple[tuple[Array, ...], ...]:
    return tuple(x if isinstance(x, tuple) else (x,) for x in results)


def apart(plain: Array, made: Array) -> float:
    """The relative difference; inf where the fused one has another dtype or shape."""
    alike = (plain.dtype, plain.shape) == (made.dtype, made.shape)
    return relative(to_host(plain), to_host(made)) if alike else float("inf")


def fusion(
    functions: Mapping[str, tuple[Callable[..., Any], tuple[Array, ...]]], allowed: float
) -> Result:
    """Each function through `cupy.fuse` against its plain version; those it cannot trace, noted."""
    far: dict[str, float] = {}
    lacking: dict[str, str] = {}
    for name, (function, arguments) in functions.items():
        made, plain, why = fused(function, *arguments)
        if why:
            lacking[name] = why
            continue
        far[name] = float(np.max([apart(a, b) for a, b in zip(*pair(plain, made), strict=True)]))
    largest = float(np.max(list(far.values()), initial=0.0))
    result = held_to(largest, allowed, worst(far, allowed), fused=far, lacking=lacking)
    figure = f"{largest:.1e}, {len(far)} of {len(functions)} fused"
    if lacking and result.verdict == OK:
        said = "; ".join(f"{name}: {why}" for name, why in lacking.items())
        return result._replace(figure=figure, verdict=NOTE, detail=f"not fused: {said}")
    return result._replace(figure=figure)


FUSED_ALLOWED = {"float32": 2e-6, "float64": 1e-14}  # a fused product and sum rounds once


def drawn(on: Setting, dtype: str, count: int, shape: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng([on.seed, 6])
    return [to_place(on.place, rng.standard_normal(shape), dtype) for _ in range(count)]


def ruled(on: Setting, name: str, dtype: str) -> tuple[Callable[..., Any], tuple[Array, ...]]:
    """An optimizer's rule as a function of arrays alone, and arrays for it."""
    xp, asked = on.place.xp, OPTIMIZERS[name]
    named = {k: v for k, v in asked.defaults.items() if k != "weight_decay"}

    def function(rate: Array, decay: Array, t: Array, *arrays: Array) -> Any:
        return asked.rule(xp, SimpleNamespace(**named, rate=rate, decay=decay), t, *arrays)

    theta, g, m, v = drawn(on, dtype, 4, (1000,))
    rate = to_place(on.place, np.full((1,), 0.01), dtype)
    decay = to_place(on.place, np.full((1000,), 0.1), dtype)
    now = to_place(on.place, np.asarray(3.0), dtype)
    # the last memory is of squares
    memory: tuple[Array, ...] = ((), (xp.abs(m),), (m, v * v))[asked.memories]
    return function, (rate, decay, now, theta, g, *memory)


def rules_fused(dtype: str) -> Callable[[Setting], Result]:
    def run(on: Setting) -> Result:
        with running(on.place):
            return fusion({n: ruled(on, n, dtype) for n in OPTIMIZERS}, FUSED_ALLOWED[dtype])

    return run


def activations_fused(dtype: str) -> Callable[[Setting], Result]:
    def run(on: Setting) -> Result:
        xp = on.place.xp
        functions: dict[str, tuple[Callable[..., Any], tuple[Array, ...]]] = {}
        with running(on.place):
            (z,) = drawn(on, dtype, 1, (64, 100))
            for name in ACTIVATIONS:
                f, slope, _ = activation(name)
                of_z: Callable[..., Any] = lambda z, f=f: f(xp, z)  # noqa: E731
                of_both: Callable[..., Any] = lambda z, a, s=slope: s(xp, z, a)  # noqa: E731
                functions[name] = (of_z, (3 * z,))
                functions[f"{name}'s slope"] = (of_both, (3 * z, f(xp, 3 * z)))
            return fusion(functions, FUSED_ALLOWED[dtype])

    return run


def kernels(on: Setting) -> Result:
    """What a captured training step consists of, counted in its graph."""
    lane = Lane(on.place)
    with lane.open():
        run = sized(on.place, SMALL, 128, on.seed)
        found = nodes(capture(lane, run, frozen(run)).graph)
    shown = ", ".join(f"{count} {kind}" for kind, count in found.most_common())
    return Result(f"{shown} nodes a step", verdict=FIGURE, figures=dict(found))


# 7. a synchronization inside a capture --------------------------------------------------------


def failing(lane: Lane, run: Run, batch: Batch, fault: Callable[[], Any]) -> str:
    """What a capture of the run's step with a fault in it says."""

    def broken() -> None:
        step(run, batch)
        fault()

    saved = copies(run)

    def warm() -> None:
        step(run, batch)
        restore(run, saved)

    try:
        lane.capture(broken, warm)
    except Exception as error:  # which one it is depends on what was called
        return str(error)
    return "nothing"


def synchronized(on: Setting) -> Result:
    """A read and a synchronization inside a capture: a clean message, and training goes on."""
    found, said = {}, {}
    case = NAMED["classes, dropout"]
    for name in ("a read", "a synchronization"):
        plain, lane = begun(on.place, case, "float32", on.seed), Lane(on.place)
        with lane.open():
            run = begun(on.place, case, "float32", on.seed)
            batch = frozen(run)
            fault = lane.stream.synchronize if name != "a read" else run.state.step.get
            said[name] = failing(lane, run, batch, fault)
            found[f"{name} says so"] = "captur" in said[name].lower()
            found[f"{name} ends the capture"] = not lane.stream.is_capturing()
            train_epoch(run)  # on the same stream
            run.epoch += 1
        eager(plain)
        found[f"eager training goes on after {name}"] = same(run, plain)
        with lane.open():
            captured = capture(lane, run, batch)
            replay(run, batch, captured)
        eager(plain)
        found[f"capture works again after {name}"] = same(run, plain)
    result = counted(found)
    return result._replace(figures={**result.figures, "said": said})


# 8. what moves inside a graph -----------------------------------------------------------------


def moving_rate(on: Setting) -> Result:
    """A schedule inside the graph, and a rate written between its replays."""
    found = {}
    for name in ("moving rate, weight decay", "three members, dropout"):
        plain, lane = begun(on.place, NAMED[name], "float32", on.seed), Lane(on.place)
        with lane.open():
            run = begun(on.place, NAMED[name], "float32", on.seed)
            batch = frozen(run)
            captured = capture(lane, run, batch)
        still = begun(on.place, NAMED[name], "float32", on.seed)
        for factor in (1.0, 0.5, 0.0):
            with lane.open():
                run.throttle[...] = factor
                replay(run, batch, captured)
            with running(on.place):
                plain.throttle[...] = factor
            eager(plain)
            eager(still)
            found[f"{name}, rate times {factor:g}"] = same(run, plain)
        found[f"{name}: the rate has an effect"] = not same(run, still)
    return counted(found)


def padded_tail(on: Setting) -> Result:
    """The last batch, filled up with rows of weight 0, against its real rows alone on NumPy."""
    case, lane = NAMED["silu, smoothing, adamw"], Lane(on.place)
    with lane.open():
        run = begun(on.place, case, "float64", on.seed)
        *_, tail = minibatches(run)
        batch = Batch(*(run.place.xp.asarray(part, copy=True) for part in tail))
        real = run.data.rows % run.batch
        batch.x[real:, :] = 1e3  # whatever stands there, it weighs nothing
        xp, state = run.place.xp, run.state
        captured = lane.capture(lambda: gradient(xp, run.spec, state, batch))
        state.grad.fill(float("nan"))
        captured.launch()
        rows = Batch(*(to_host(part)[:real] for part in batch))
        there = new_state(np, run.spec, run.optimizer, to_host(state.params))
        loss = gradient(np, run.spec, there, rows)
        far = {"loss": relative(loss, to_host(captured.value))}
        for i, (ours, theirs) in enumerate(zip(there.grads, state.grads, strict=True), 1):
            far[f"dW{i}"] = relative(ours.weights, to_host(theirs.weights))
            far[f"db{i}"] = relative(ours.bias, to_host(theirs.bias))
    return held_to(float(np.max(list(far.values()))), 1e-12, worst(far, 1e-12), far=far)


def dropout_masks(on: Setting) -> Result:
    """Masks that a graph draws from its own step counter, against the CPU's, bit for bit."""
    found, xp = {}, on.place.xp
    for lead, seeds in (((), (on.seed,)), ((3,), (on.seed, on.seed + 1, on.seed + 2))):
        host, lane = dropout_keys(seeds, lead, 1), Lane(on.place)
        with lane.open():
            keys = to_place(on.place, host, lanes(xp))
            now = to_place(on.place, np.asarray(0))

            def draw(keys: Array = keys, now: Array = now) -> Array:
                factors = mask(xp, keys, now, 0.3, (64, 33), xp.float32)
                now[...] = now + 1
                return factors

            captured = lane.capture(draw)
            for first in (0, 2**31 + 5):
                now[...] = first
                for t in range(first, first + 4):
                    captured.launch()
                    there = to_host(captured.value)
                    here = mask(
                        np, host.astype(lanes(np)), np.asarray(t), 0.3, (64, 33), np.float32
                    )
                    found[f"{len(seeds)} seeds, step {t}"] = here.tobytes() == there.tobytes()
    return counted(found)


def own_arrays(on: Setting) -> Result:
    """A CuPy user's own arrays: predictions come back where X lies."""
    import cupy

    rng = np.random.default_rng([on.seed, 8])
    x = rng.standard_normal((50, 4)).astype("float32")
    y = x[:, 0] ** 2
    with running(on.place):
        X, target = cupy.asarray(x), cupy.asarray(y)
        model = train("4-8-1", X, target, epochs=3, seed=on.seed)
        there, here = model.predict(X), model.predict(x)
        chosen = train("4-8-3", X, cupy.asarray(np.arange(50) % 3), loss="cross_entropy", epochs=2)
        share = chosen.predict_proba(X)
        host = train("4-8-1", x, y, epochs=3, seed=on.seed, device=on.place.name)
    found = {
        "trained where X lies": model.place.name == on.place.name,
        "parameters are CuPy's": isinstance(model.flat, cupy.ndarray),
        "CuPy in, CuPy out": isinstance(there, cupy.ndarray) and there.shape == (50,),
        "NumPy in, NumPy out": isinstance(here, np.ndarray) and here.shape == (50,),
        "the same numbers": np.array_equal(to_host(there), here),
        "probabilities": isinstance(share, cupy.ndarray) and share.shape == (50, 3),
        "NumPy's rows on the GPU": isinstance(host.predict(x), np.ndarray),
        "its X was left alone": np.array_equal(to_host(X), x),
    }
    return counted(found)


# 11. times ------------------------------------------------------------------------------------


def timed(on: Setting, spec: Spec, batch: int, calls: int, **arguments: Any) -> Result:
    """Microseconds of a training step, eager and captured, and the rate of its products."""
    lane = Lane(on.place)
    with lane.open():
        run = sized(on.place, spec, batch, on.seed, **arguments)
        static = frozen(run)
        loose = device_us(lambda: step(run, static), calls)
        captured = capture(lane, run, static)
        tight = device_us(captured.launch, 5 * calls)
        finite = bool(np.isfinite(to_host(captured.value)).all())
    rate = ledger(spec, batch=batch).operations / tight / 1e6  # TFLOP/s
    figures = {"eager": loose, "captured": tight, "tflops": rate}
    shown = f"eager {loose:.0f} us, captured {tight:.0f} us, {rate:.1f} TFLOP/s"
    return Result(shown, verdict=FIGURE if finite else FAULT, figures=figures)


def small_step(on: Setting) -> Result:
    return timed(on, SMALL, 128, 20)


def large_step(on: Setting) -> Result:
    return timed(on, LARGE, 1024 if on.quick else 8192, 5, precision="tf32")


def flat_memory(on: Setting) -> Result:
    """Replays take no memory: the pool and the card before and after many of them."""
    count, lane, allowed = 1000 if on.quick else 10_000, Lane(on.place), 2 << 20
    with lane.open():
        run = sized(on.place, SMALL, 128, on.seed)
        captured = capture(lane, run, frozen(run))
        for _ in range(500):
            captured.launch()  # the driver's own queues grow with the first
        before, pooled = free_bytes(on.place), captured.pool.total_bytes()
        for _ in range(count):
            captured.launch()
        lost = before - free_bytes(on.place)
        grown = captured.pool.total_bytes() - pooled
        steps = int(run.state.step)
    right = lost <= allowed and grown == 0 and steps == count + 500
    figures = {"lost": lost, "grown": grown, "steps": steps}
    shown = f"{max(lost, 0)} bytes of the card, {grown} of the pool after {count} replays"
    return Result(shown, "2 MiB, 0", OK if right else FAULT, figures=figures)


CHECKS = (
    Check(4, "replays", replays),
    Check(4, "numpy-float64", against_numpy("float64")),
    Check(4, "numpy-float32", against_numpy("float32")),
    Check(5, "crowded", crowded),
    Check(5, "dropped", dropped),
    Check(6, "fused-rules-float32", rules_fused("float32")),
    Check(6, "fused-rules-float64", rules_fused("float64")),
    Check(6, "fused-activations", activations_fused("float32")),
    Check(6, "kernels", kernels),
    Check(7, "synchronized", synchronized),
    Check(8, "moving-rate", moving_rate),
    Check(8, "padded-tail", padded_tail),
    Check(8, "dropout-masks", dropout_masks),
    Check(8, "own-arrays", own_arrays),
    Check(11, "small-step", small_step),
    Check(11, "large-step", large_step),
    Check(11, "flat-memory", flat_memory),
)
