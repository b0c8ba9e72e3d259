"""The checks of memory pass on a GPU, and each fails where memory is shared or lost."""

import gc
from types import SimpleNamespace

import pytest

from benchmarks.gpu.checklist import memory
from benchmarks.gpu.checklist.check import FAULT, OK
from xpmlp.spec import Spec

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in memory.CHECKS}


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    """A smaller network, for the host's speed, but where the bytes of one must show."""
    if "dropped" not in request.node.name:
        monkeypatch.setattr(memory, "SMALL", Spec.parse("6-5-4", loss="cross_entropy"))


@pytest.mark.parametrize("name", CHECKS)
def test_a_training_that_keeps_to_its_memory_passes(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def common(card, monkeypatch):
    """Graphs work in memory that others are lent too."""
    import cupy

    pool = cupy.get_default_memory_pool()

    def malloc(size):
        with cupy.cuda.Stream.null:  # a pool lends each stream memory of its own
            return pool.malloc(size)

    lent = SimpleNamespace(malloc=malloc, free_bytes=pool.free_bytes, free_all_blocks=lambda: None)
    monkeypatch.setattr("cupy.cuda.MemoryPool", lambda: lent)
    monkeypatch.setattr("cupy.get_default_memory_pool", lambda: lent)


def common_and_freed(card, monkeypatch):
    """Graphs work in the default pool, whose free memory anybody may give back."""
    import cupy

    monkeypatch.setattr("cupy.cuda.MemoryPool", cupy.get_default_memory_pool)


def kept(card, monkeypatch):
    """Somebody holds on to every training."""
    sized, held = memory.sized, []

    def holding(*given):
        held.append(sized(*given))
        return held[-1]

    monkeypatch.setattr(memory, "sized", holding)


def hoarding(card, monkeypatch):
    """Every window leaves half a megabyte behind."""
    import cupy

    sized, held = memory.sized, []

    def greedy(*given):
        trainer = sized(*given)
        row_weights = trainer.row_weights

        def more(*given):
            held.append(cupy.empty(2**16))
            return row_weights(*given)

        trainer.row_weights = more
        return trainer

    monkeypatch.setattr(memory, "sized", greedy)


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("crowded", common, "leaves others alone"),
        ("crowded", common_and_freed, "IllegalAddress"),
        ("dropped", kept, "each left up to"),
        ("flat-memory", hoarding, ""),
    ],
)
def test_a_fault_is_seen(name, fault, words, check, card, monkeypatch):
    gc.collect()
    fault(card, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert words in row.detail
    if fault in (common, common_and_freed):  # the stand-in complains of it by itself
        card.complaints.clear()
