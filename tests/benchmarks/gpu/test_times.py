"""Low-level times on a GPU: each is measured, and graphs have the right number of nodes."""

import pytest

from benchmarks.gpu.checklist import times
from benchmarks.gpu.checklist.check import FAULT, FIGURE

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in times.CHECKS}


@pytest.mark.parametrize("name", CHECKS)
def test_every_time_is_positive(name, check, monkeypatch):
    monkeypatch.setattr(times, "SUMS", ((12, 5), (40, 7)))
    row = check(CHECKS[name])
    assert row.verdict == FIGURE, row
    assert row.figures
    assert all(value > 0 for name, value in row.figures.items() if name != "node")


def test_detects_missing_nodes(check, card, monkeypatch):
    end = card.streamEndCapture

    def drop_nodes(stream):
        graph = end(stream)
        del card.graphs[graph][1:]
        return graph

    monkeypatch.setattr(card, "streamEndCapture", drop_nodes)
    row = check(CHECKS["node-cost"])
    assert row.verdict == FAULT
    assert "65 kernels made a graph of 1 nodes" in row.detail
