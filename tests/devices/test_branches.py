"""What runs beside the rest of a captured step is told apart from what may not."""

import pytest

from benchmarks.gpu.checklist.runs import sized, under_way
from xpmlp.devices.branches import Branches
from xpmlp.recording.captured import CaptureWarning
from xpmlp.spec import Spec


@pytest.fixture
def epoch(gpu):
    """A function that trains a network of five layers for an epoch by captured steps."""

    def train(**more):
        run = sized(gpu, Spec.parse("12-16-16-16-16-4", loss="cross_entropy"), 16, 16, 0, **more)
        with under_way(run) as coming:
            return next(coming)

    return train


@pytest.mark.parametrize("members", [None, 3])
def test_branches_do_not_race(epoch, card, members):
    assert epoch(members=members).executor == "captured"
    card.check()


def test_what_a_branch_reads_is_kept_until_it_joins(epoch, card, monkeypatch):
    """Else its memory is lent to the chain of deltas, which overwrites it."""
    fork = Branches.fork
    monkeypatch.setattr(Branches, "fork", lambda of, *arrays: fork(of))
    epoch()
    with pytest.raises(AssertionError, match="branches of a graph race"):
        card.check()
    card.complaints.clear()


def test_a_branch_that_never_joins_is_no_graph(epoch, card, monkeypatch):
    monkeypatch.setattr(Branches, "join", Branches.restart)
    with pytest.warns(CaptureWarning, match="CaptureUnjoined"):
        assert epoch().executor == "eager"


def test_its_streams_and_their_workspaces_are_let_go_of(epoch, gpu, card):
    streams = len(card.streams)
    epoch()
    workspaces = gpu.xp.matmul.__self__._workspaces
    epoch()
    assert len(workspaces) == len(gpu.xp.matmul.__self__._workspaces)
    assert len(card.streams) <= streams + 1
