"""A step taped as a list of calls: what a replay computes, and what cannot be taped."""

import numpy as np
import pytest

from xpmlp.devices.namespace import CPU
from xpmlp.losses import loss
from xpmlp.recording.engine import MIN_RECORDED_STEPS, fastest_engine
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.recording.tape import Tape, TapedArray, UntapeableError
from xpmlp.spec import Spec
from xpmlp.training.train import make_trainer


def record(step, *arrays):
    """Tape step(xp, minibatch, *arrays), which runs once, and return its replay and the tape."""
    tape = Tape(NumpyBackend())
    first = np.array([1.0, 2.0, 3.0])
    step(tape.xp, TapedArray(tape, first, "m_x"), *map(tape.wrap, arrays))
    return tape.function(["m_x"]), tape


def check_replay(step, *arrays):
    """Compare the replay of a step with the step itself, on other minibatches."""
    copies = [array.copy() for array in arrays]
    replay, tape = record(step, *arrays)
    step(np, np.array([1.0, 2.0, 3.0]), *copies)
    for x in ([1.5, -2.0, 0.0], [7.0, 8.0, 9.0]):
        replay(np.array(x))
        step(np, np.array(x), *copies)
        for a, b in zip(arrays, copies, strict=True):
            assert a.tobytes() == b.tobytes()
    return tape


def test_a_write_is_merged_into_the_line_that_computes_it():
    def step(xp, x, total):
        total[...] = total + x * 2

    assert len(check_replay(step, np.zeros(3)).lines) == 2


def test_an_array_that_is_read_in_between_is_not_overwritten():
    def step(xp, x, total, previous):
        new_total = total + x
        previous[...] = total
        total[...] = new_total

    check_replay(step, np.zeros(3), np.zeros(3))


def test_an_array_with_views_keeps_its_buffer():
    def step(xp, x, total, last):
        new_total = total + x
        part = new_total[2:]
        total[...] = new_total
        last[...] = part * 2

    check_replay(step, np.zeros(3), np.zeros(1))


def test_a_value_may_be_used_after_it_was_written():
    def step(xp, x, total, double):
        new_total = total + x
        total[...] = new_total
        double[...] = new_total + new_total

    check_replay(step, np.zeros(3), np.zeros(3))


def test_products_reductions_and_where():
    def step(xp, x, table, out):
        row = xp.reshape(table, (1, 9))[..., :3] + x
        product = xp.matmul(row, table)
        top = xp.max(product, axis=-1, keepdims=True)
        shifted = xp.where(product < top, product - top, xp.zeros_like(product))
        columns = xp.concat([shifted, xp.astype(shifted < 0, shifted.dtype)], axis=-1)
        out[...] = xp.sum(columns, axis=-2, keepdims=True) + xp.sqrt(xp.abs(-top)) ** 2

    check_replay(step, np.arange(9.0).reshape(3, 3), np.zeros((1, 6)))


def test_an_empty_array_may_be_filled_by_slices():
    def step(xp, x, out):
        columns = xp.empty_like(out)
        for i in range(3):
            columns[..., i : i + 1] = xp.maximum(x[..., i : i + 1], -x[..., i : i + 1]) * i
        whole = xp.empty(3)
        whole[...] = xp.sum(columns, axis=-1)
        columns[..., :1] = x[..., 1:2]  # after columns was read
        out[...] = columns + xp.reshape(whole, (3, 1))

    check_replay(step, np.ones((3, 3)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda xp, x, total: float(x[0]), "reads a value"),
        (lambda xp, x, total: x if x[0] > 1 else total, "reads a value"),
        (lambda xp, x, total: np.asarray(x), "reads a value"),
        (lambda xp, x, total: x + np.ones(3), "makes an array of its own"),
        (lambda xp, x, total: total.__setitem__(slice(1), 0.0), "a part of an array"),
        (lambda xp, x, total: xp.zeros_like(total).__setitem__(..., x), "an array of its own"),
        (lambda xp, x, total: xp.zeros_like(total).__setitem__(slice(1), x), "a part of an array"),
        (lambda xp, x, total: xp.reshape(x, (3, 1)), "another shape"),
    ],
)
def test_untapeable_steps_raise(step, message):
    with pytest.raises(UntapeableError, match=message):
        record(step, np.zeros(3))


def yours(xp, score, target):
    e = score - target
    return xp.sum(e * e, axis=-1), 2 * e


@pytest.mark.parametrize(
    ("spec", "options"),
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
def test_user_functions_are_called_at_every_step(spec, options, rng):
    X, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    params = []
    for steps in (0, MIN_RECORDED_STEPS):
        run = make_trainer(spec, X, y, epochs=5, batch_size=6, **options)
        run.step.engine = fastest_engine(CPU, steps)
        assert {report.executor for report in run.reports()} == {"eager"}
        params.append(run.state.params)
    assert params[0].tobytes() == params[1].tobytes()


def test_the_losses_of_estimators_are_taped(rng):
    from xpmlp.training.metrics import reported

    spec = Spec.parse("4-5-3", loss=reported("cross_entropy"))
    assert loss(spec.loss).name is None
    run = make_trainer(spec, rng.normal(size=(20, 4)), np.eye(3)[np.arange(20) % 3], epochs=20)
    run.step.engine = fastest_engine(CPU, MIN_RECORDED_STEPS)
    assert {report.executor for report in run.reports()} == {"replayed"}


def test_an_interruption_while_taping_leaves_the_state_unchanged(rng, monkeypatch):
    run = make_trainer(
        "4-5-2", rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), epochs=5, clip=1.0
    )
    run.step.engine = fastest_engine(CPU, MIN_RECORDED_STEPS)
    before = [buffer.copy() for buffer in run.step.buffers[:2]]

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpmlp.training.training_step.update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run.reports())
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, run.step.buffers, strict=False))
    assert not run.state.grad.any()
