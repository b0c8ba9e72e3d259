"""Checks of whole trainings on a GPU: recorded steps against eager ones, NumPy and themselves."""

import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from benchmarks.gpu.checklist.check import (
    Check,
    Result,
    Setting,
    counted,
    held_to,
    new_lane,
    recorded,
    worst,
)
from benchmarks.gpu.checklist.runs import EPOCHS, NAMED, begun, cases, departure, recorder, same
from benchmarks.parity import ALLOWED, compare, relative
from xpmlp.devices.namespace import running, to_host, to_place
from xpmlp.random import dropout_keys, lanes, mask
from xpmlp.recording.captured import CaptureWarning
from xpmlp.step import Batch, gradient, new_state
from xpmlp.training.batches import minibatch, sequential_order, windows
from xpmlp.training.report import Report
from xpmlp.training.train import finish, train
from xpmlp.training.trainer import Trainer
from xpmlp.types import Array, Namespace

# 4. recorded against eager, and against NumPy -------------------------------------------------


def replays(on: Setting) -> Result:
    """Every case with recorded steps and without: the same bits after every epoch."""
    found = {}
    for dtype in ("float32", "float64"):
        for case in cases(on):
            eager = begun(on, case, dtype, capture=False)
            said = departure(begun(on, case, dtype), eager)
            found[f"{case.name}, {dtype}{said and ': '}{said}"] = not said
    return counted(found)


def against_numpy(dtype: str) -> Callable[[Setting], Result]:
    """Every case trained on NumPy and on the GPU."""

    def run(on: Setting) -> Result:
        found = {}
        for case in cases(on):
            seeded = case._replace(arguments={**case.arguments, "seed": on.seed})
            found[case.name] = compare(on.place, seeded, dtype).largest
        largest = float(np.max(list(found.values())))
        return held_to(largest, ALLOWED[dtype], worst(found, ALLOWED[dtype]), cases=found)

    return run


# 7. a synchronization in a step ---------------------------------------------------------------


def reading(xp: Namespace, now: Any) -> float:
    return 0.5 if float(now.step) < 1e9 else 2.0


def waiting(xp: Namespace, now: Any) -> float:
    import cupy

    cupy.cuda.get_current_stream().synchronize()
    return 0.5


def synchronized(on: Setting) -> Result:
    """A read or a wait in a step: one clean warning, eager training goes on, the next records."""
    found, said, case = {}, {}, NAMED["classes, dropout"]
    # partial: a function of the library's own would be traced once, and not called in a step
    for name, schedule in (("a read", partial(reading)), ("a wait", partial(waiting))):
        trainer = begun(on, case, "float32", schedule=schedule)
        eager = begun(on, case, "float32", schedule=schedule, capture=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CaptureWarning)
            left = departure(trainer, eager, executor="eager")
        said[name] = [str(warning.message) for warning in caught]
        why = "".join(said[name]).partition("CUDA graph: ")[2]
        found[f"{name} says so once"] = len(caught) == 1 and "captur" in why.lower()
        found[f"{name} ends the recording"] = not recorder(trainer).lane.stream.is_capturing()
        found[f"eager training goes on after {name}{left and ': '}{left}"] = not left
        left = departure(begun(on, case, "float32"), begun(on, case, "float32", capture=False))
        found[f"the next training records after {name}{left and ': '}{left}"] = not left
    result = counted(found)
    return result._replace(figures={**result.figures, "said": said})


# 8. what moves in recorded steps --------------------------------------------------------------


def slowing(members: int | None) -> Callable[[Report], Any]:
    """A callback that halves the rate, and later moves each member's by a factor of its own."""

    def touch(report: Report) -> None:
        if report.epoch == 5:
            report.scale_learning_rate(0.5)
        if report.epoch == 10:
            report.scale_learning_rate([1.0, 0.0, 3.0] if members else 3.0)

    return touch


def moving_rate(on: Setting) -> Result:
    """A schedule in the graph, and a rate that callbacks write between its replays."""
    found = {}
    for name in ("moving rate, weight decay", "three members, dropout"):
        trainer, eager, still = (
            begun(on, NAMED[name], "float32", capture=capture) for capture in (True, False, False)
        )
        left = departure(trainer, eager, slowing(trainer.settings.members))
        found[f"{name}{left and ': '}{left}"] = not left
        finish(still, [])
        found[f"{name}: the rate has an effect"] = not same(trainer, still)
    return counted(found)


def padded(trainer: Trainer) -> tuple[Batch, int]:
    """An epoch's last minibatch with numbers in its padding, and how many of its rows are real."""
    s, rows = trainer.settings, trainer.data.rows
    orders = sequential_order(s.seeds, s.lead, 0, rows)
    (gather,) = windows(
        trainer.place,
        trainer.data,
        orders,
        trainer.batch_size,
        trainer.steps_per_epoch,
        trainer.row_weights,
    )
    window = gather()
    batch, real = minibatch(window, window.steps - 1).batch, rows % trainer.batch_size
    batch.x[real:, :] = 1e3  # whatever stands there, it weighs nothing
    return batch, real


def padded_tail(on: Setting) -> Result:
    """The last batch, filled up with rows of weight 0, against its real rows alone on NumPy."""
    trainer, lane = begun(on, NAMED["silu, smoothing, adamw"], "float64"), new_lane(on.place)
    state, fast = trainer.state, trainer.step.engine
    with lane.open():
        batch, real = padded(trainer)

        def step() -> Array:
            fast.restart()
            loss = gradient(fast.xp, trainer.spec, state, batch, apply=fast.apply)
            fast.join()
            return loss

        made = recorded(lane, step)
        state.grad.fill(float("nan"))
        made.launch()
        rows = Batch(*(to_host(part)[:real] for part in batch))
        there = new_state(np, trainer.spec, trainer.step.optimizer, to_host(state.params))
        loss = gradient(np, trainer.spec, there, rows)
        far = {"loss": relative(loss, to_host(made.value))}
        for i, (ours, theirs) in enumerate(zip(there.grads, state.grads, strict=True), 1):
            far[f"dW{i}"] = relative(ours.weights, to_host(theirs.weights))
            far[f"db{i}"] = relative(ours.bias, to_host(theirs.bias))
    return held_to(float(np.max(list(far.values()))), 1e-12, worst(far, 1e-12), far=far)


def dropout_masks(on: Setting) -> Result:
    """Masks that a graph draws from its own step counter, against the CPU's, bit for bit."""
    found, xp = {}, on.place.xp
    for lead, seeds in (((), (on.seed,)), ((3,), (on.seed, on.seed + 1, on.seed + 2))):
        host, lane = dropout_keys(seeds, lead, 1), new_lane(on.place)
        with lane.open():
            keys = to_place(on.place, host, lanes(xp))
            now = to_place(on.place, np.asarray(0))

            def draw(keys: Array = keys, now: Array = now) -> Array:
                factors = mask(xp, keys, now, 0.3, (64, 33), "float32")
                now[...] = now + 1
                return factors

            made = recorded(lane, draw)
            for first in (0, 2**31 + 5):
                now[...] = first
                for t in range(first, first + 4):
                    made.launch()
                    there = to_host(made.value)
                    here = mask(np, host.astype(lanes(np)), np.asarray(t), 0.3, (64, 33), "float32")
                    found[f"{len(seeds)} seeds, step {t}"] = here.tobytes() == there.tobytes()
    return counted(found)


def resumed(on: Setting) -> Result:
    """A training that is left and taken up again, which records anew, against one that is not."""
    found = {}
    for name in ("classes, dropout", "three members, dropout", "moving rate, weight decay"):
        left, whole = (begun(on, NAMED[name], "float32") for _ in range(2))
        ways = {report.executor for report in islice(left.reports(), 7)}
        ways |= {report.executor for report in left.reports()}
        finish(whole, [])
        found[f"{name} is recorded"] = ways == {"captured"}
        found[name] = same(left, whole) and left.epoch == whole.epoch == EPOCHS
    return counted(found)


def own_arrays(on: Setting) -> Result:
    """A CuPy user's own arrays: predictions come back where X lies, and disturb no training."""
    import cupy

    rng = np.random.default_rng([on.seed, 8])
    x = rng.standard_normal((50, 4)).astype("float32")
    y = x[:, 0] ** 2
    with running(on.place):
        X, target = cupy.asarray(x), cupy.asarray(y)

        def look(report: Report) -> None:
            report.model().predict(X)

        model = train("4-8-1", X, target, epochs=40, seed=on.seed, callbacks=[look])
        alone = train("4-8-1", X, target, epochs=40, seed=on.seed)
        there, here = model.predict(X), model.predict(x)
        chosen = train("4-8-3", X, cupy.asarray(np.arange(50) % 3), loss="cross_entropy", epochs=2)
        share = chosen.predict_proba(X)
        host = train("4-8-1", x, y, epochs=3, seed=on.seed, device=on.place.name)
    found = {
        "trained where X lies": model.place.name == on.place.name,
        "by recorded steps": set(model.history["executor"]) == {"captured"},
        "predicting between epochs changes nothing":
            to_host(model.flat).tobytes() == to_host(alone.flat).tobytes(),
        "parameters are CuPy's": isinstance(model.flat, cupy.ndarray),
        "CuPy in, CuPy out": isinstance(there, cupy.ndarray) and there.shape == (50,),
        "NumPy in, NumPy out": isinstance(here, np.ndarray) and here.shape == (50,),
        "the same numbers": np.array_equal(to_host(there), here),
        "probabilities": isinstance(share, cupy.ndarray) and share.shape == (50, 3),
        "NumPy's rows on the GPU": isinstance(host.predict(x), np.ndarray),
        "its X was left alone": np.array_equal(to_host(X), x),
    }  # fmt: skip
    return counted(found)


CHECKS = (
    Check(4, "replays", replays),
    Check(4, "numpy-float64", against_numpy("float64")),
    Check(4, "numpy-float32", against_numpy("float32")),
    Check(7, "synchronized", synchronized),
    Check(8, "moving-rate", moving_rate),
    Check(8, "padded-tail", padded_tail),
    Check(8, "dropout-masks", dropout_masks),
    Check(8, "resumed", resumed),
    Check(8, "own-arrays", own_arrays),
)
