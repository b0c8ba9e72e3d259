"""Parallel branches of a captured step do not race."""

import pytest

from benchmarks.gpu.checklist.runs import open_reports, sized_trainer
from xpmlp.devices.branches import Branches
from xpmlp.recording.captured import CaptureWarning
from xpmlp.spec import Spec


@pytest.fixture
def epoch(gpu):
    """A function that trains a network of five layers for an epoch by captured steps."""

    def train(**options):
        run = sized_trainer(
            gpu, Spec.parse("12-16-16-16-16-4", loss="cross_entropy"), 16, 16, 0, **options
        )
        with open_reports(run) as reports:
            return next(reports)

    return train


@pytest.mark.parametrize("members", [None, 3])
def test_branches_do_not_race(epoch, card, members):
    assert epoch(members=members).executor == "captured"
    card.check()


def test_inputs_of_a_branch_live_until_it_joins(epoch, card, monkeypatch):
    """Otherwise the memory would be reused for the deltas, which overwrite it."""
    fork = Branches.fork
    monkeypatch.setattr(Branches, "fork", lambda of, *arrays: fork(of))
    epoch()
    with pytest.raises(AssertionError, match="branches of a graph race"):
        card.check()
    card.complaints.clear()


def test_a_branch_that_never_joins_raises(epoch, card, monkeypatch):
    monkeypatch.setattr(Branches, "join", Branches.restart)
    with pytest.warns(CaptureWarning, match="CaptureUnjoined"):
        assert epoch().executor == "eager"


def test_streams_and_workspaces_are_released(epoch, gpu, card):
    streams = len(card.streams)
    epoch()
    workspaces = gpu.xp.matmul.__self__._workspaces
    epoch()
    assert len(workspaces) == len(gpu.xp.matmul.__self__._workspaces)
    assert len(card.streams) <= streams + 1
