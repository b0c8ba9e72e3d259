"""Timing steps on a GPU: each variant is timed, and none is taken for another."""

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
def test_every_variant_is_timed(name, check):
    row = check(CHECKS[name])
    assert row.verdict == FIGURE, row
    times = [row.figures[name] for name in ("recorded", "eager", "unfused")]
    assert all(variant["epoch"] > 0 and variant["step"] > 0 for variant in times)
    assert row.figures["tflops"] > 0


def test_eager_steps_are_not_taken_for_recorded_ones(check, card, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.engine.MIN_RECORDED_STEPS", 10**9)
    row = check(CHECKS["small-step"])
    assert row.verdict == FAULT
    assert "recorded: eager" in row.detail


def test_a_loss_that_is_not_finite_is_a_fault(check, card, monkeypatch):
    vecdot = CudaBackend.vecdot
    monkeypatch.setattr(CudaBackend, "vecdot", lambda self, a, b: vecdot(self, a, b) * float("nan"))
    assert check(CHECKS["small-step"]).verdict == FAULT
