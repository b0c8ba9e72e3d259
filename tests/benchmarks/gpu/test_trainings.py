"""The checks of trainings pass on a GPU, and each detects its faults."""

import numpy as np
import pytest
from support.standin.card import CAPTURE_INVALIDATED, CAPTURE_UNSUPPORTED

from benchmarks.gpu.checklist import runs, trainings
from benchmarks.gpu.checklist.check import FAULT, OK
from benchmarks.parity import CASES
from xpmlp.devices.namespace import to_host
from xpmlp.recording.captured import CudaGraphExecutor
from xpmlp.recording.engine import MIN_RECORDED_STEPS
from xpmlp.training.model import Model
from xpmlp.training.trainer import Trainer
from xpmlp.training.training_step import TrainingStep

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in trainings.CHECKS}


@pytest.fixture(autouse=True)
def few_cases(request, monkeypatch):
    """Fewer cases, and the fewest epochs that are captured, for speed; test_capture.py has all
    cases."""
    count = 1 if "fault" in request.node.name else 2
    monkeypatch.setattr(trainings, "cases", lambda on: CASES[::5][:count])
    for module in (runs, trainings):
        monkeypatch.setattr(module, "EPOCHS", MIN_RECORDED_STEPS // 4)


@pytest.mark.parametrize("name", CHECKS)
def test_passes_on_a_correct_training(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def missing_node(card, monkeypatch):
    """Graphs omit their first node."""

    def launch(graph, stream):
        for node in card.executables[graph].nodes[1:]:
            node.work()

    monkeypatch.setattr(card, "graphLaunch", launch)


def double_launch(card, monkeypatch):
    """The first launch of a graph runs twice."""
    original, launched = card.graphLaunch, set()

    def launch(graph, stream):
        if graph not in launched:
            launched.add(graph)
            original(graph, stream)
        original(graph, stream)

    monkeypatch.setattr(card, "graphLaunch", launch)


def never_recorded(card, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.engine.MIN_RECORDED_STEPS", 10**9)


def capture_unsupported(card, monkeypatch):
    monkeypatch.setattr(card, "streamBeginCapture", lambda *args: card.fail(CAPTURE_UNSUPPORTED))


def no_error_for_a_wait(card, monkeypatch):
    """Waiting for a capturing stream is no error: the values read were never computed."""
    monkeypatch.setattr(card, "streamSynchronize", lambda stream: None)


def capture_not_ended(card, monkeypatch):
    """A failed capture does not end."""
    end = card.streamEndCapture

    def end_if_valid(stream):
        if card.streams[stream].capture.invalid:
            card.fail(CAPTURE_INVALIDATED)
        return end(stream)

    monkeypatch.setattr(card, "streamEndCapture", end_if_valid)


def rates_not_scaled(card, monkeypatch):
    monkeypatch.setattr(Trainer, "multiply_scale", lambda trainer, factors: None)


def constant_rate(card, monkeypatch):
    """Every epoch has the learning rate of the captured one."""
    import cupy

    call = TrainingStep.__call__

    def with_first_rate(step, window, t):
        base = step.base_learning_rate
        if not card.captures:  # in the warm-up
            step.first_base = float(base.get().ravel()[0])
        call(step, window, t)
        base[...] = cupy.full_like(base, step.first_base)

    monkeypatch.setattr(TrainingStep, "__call__", with_first_rate)


def weighted_padding(card, monkeypatch):
    """Padding has the weight of real rows."""
    windows = trainings.windows

    def equal_weights(*arguments):
        for gather in windows(*arguments):
            window = gather()
            window.weight[...] = 1 / 16
            yield lambda window=window: window

    monkeypatch.setattr(trainings, "windows", equal_weights)


def same_masks(card, monkeypatch):
    mask = trainings.mask

    def of_step_0(xp, keys, now, *arguments):
        return mask(xp, keys, now if xp is np else xp.zeros_like(now), *arguments)

    monkeypatch.setattr(trainings, "mask", of_step_0)


def stale_graphs(card, monkeypatch):
    """The memory is freed, but the graphs are not."""

    def close(executor):
        for pool in executor.pools:
            pool.free_all_blocks()

    monkeypatch.setattr(CudaGraphExecutor, "close", close)


def predictions_on_the_host(card, monkeypatch):
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda model, X: to_host(predict(model, X)))


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("replays", missing_node, "epoch 1"),
        ("replays", never_recorded, "eager against eager"),
        ("replays", capture_unsupported, "CaptureWarning"),
        ("numpy-float64", missing_node, "linear, sgd"),
        ("numpy-float64", double_launch, "linear, sgd"),
        ("numpy-float32", double_launch, "linear, sgd"),
        ("numpy-float64", capture_unsupported, "CaptureWarning"),
        ("synchronized", no_error_for_a_wait, "a wait says so once"),
        ("synchronized", capture_not_ended, "CaptureInvalidated"),
        ("moving-rate", rates_not_scaled, "the rate has an effect"),
        ("moving-rate", constant_rate, "epoch"),
        ("padded-tail", weighted_padding, "loss"),
        ("dropout-masks", same_masks, "step 1"),
        ("resumed", stale_graphs, "IllegalAddress"),
        ("own-arrays", predictions_on_the_host, "CuPy in, CuPy out"),
        ("own-arrays", never_recorded, "by recorded steps"),
    ],
)
def test_detects_a_fault(name, fault, message, check, card, monkeypatch):
    fault(card, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert message in row.detail
    if fault in (capture_not_ended, stale_graphs):  # the stand-in complains too
        card.end_captures()
        card.complaints.clear()
