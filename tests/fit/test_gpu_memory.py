"""The checks of memory pass on the stand-in, and each fails where memory is shared or lost."""

import gc

import pytest

from xpmlp.backends.gpu_bench import FAULT, OK
from xpmlp.core.spec import Spec
from xpmlp.fit import gpu_memory

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in gpu_memory.CHECKS}


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    """A smaller network, for the host's speed; the bytes of one that is dropped must show."""
    sizes = "300-300-10" if "dropped" in request.node.name else "6-5-4"
    monkeypatch.setattr(gpu_memory, "SMALL", Spec.parse(sizes, loss="cross_entropy"))


@pytest.mark.parametrize("name", CHECKS)
def test_a_training_that_keeps_to_its_memory_passes(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


def common(recording, monkeypatch):
    """Graphs work in memory that others are lent too."""
    monkeypatch.setattr(recording, "forbid", lambda what: None)
    monkeypatch.setattr(recording.MemoryPool, "free_all_blocks", lambda pool: None)
    monkeypatch.setattr(
        recording.MemoryPool,
        "malloc",
        lambda pool, size, malloc=recording.MemoryPool.malloc: malloc(recording.DEFAULT_POOL, size),
    )


def kept(recording, monkeypatch):
    """Somebody holds on to every training."""
    sized, held = gpu_memory.sized, []

    def holding(*given):
        held.append(sized(*given))
        return held[-1]

    monkeypatch.setattr(gpu_memory, "sized", holding)


def hoarding(recording, monkeypatch):
    """Every window leaves half a megabyte behind."""
    sized, held = gpu_memory.sized, []

    def greedy(*given):
        run = sized(*given)
        weigh = run.weigh

        def more(*given):
            held.append(recording.empty((2**16,)))
            return weigh(*given)

        run.weigh = more
        return run

    monkeypatch.setattr(gpu_memory, "sized", greedy)


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("crowded", common, "leaves others alone"),
        ("dropped", kept, "each left up to"),
        ("flat-memory", hoarding, ""),
    ],
)
def test_a_fault_is_seen(name, fault, words, check, recording, monkeypatch):
    gc.collect()
    fault(recording, monkeypatch)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert words in row.detail
