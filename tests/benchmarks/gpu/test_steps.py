"""Times of steps on a GPU: that each way is timed, and that none is taken for another."""

import pytest

from benchmarks.gpu.checklist import steps
from benchmarks.gpu.checklist.check import FAULT, FIGURE
from xpmlp.recording.cuda_writer import CudaBackend
from xpmlp.spec import Spec

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in steps.CHECKS}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, sizes, loss in (
        ("SMALL", "6-5-4", "cross_entropy"),
        ("LARGE", "5-4-3", "cross_entropy"),
        ("MANY", "5-4-1", "squared_error"),
    ):
        monkeypatch.setattr(steps, name, Spec.parse(sizes, loss=loss))


@pytest.mark.parametrize("name", CHECKS)
def test_each_way_is_timed(name, check):
    row = check(CHECKS[name])
    assert row.verdict == FIGURE, row
    ways = {name: row.figures[name] for name in ("recorded", "eager", "unfused")}
    assert all(way["epoch"] > 0 and way["step"] > 0 for way in ways.values())
    assert row.figures["tflops"] > 0


def test_eager_steps_are_not_taken_for_recorded_ones(check, card, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.engine.MIN_RECORDED_STEPS", 10**9)
    row = check(CHECKS["small-step"])
    assert row.verdict == FAULT
    assert "recorded: eager" in row.detail


def test_a_training_that_is_no_number_gets_no_time(check, card, monkeypatch):
    vecdot = CudaBackend.vecdot
    monkeypatch.setattr(CudaBackend, "vecdot", lambda of, a, b: vecdot(of, a, b) * float("nan"))
    assert check(CHECKS["small-step"]).verdict == FAULT
