"""The checks of trainings pass on the stand-in, and each fails where it should."""

import numpy as np
import pytest

from xpmlp.backends.gpu_bench import FAULT, OK
from xpmlp.backends.graphs import Captured
from xpmlp.backends.namespace import to_host
from xpmlp.fit import gpu_trainings, loop, steps
from xpmlp.fit.model import Model

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in gpu_trainings.CHECKS}


@pytest.mark.parametrize("name", CHECKS)
def test_a_right_training_passes(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def lame(recording, monkeypatch):
    """Graphs leave out their first node."""
    launch = recording.Graph.launch

    def without(graph):
        whole, graph.nodes = graph.nodes, graph.nodes[1:]
        launch(graph)
        graph.nodes = whole

    monkeypatch.setattr(recording.Graph, "launch", without)


def twice(recording, monkeypatch):
    """The first launch of a graph is made twice."""
    launch = recording.Graph.launch

    def again(graph):
        if not graph.launches:
            launch(graph)
        launch(graph)

    monkeypatch.setattr(recording.Graph, "launch", again)


def eager(recording, monkeypatch):
    monkeypatch.setattr("xpmlp.backends.engine.WORTH", 10**9)


def refused(recording, monkeypatch):
    def begin(stream):
        raise RuntimeError("no graphs today")

    monkeypatch.setattr(recording.Stream, "begin_capture", begin)


def lenient(recording, monkeypatch):
    """What CUDA forbids is done, on memory where nothing was computed."""
    monkeypatch.setattr(recording, "forbid", lambda what: None)
    monkeypatch.setattr(recording.Stream, "synchronize", lambda stream: None)


def endless(recording, monkeypatch):
    """A recording that failed goes on."""

    def end(stream):
        if stream.nodes == "invalid":
            raise recording.Forbidden("still capturing")
        return recording.Graph(stream, list(stream.nodes))

    monkeypatch.setattr(recording.Stream, "end_capture", end)


def unmoved(recording, monkeypatch):
    monkeypatch.setattr(loop, "throttle", lambda run, factor: None)


def frozen(recording, monkeypatch):
    """The rate of the epoch in which the graph was recorded."""
    step = steps.step

    def of_this_epoch(run, batch):
        if not recording.recording():  # in the warm-up, before
            run.first = float(run.base.get().ravel()[0])
        step(run, batch)
        run.base[...] = run.place.xp.full_like(run.base, run.first)

    monkeypatch.setattr(steps, "step", of_this_epoch)


def weighty(recording, monkeypatch):
    """Padding weighs as much as any row."""
    windows = gpu_trainings.windows

    def heavier(*given):
        for gather in windows(*given):
            window = gather()
            window.weight[...] = 1 / 16
            yield lambda window=window: window

    monkeypatch.setattr(gpu_trainings, "windows", heavier)


def same_masks(recording, monkeypatch):
    mask = gpu_trainings.mask

    def of_step_0(xp, keys, now, *given):
        return mask(xp, keys, now if xp is np else xp.zeros_like(now), *given)

    monkeypatch.setattr(gpu_trainings, "mask", of_step_0)


def kept_graphs(recording, monkeypatch):
    """The memory is let go of, and the graphs are not."""

    def close(way):
        for pool in way.pools:
            pool.free_all_blocks()

    monkeypatch.setattr(Captured, "close", close)


def elsewhere(recording, monkeypatch):
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda model, X: to_host(predict(model, X)))


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("replays", lame, "epoch 1"),
        ("replays", eager, "eager against eager"),
        ("replays", refused, "CaptureWarning"),
        ("numpy-float64", lame, "diverged"),
        ("numpy-float64", twice, "linear, sgd"),
        ("numpy-float32", twice, "linear, sgd"),
        ("numpy-float64", refused, "CaptureWarning"),
        ("synchronized", lenient, "says so once"),
        ("synchronized", endless, "capturing"),
        ("moving-rate", unmoved, "the rate has an effect"),
        ("moving-rate", frozen, "epoch"),
        ("padded-tail", weighty, "loss"),
        ("dropout-masks", same_masks, "step 1"),
        ("resumed", kept_graphs, "freed"),
        ("own-arrays", elsewhere, "CuPy in, CuPy out"),
        ("own-arrays", eager, "by recorded steps"),
    ],
)
def test_a_fault_is_seen(name, fault, words, check, recording, monkeypatch):
    fault(recording, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert words in row.detail
