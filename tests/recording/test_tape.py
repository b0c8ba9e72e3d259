"""A step noted as a list of calls: what a replay computes, and what is not noted."""

import numpy as np
import pytest

from xpmlp.devices.namespace import CPU
from xpmlp.losses import loss
from xpmlp.recording.engine import MIN_RECORDED_STEPS, fastest_engine
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.recording.tape import Tape, TapedArray, UntapeableError
from xpmlp.spec import Spec
from xpmlp.training.train import make_trainer


def noted(step, *held):
    """A step(xp, minibatch, *held) as a replay, which it returns; held is as the step left it."""
    tape = Tape(NumpyBackend())
    first = np.array([1.0, 2.0, 3.0])
    step(tape.xp, TapedArray(tape, first, "m_x"), *map(tape.wrap, held))
    return tape.function(["m_x"]), tape


def check(step, *held):
    """A step noted and replayed against the step itself, on other minibatches."""
    own = [one.copy() for one in held]
    replay, tape = noted(step, *held)
    step(np, np.array([1.0, 2.0, 3.0]), *own)
    for x in ([1.5, -2.0, 0.0], [7.0, 8.0, 9.0]):
        replay(np.array(x))
        step(np, np.array(x), *own)
        for a, b in zip(held, own, strict=True):
            assert a.tobytes() == b.tobytes()
    return tape


def test_a_write_is_made_by_the_line_that_computes_it():
    def step(xp, x, total):
        total[...] = total + x * 2

    assert len(check(step, np.zeros(3)).lines) == 2


def test_what_is_read_in_between_is_not_written_over():
    def step(xp, x, total, before):
        fresh = total + x
        before[...] = total
        total[...] = fresh

    check(step, np.zeros(3), np.zeros(3))


def test_what_parts_were_taken_of_stays_where_it_is():
    def step(xp, x, total, last):
        fresh = total + x
        part = fresh[2:]
        total[...] = fresh
        last[...] = part * 2

    check(step, np.zeros(3), np.zeros(1))


def test_a_value_that_is_used_after_it_was_written_is_the_written_one():
    def step(xp, x, total, double):
        fresh = total + x
        total[...] = fresh
        double[...] = fresh + fresh

    check(step, np.zeros(3), np.zeros(3))


def test_products_reductions_and_choices():
    def step(xp, x, table, found):
        row = xp.reshape(table, (1, 9))[..., :3] + x
        product = xp.matmul(row, table)
        top = xp.max(product, axis=-1, keepdims=True)
        near = xp.where(product < top, product - top, xp.zeros_like(product))
        both = xp.concat([near, xp.astype(near < 0, near.dtype)], axis=-1)
        found[...] = xp.sum(both, axis=-2, keepdims=True) + xp.sqrt(xp.abs(-top)) ** 2

    check(step, np.arange(9.0).reshape(3, 3), np.zeros((1, 6)))


def test_an_empty_array_is_filled_part_by_part():
    def step(xp, x, found):
        columns = xp.empty_like(found)
        for i in range(3):
            columns[..., i : i + 1] = xp.maximum(x[..., i : i + 1], -x[..., i : i + 1]) * i
        whole = xp.empty(3)
        whole[...] = xp.sum(columns, axis=-1)
        columns[..., :1] = x[..., 1:2]  # after it was read
        found[...] = columns + xp.reshape(whole, (3, 1))

    check(step, np.ones((3, 3)))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda xp, x, kept: float(x[0]), "reads a value"),
        (lambda xp, x, kept: x if x[0] > 1 else kept, "reads a value"),
        (lambda xp, x, kept: np.asarray(x), "reads a value"),
        (lambda xp, x, kept: x + np.ones(3), "makes an array of its own"),
        (lambda xp, x, kept: kept.__setitem__(slice(1), 0.0), "a part of an array"),
        (lambda xp, x, kept: xp.zeros_like(kept).__setitem__(..., x), "an array of its own"),
        (lambda xp, x, kept: xp.zeros_like(kept).__setitem__(slice(1), x), "a part of an array"),
        (lambda xp, x, kept: xp.reshape(x, (3, 1)), "another shape"),
    ],
)
def test_what_is_not_noted(what, said):
    with pytest.raises(UntapeableError, match=said):
        noted(what, np.zeros(3))


def yours(xp, score, target):
    e = score - target
    return xp.sum(e * e, axis=-1), 2 * e


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        (Spec.parse("4-5-2", loss=yours), {}),
        (Spec.parse("4-5-2", activation=[lambda xp, z: (xp.sin(z), xp.cos(z))]), {}),
        (Spec.parse("4-5-2"), {"schedule": lambda xp, now: 1 / (1 + now.epoch)}),
        (
            Spec.parse("4-5-2"),
            {"optimizer": lambda xp, h, t, theta, g: (theta - h.learning_rate * g,)},
        ),
        (Spec.parse("4-5-2"), {"schedule": lambda xp, now: 0.5 if float(now.step) < 4 else 0.1}),
    ],
)
def test_functions_of_yours_are_called_at_every_step(spec, more, rng):
    X, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    ends = []
    for steps in (0, MIN_RECORDED_STEPS):
        run = make_trainer(spec, X, y, epochs=5, batch_size=6, **more)
        run.step.engine = fastest_engine(CPU, steps)
        assert {report.executor for report in run.reports()} == {"eager"}
        ends.append(run.state.params)
    assert ends[0].tobytes() == ends[1].tobytes()


def test_the_losses_of_an_estimator_are_noted(rng):
    from xpmlp.training.metrics import reported

    spec = Spec.parse("4-5-3", loss=reported("cross_entropy"))
    assert loss(spec.loss).name is None
    run = make_trainer(spec, rng.normal(size=(20, 4)), np.eye(3)[np.arange(20) % 3], epochs=20)
    run.step.engine = fastest_engine(CPU, MIN_RECORDED_STEPS)
    assert {report.executor for report in run.reports()} == {"replayed"}


def test_an_interruption_while_a_step_is_noted_leaves_it_undone(rng, monkeypatch):
    run = make_trainer(
        "4-5-2", rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), epochs=5, clip=1.0
    )
    run.step.engine = fastest_engine(CPU, MIN_RECORDED_STEPS)
    before = [buffer.copy() for buffer in run.step.buffers[:2]]

    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpmlp.training.training_step.update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run.reports())
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, run.step.buffers, strict=False))
    assert not run.state.grad.any()
