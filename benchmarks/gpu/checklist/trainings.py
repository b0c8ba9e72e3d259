"""Checks of whole trainings on a GPU: recorded steps against eager steps and NumPy."""

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
    check_all,
    check_bound,
    new_stream,
    over_bound,
    record,
)
from benchmarks.gpu.checklist.runs import (
    CASE_BY_NAME,
    EPOCHS,
    case_trainer,
    cases,
    first_difference,
    recorder,
    same_bits,
)
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


def labelled(name: str, difference: str) -> str:
    """The name of a condition, with the difference that it failed for, if any."""
    return f"{name}: {difference}" if difference else name


def replays(env: Setting) -> Result:
    """Every case has the same bits after every epoch with recorded and with eager steps."""
    conditions = {}
    for dtype in ("float32", "float64"):
        for case in cases(env):
            eager = case_trainer(env, case, dtype, capture=False)
            difference = first_difference(case_trainer(env, case, dtype), eager)
            conditions[labelled(f"{case.name}, {dtype}", difference)] = not difference
    return check_all(conditions)


def against_numpy(dtype: str) -> Callable[[Setting], Result]:
    """The check of every case trained on NumPy and on the GPU."""

    def run(env: Setting) -> Result:
        errors = {}
        for case in cases(env):
            seeded = case._replace(arguments={**case.arguments, "seed": env.seed})
            errors[case.name] = compare(env.place, seeded, dtype).largest
        largest, allowed = float(np.max(list(errors.values()))), ALLOWED[dtype]
        return check_bound(largest, allowed, over_bound(errors, allowed), cases=errors)

    return run


# 7. a synchronization in a step ---------------------------------------------------------------


def read_step(xp: Namespace, now: Any) -> float:
    return 0.5 if float(now.step) < 1e9 else 2.0


def wait_for_stream(xp: Namespace, now: Any) -> float:
    import cupy

    cupy.cuda.get_current_stream().synchronize()
    return 0.5


def synchronized(env: Setting) -> Result:
    """A read or a wait in a step gives one warning and eager steps; the next training records."""
    conditions, messages, case = {}, {}, CASE_BY_NAME["classes, dropout"]
    # partial: a plain function would be traced once, and not called in a step
    for name, schedule in (("a read", partial(read_step)), ("a wait", partial(wait_for_stream))):
        trainer = case_trainer(env, case, "float32", schedule=schedule)
        eager = case_trainer(env, case, "float32", schedule=schedule, capture=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CaptureWarning)
            difference = first_difference(trainer, eager, executor="eager")
        messages[name] = [str(warning.message) for warning in caught]
        reason = "".join(messages[name]).partition("CUDA graph: ")[2]
        conditions[f"{name} says so once"] = len(caught) == 1 and "captur" in reason.lower()
        stream = recorder(trainer).graph_stream.stream
        conditions[f"{name} ends the recording"] = not stream.is_capturing()
        conditions[labelled(f"eager training goes on after {name}", difference)] = not difference
        eager = case_trainer(env, case, "float32", capture=False)
        difference = first_difference(case_trainer(env, case, "float32"), eager)
        conditions[labelled(f"the next training records after {name}", difference)] = not difference
    result = check_all(conditions)
    return result._replace(figures={**result.figures, "messages": messages})


# 8. what changes in recorded steps ------------------------------------------------------------


def scale_rates(members: int | None) -> Callable[[Report], Any]:
    """A callback that halves the learning rate, and later scales each member's differently."""

    def callback(report: Report) -> None:
        if report.epoch == 5:
            report.scale_learning_rate(0.5)
        if report.epoch == 10:
            report.scale_learning_rate([1.0, 0.0, 3.0] if members else 3.0)

    return callback


def moving_rate(env: Setting) -> Result:
    """A schedule in the graph, and a rate that callbacks change between its replays."""
    conditions = {}
    for name in ("moving rate, weight decay", "three members, dropout"):
        trainer, eager, unscaled = (
            case_trainer(env, CASE_BY_NAME[name], "float32", capture=capture)
            for capture in (True, False, False)
        )
        difference = first_difference(trainer, eager, scale_rates(trainer.settings.members))
        conditions[labelled(name, difference)] = not difference
        finish(unscaled, [])
        conditions[f"{name}: the rate has an effect"] = not same_bits(trainer, unscaled)
    return check_all(conditions)


def last_batch(trainer: Trainer) -> tuple[Batch, int]:
    """An epoch's last minibatch with large numbers as padding, and the number of real rows."""
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
    batch.x[real:, :] = 1e3  # padding has weight 0, whatever its values
    return batch, real


def padded_tail(env: Setting) -> Result:
    """The last batch, padded with rows of weight 0, against only its real rows on NumPy."""
    trainer = case_trainer(env, CASE_BY_NAME["silu, smoothing, adamw"], "float64")
    stream = new_stream(env.place)
    state, engine = trainer.state, trainer.step.engine
    with stream.open():
        batch, real = last_batch(trainer)

        def step() -> Array:
            engine.restart()
            loss = gradient(engine.xp, trainer.spec, state, batch, apply=engine.apply)
            engine.join()
            return loss

        graph = record(stream, step)
        state.grad.fill(float("nan"))
        graph.launch()
        rows = Batch(*(to_host(part)[:real] for part in batch))
        expected = new_state(np, trainer.spec, trainer.step.optimizer, to_host(state.params))
        loss = gradient(np, trainer.spec, expected, rows)
        errors = {"loss": relative(loss, to_host(graph.value))}
        for i, (cpu, gpu) in enumerate(zip(expected.grads, state.grads, strict=True), 1):
            errors[f"dW{i}"] = relative(cpu.weights, to_host(gpu.weights))
            errors[f"db{i}"] = relative(cpu.bias, to_host(gpu.bias))
    largest = float(np.max(list(errors.values())))
    return check_bound(largest, 1e-12, over_bound(errors, 1e-12), errors=errors)


def dropout_masks(env: Setting) -> Result:
    """Masks that a graph draws from its step counter have the same bits as on the CPU."""
    conditions, xp = {}, env.place.xp
    for lead, seeds in (((), (env.seed,)), ((3,), (env.seed, env.seed + 1, env.seed + 2))):
        host, stream = dropout_keys(seeds, lead, 1), new_stream(env.place)
        with stream.open():
            keys = to_place(env.place, host, lanes(xp))
            now = to_place(env.place, np.asarray(0))

            def draw(keys: Array = keys, now: Array = now) -> Array:
                factors = mask(xp, keys, now, 0.3, (64, 33), "float32")
                now[...] = now + 1
                return factors

            graph = record(stream, draw)
            for first in (0, 2**31 + 5):
                now[...] = first
                for t in range(first, first + 4):
                    graph.launch()
                    gpu = to_host(graph.value)
                    cpu = mask(np, host.astype(lanes(np)), np.asarray(t), 0.3, (64, 33), "float32")
                    conditions[f"{len(seeds)} seeds, step {t}"] = cpu.tobytes() == gpu.tobytes()
    return check_all(conditions)


def resumed(env: Setting) -> Result:
    """An interrupted training, which resumes and records again, against an uninterrupted one."""
    conditions = {}
    for name in ("classes, dropout", "three members, dropout", "moving rate, weight decay"):
        trainer, reference = (case_trainer(env, CASE_BY_NAME[name], "float32") for _ in range(2))
        executors = {report.executor for report in islice(trainer.reports(), 7)}
        executors |= {report.executor for report in trainer.reports()}
        finish(reference, [])
        conditions[f"{name} is recorded"] = executors == {"captured"}
        finished = trainer.epoch == reference.epoch == EPOCHS
        conditions[name] = finished and same_bits(trainer, reference)
    return check_all(conditions)


def own_arrays(env: Setting) -> Result:
    """A user's CuPy arrays: predictions are on the device of X and do not change the training."""
    import cupy

    rng = np.random.default_rng([env.seed, 8])
    x = rng.standard_normal((50, 4)).astype("float32")
    y = x[:, 0] ** 2
    with running(env.place):
        X, target = cupy.asarray(x), cupy.asarray(y)

        def predict(report: Report) -> None:
            report.model().predict(X)

        model = train("4-8-1", X, target, epochs=40, seed=env.seed, callbacks=[predict])
        reference = train("4-8-1", X, target, epochs=40, seed=env.seed)
        on_gpu, on_host = model.predict(X), model.predict(x)
        classifier = train(
            "4-8-3", X, cupy.asarray(np.arange(50) % 3), loss="cross_entropy", epochs=2
        )
        probabilities = classifier.predict_proba(X)
        from_host = train("4-8-1", x, y, epochs=3, seed=env.seed, device=env.place.name)
    conditions = {
        "trained where X lies": model.place.name == env.place.name,
        "by recorded steps": set(model.history["executor"]) == {"captured"},
        "predicting between epochs changes nothing":
            to_host(model.flat).tobytes() == to_host(reference.flat).tobytes(),
        "parameters are CuPy's": isinstance(model.flat, cupy.ndarray),
        "CuPy in, CuPy out": isinstance(on_gpu, cupy.ndarray) and on_gpu.shape == (50,),
        "NumPy in, NumPy out": isinstance(on_host, np.ndarray) and on_host.shape == (50,),
        "the same numbers": np.array_equal(to_host(on_gpu), on_host),
        "probabilities": isinstance(probabilities, cupy.ndarray)
            and probabilities.shape == (50, 3),
        "NumPy's rows on the GPU": isinstance(from_host.predict(x), np.ndarray),
        "its X was left alone": np.array_equal(to_host(X), x),
    }  # fmt: skip
    return check_all(conditions)


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
