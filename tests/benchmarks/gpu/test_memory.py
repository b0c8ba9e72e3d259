"""The checks of memory pass on a GPU, and each fails if memory is shared or leaks."""

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
    """A smaller network, for speed, except where its memory is measured."""
    if "dropped" not in request.node.name:
        monkeypatch.setattr(memory, "SMALL", Spec.parse("6-5-4", loss="cross_entropy"))


@pytest.mark.parametrize("name", CHECKS)
def test_passes_on_a_correct_training(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def shared_pool(card, monkeypatch):
    """Graphs use memory that is also allocated to others."""
    import cupy

    pool = cupy.get_default_memory_pool()

    def malloc(size):
        with cupy.cuda.Stream.null:  # a pool has separate memory per stream
            return pool.malloc(size)

    shared = SimpleNamespace(
        malloc=malloc, free_bytes=pool.free_bytes, free_all_blocks=lambda: None
    )
    monkeypatch.setattr("cupy.cuda.MemoryPool", lambda: shared)
    monkeypatch.setattr("cupy.get_default_memory_pool", lambda: shared)


def default_pool(card, monkeypatch):
    """Graphs use the default pool, whose free memory others may free."""
    import cupy

    monkeypatch.setattr("cupy.cuda.MemoryPool", cupy.get_default_memory_pool)


def leaked_trainers(card, monkeypatch):
    """Every trainer stays referenced."""
    sized_trainer, trainers = memory.sized_trainer, []

    def leak(*arguments):
        trainers.append(sized_trainer(*arguments))
        return trainers[-1]

    monkeypatch.setattr(memory, "sized_trainer", leak)


def leaking_steps(card, monkeypatch):
    """Every window leaks half a megabyte."""
    import cupy

    sized_trainer, arrays = memory.sized_trainer, []

    def leaking_trainer(*arguments):
        trainer = sized_trainer(*arguments)
        row_weights = trainer.row_weights

        def leak(*arguments):
            arrays.append(cupy.empty(2**16))
            return row_weights(*arguments)

        trainer.row_weights = leak
        return trainer

    monkeypatch.setattr(memory, "sized_trainer", leaking_trainer)


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("crowded", shared_pool, "leaves others alone"),
        ("crowded", default_pool, "IllegalAddress"),
        ("dropped", leaked_trainers, "each left up to"),
        ("flat-memory", leaking_steps, ""),
    ],
)
def test_detects_a_fault(name, fault, message, check, card, monkeypatch):
    gc.collect()
    fault(card, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert message in row.detail
    if fault in (shared_pool, default_pool):  # the stand-in complains too
        card.complaints.clear()
