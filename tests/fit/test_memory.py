"""A GPU's memory: what does not fit stays outside, and what cannot be is said with a way out."""

import gc
import re
import warnings

import numpy as np
import pytest

from xpmlp.backends.namespace import CPU, to_host
from xpmlp.core.spec import Spec
from xpmlp.fit import inference
from xpmlp.fit import run as assembly
from xpmlp.fit.data import Elsewhere, Resident
from xpmlp.fit.memory import DataWarning, TrainingMemoryError, need, shown
from xpmlp.fit.run import assemble, finish, train
from xpmlp.fit.settings import Settings

SPEC = Spec.parse("64-32-1")


@pytest.fixture
def limited(gpu, recording, monkeypatch):
    """A function that gives the stand-in so many bytes."""
    monkeypatch.setattr(assembly, "choose", lambda word, X, precision: gpu)
    monkeypatch.setattr(inference, "AT_ONCE", 2**14)
    gc.collect()

    def limit(count):
        pool = recording.DEFAULT_POOL
        pool.free.clear()
        monkeypatch.setattr(pool, "limit", pool.lent + count)

    return limit


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(8000, 64)).astype(np.float32)  # 2 MB
    return X, (X[:, 0] > 0).astype(np.float32)


def test_rows_that_fit_lie_on_the_device(limited, rows):
    limited(10_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(assemble(SPEC, *rows, epochs=2).data.x, Resident)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("capture", [True, False])
def test_rows_that_do_not_fit_come_window_by_window_to_the_same_bits(
    limited, rows, members, capture
):
    arguments = {"epochs": 3, "batch": 40, "members": members, "capture": capture}
    limited(50_000_000)
    there = finish(assemble(SPEC, *rows, **arguments), [])
    expected = to_host(there.flat).copy()
    limited(2_045_000)
    with pytest.warns(DataWarning, match="X takes 2.0 MB") as warned:
        run = assemble(SPEC, *rows, **arguments)
    assert "window by window" in str(warned[0].message)
    assert isinstance(run.data.x, Elsewhere)
    found = finish(run, [])
    assert found.history["way"] == ["captured" if capture else "eager"] * 3
    assert (to_host(found.flat) == expected).all()


def test_held_out_rows_may_stay_outside_alone(limited, rows):
    X, y = rows
    limited(2_900_000)
    with pytest.warns(DataWarning, match="X_val"):
        run = assemble(SPEC, X, y, X_val=X, y_val=y, epochs=2, batch=20, capture=False)
    assert isinstance(run.data.x, Resident)
    assert isinstance(run.held.x, Elsewhere)
    assert np.isfinite(finish(run, []).history["val_loss"]).all()


def suggestion(error, name):
    found = re.search(rf"{name}=(\d+) would fit", str(error))
    assert found, str(error)
    return int(found[1])


def test_a_batch_that_would_fit_fits(limited, rows):
    arguments = {"epochs": 2, "capture": False}
    spec = Spec.parse("64-400-400-1")
    limited(20_000_000)
    with pytest.raises(TrainingMemoryError, match="ran out of memory") as raised:
        train(spec, *rows, batch=2000, **arguments)
    said = str(raised.value)
    assert "for batches of 2000" in said
    assert "gpu:0" in said
    assert isinstance(raised.value, MemoryError)
    smaller = suggestion(said, "batch")
    del raised
    gc.collect()
    limited(20_000_000)
    train(spec, *rows, batch=smaller, **arguments)


def test_members_that_would_fit_fit(limited, rows):
    arguments = {"epochs": 1, "batch": 20, "capture": False}
    limited(6_000_000)
    with pytest.raises(TrainingMemoryError, match="of 200 members") as raised:
        train(SPEC, *rows, members=200, **arguments)
    smaller = suggestion(raised.value, "members")
    del raised
    gc.collect()
    limited(6_000_000)
    train(SPEC, *rows, members=smaller, **arguments)


def test_a_network_that_is_too_large_says_so(limited, rows):
    limited(1_000_000)
    with pytest.raises(TrainingMemoryError, match="take hidden layers of smaller"):
        train("64-2000-1", *rows, epochs=1)


def test_a_host_that_is_out_of_memory_is_left_alone(rows):
    def greedy(report):
        raise MemoryError("your own")

    with pytest.raises(MemoryError, match="your own"):
        train(SPEC, *rows, epochs=1, callbacks=[greedy])
    assert need(CPU, SPEC, Settings(), "float32").free is None


def test_memory_comes_back_after_a_fit(limited, recording, rows):
    limited(50_000_000)
    gc.collect()
    before = recording.DEFAULT_POOL.lent
    model = train(SPEC, *rows, epochs=4, batch=50)
    gc.collect()
    pool = recording.DEFAULT_POOL
    assert pool.free_bytes() <= 2 * model.flat.data.nbytes
    assert pool.lent - before <= model.flat.data.nbytes


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (2_500_000, "2.5 MB")]
)
def test_bytes_for_a_person(count, words):
    assert shown(count) == words
