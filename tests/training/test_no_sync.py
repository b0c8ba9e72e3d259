"""No step reads a value from the device, which a CUDA graph could not capture."""

import pytest
from support.epochs import run_steps

from benchmarks.parity import CASES, Case, rows_for
from xpmlp.spec import Spec
from xpmlp.training.train import make_trainer

READS = ("__bool__", "__float__", "__int__", "__index__", "__iter__", "__array__", "__dlpack__")


def epoch_run(place, case: Case):
    """A trainer of a parity case at `place`, before its first epoch."""
    arguments = {"batch_size": 16, **case.arguments, "epochs": 2}
    arguments |= rows_for(case.spec, "float32", place, arguments)
    return make_trainer(
        case.spec, arguments.pop("X"), arguments.pop("y"), dtype="float32", **arguments
    )


def forbid(monkeypatch, array_type) -> None:
    """Make every read of an array's value on the host raise."""

    def refuse(self, *arguments, **keywords):
        raise AssertionError("a value was read from the device inside a step")

    for name in READS:
        if hasattr(array_type, name):
            monkeypatch.setattr(array_type, name, refuse)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_epoch_of_steps_reads_nothing(case, place_named, monkeypatch):
    place = place_named("strict-device1")
    run = epoch_run(place, case)
    with monkeypatch.context() as patch:
        forbid(patch, type(run.state.params))
        run_steps(run)
    assert float(place.xp.max(run.step.running_loss)) > 0
    assert float(place.xp.max(run.step.grad_norm)) > 0


def test_the_guard_detects_a_read(place_named, monkeypatch):
    place = place_named("strict-device1")

    def peeking(xp, now):
        return xp.ones_like(now.step) if float(now.step) < 10 else xp.zeros_like(now.step)

    run = epoch_run(place, Case("peek", Spec.parse("5-4-1"), {"schedule": peeking}))
    with monkeypatch.context() as patch:
        forbid(patch, type(run.state.params))
        with pytest.raises(AssertionError, match="inside a step"):
            run_steps(run)
