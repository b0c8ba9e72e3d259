"""The small times on a GPU: that they are made, and that a graph has the nodes it should."""

import pytest

from benchmarks.gpu.checklist import times
from benchmarks.gpu.checklist.check import FAULT, FIGURE

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in times.CHECKS}


@pytest.mark.parametrize("name", CHECKS)
def test_every_figure_is_a_time(name, check, monkeypatch):
    monkeypatch.setattr(times, "SUMS", ((12, 5), (40, 7)))
    row = check(CHECKS[name])
    assert row.verdict == FIGURE, row
    assert row.figures
    assert all(value > 0 for name, value in row.figures.items() if name != "node")


def test_nodes_that_are_not_there_are_seen(check, card, monkeypatch):
    end = card.streamEndCapture

    def shortened(stream):
        graph = end(stream)
        del card.graphs[graph][1:]
        return graph

    monkeypatch.setattr(card, "streamEndCapture", shortened)
    row = check(CHECKS["node-cost"])
    assert row.verdict == FAULT
    assert "65 kernels made a graph of 1 nodes" in row.detail
