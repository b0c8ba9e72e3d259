"""The checks of trainings pass on a GPU, and each fails where it should."""

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
def few(request, monkeypatch):
    """Fewer cases, and as few epochs as are captured, for the stand-in's speed; test_capture.py
    has all cases."""
    count = 1 if "fault" in request.node.name else 2
    monkeypatch.setattr(trainings, "cases", lambda on: CASES[::5][:count])
    for module in (runs, trainings):
        monkeypatch.setattr(module, "EPOCHS", MIN_RECORDED_STEPS // 4)


@pytest.mark.parametrize("name", CHECKS)
def test_a_right_training_passes(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def lame(card, monkeypatch):
    """Graphs leave out their first node."""

    def launch(graph, stream):
        for node in card.executables[graph].nodes[1:]:
            node.work()

    monkeypatch.setattr(card, "graphLaunch", launch)


def twice(card, monkeypatch):
    """The first launch of a graph is made twice."""
    once, launched = card.graphLaunch, set()

    def launch(graph, stream):
        if graph not in launched:
            launched.add(graph)
            once(graph, stream)
        once(graph, stream)

    monkeypatch.setattr(card, "graphLaunch", launch)


def eager(card, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.engine.MIN_RECORDED_STEPS", 10**9)


def refused(card, monkeypatch):
    monkeypatch.setattr(card, "streamBeginCapture", lambda *given: card.fail(CAPTURE_UNSUPPORTED))


def lenient(card, monkeypatch):
    """A wait for a stream that captures is no error: what is read was never computed."""
    monkeypatch.setattr(card, "streamSynchronize", lambda stream: None)


def endless(card, monkeypatch):
    """A capture that failed goes on."""
    end = card.streamEndCapture

    def end_if_valid(stream):
        if card.streams[stream].capture.invalid:
            card.fail(CAPTURE_INVALIDATED)
        return end(stream)

    monkeypatch.setattr(card, "streamEndCapture", end_if_valid)


def unmoved(card, monkeypatch):
    monkeypatch.setattr(Trainer, "multiply_scale", lambda trainer, factors: None)


def frozen(card, monkeypatch):
    """The rate of the epoch in which the graph was captured."""
    import cupy

    call = TrainingStep.__call__

    def of_this_epoch(step, window, t):
        base = step.base_learning_rate
        if not card.captures:  # in the warm-up, before
            step.first_base = float(base.get().ravel()[0])
        call(step, window, t)
        base[...] = cupy.full_like(base, step.first_base)

    monkeypatch.setattr(TrainingStep, "__call__", of_this_epoch)


def weighty(card, monkeypatch):
    """Padding weighs as much as any row."""
    windows = trainings.windows

    def heavier(*given):
        for gather in windows(*given):
            window = gather()
            window.weight[...] = 1 / 16
            yield lambda window=window: window

    monkeypatch.setattr(trainings, "windows", heavier)


def same_masks(card, monkeypatch):
    mask = trainings.mask

    def of_step_0(xp, keys, now, *given):
        return mask(xp, keys, now if xp is np else xp.zeros_like(now), *given)

    monkeypatch.setattr(trainings, "mask", of_step_0)


def kept_graphs(card, monkeypatch):
    """The memory is let go of, and the graphs are not."""

    def close(executor):
        for pool in executor.pools:
            pool.free_all_blocks()

    monkeypatch.setattr(CudaGraphExecutor, "close", close)


def elsewhere(card, monkeypatch):
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda model, X: to_host(predict(model, X)))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("replays", lame, "epoch 1"),
        ("replays", eager, "eager against eager"),
        ("replays", refused, "CaptureWarning"),
        ("numpy-float64", lame, "linear, sgd"),
        ("numpy-float64", twice, "linear, sgd"),
        ("numpy-float32", twice, "linear, sgd"),
        ("numpy-float64", refused, "CaptureWarning"),
        ("synchronized", lenient, "a wait says so once"),
        ("synchronized", endless, "CaptureInvalidated"),
        ("moving-rate", unmoved, "the rate has an effect"),
        ("moving-rate", frozen, "epoch"),
        ("padded-tail", weighty, "loss"),
        ("dropout-masks", same_masks, "step 1"),
        ("resumed", kept_graphs, "IllegalAddress"),
        ("own-arrays", elsewhere, "CuPy in, CuPy out"),
        ("own-arrays", eager, "by recorded steps"),
    ],
)
def test_a_fault_is_seen(name, fault, words, check, card, monkeypatch):
    fault(card, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert words in row.detail
    if fault in (endless, kept_graphs):  # the stand-in complains of these by itself
        card.end_captures()
        card.complaints.clear()
