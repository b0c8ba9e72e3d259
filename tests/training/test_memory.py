"""GPU memory: rows that do not fit are streamed, and errors say how to use less memory."""

import gc
import re
import warnings

import numpy as np
import pytest

from xpmlp.devices.namespace import CPU, to_host
from xpmlp.spec import Spec
from xpmlp.training import inference
from xpmlp.training.data import DeviceRows, StreamedRows
from xpmlp.training.memory import (
    USABLE,
    DataWarning,
    TrainingMemoryError,
    estimate_training,
    format_bytes,
)
from xpmlp.training.settings import Settings
from xpmlp.training.train import finish, make_trainer, train

SPEC = Spec.parse("64-32-1")


@pytest.fixture
def limited(card, gpu, monkeypatch):
    """A function that limits the memory of the stand-in to a number of bytes."""
    import cupy

    monkeypatch.setenv("XPMLP_DEVICE", gpu.name)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 2**14)
    gpu.xp.matmul(cupy.ones((2, 2)), cupy.ones((2, 2)))  # allocates the workspace, which stays

    def limit(count):
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        card.limit(count)

    return limit


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(8000, 64)).astype(np.float32)  # 2 MB
    return X, (X[:, 0] > 0).astype(np.float32)


def test_rows_that_fit_are_on_the_device(limited, rows):
    limited(10_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(make_trainer(SPEC, *rows, epochs=2).data.x, DeviceRows)


@pytest.mark.parametrize("members", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("capture", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rows_that_do_not_fit_come_window_by_window_to_the_same_bits(
    limited, rows, members, capture
):
    arguments = {"epochs": 3, "batch_size": 40, "members": members, "capture": capture}
    limited(1_000_000_000)
    run = make_trainer(SPEC, *rows, **arguments)
    required_bytes = run.need.training
    expected = to_host(finish(run, []).flat).copy()
    del run
    limited(round(required_bytes / USABLE) + 1_000_000)
    with pytest.warns(DataWarning, match="X takes 2.0 MB") as warned:
        run = make_trainer(SPEC, *rows, **arguments)
    assert "window by window" in str(warned[0].message)
    assert isinstance(run.data.x, StreamedRows)
    actual = finish(run, [])
    assert actual.history["executor"] == ["captured" if capture else "eager"] * 3
    assert (to_host(actual.flat) == expected).all()


def test_only_validation_rows_may_be_streamed(limited, rows):
    X, y = rows
    arguments = {"X_val": X, "y_val": y, "epochs": 2, "batch_size": 400, "capture": False}
    limited(1_000_000_000)
    required_bytes = make_trainer(SPEC, X, y, **arguments).need.training
    limited(round(required_bytes / USABLE) + 3_000_000)
    with pytest.warns(DataWarning, match="X_val"):
        run = make_trainer(SPEC, X, y, **arguments)
    assert isinstance(run.data.x, DeviceRows)
    assert isinstance(run.val_data.x, StreamedRows)
    assert np.isfinite(finish(run, []).history["val_loss"]).all()


def suggestion(error, name):
    match = re.search(rf"{name}=(\d+) would fit", str(error))
    assert match, str(error)
    return int(match[1])


@pytest.mark.slow
def test_the_suggested_batch_size_fits(limited, rows):
    arguments = {"epochs": 2, "capture": False}
    spec = Spec.parse("64-400-400-1")
    limited(40_000_000)
    with pytest.raises(TrainingMemoryError, match="ran out of memory") as raised:
        train(spec, *rows, batch_size=8000, **arguments)
    message = str(raised.value)
    assert "for batches of 8000" in message
    assert "gpu:0" in message
    assert isinstance(raised.value, MemoryError)
    smaller = suggestion(message, "batch_size")
    del raised
    limited(40_000_000)
    train(spec, *rows, batch_size=smaller, **arguments)


@pytest.mark.slow
def test_the_suggested_number_of_members_fits(limited, rows):
    arguments = {"epochs": 1, "batch_size": 200, "capture": False}
    limited(40_000_000)
    with pytest.raises(TrainingMemoryError, match="of 2000 members") as raised:
        train(SPEC, *rows, members=2000, **arguments)
    smaller = suggestion(raised.value, "members")
    del raised
    limited(40_000_000)
    train(SPEC, *rows, members=smaller, **arguments)


def test_a_network_too_large_for_the_device_raises(limited, rows):
    limited(1_000_000)
    with pytest.raises(TrainingMemoryError, match="use smaller hidden layers"):
        train("64-2000-1", *rows, epochs=1)


def test_a_memory_error_of_the_host_is_not_translated(rows):
    def greedy(report):
        raise MemoryError("your own")

    with pytest.raises(MemoryError, match="your own"):
        train(SPEC, *rows, epochs=1, callbacks=[greedy])
    assert estimate_training(CPU, SPEC, Settings(), "float32").free is None


def test_memory_is_released_after_a_fit(limited, rows):
    import cupy

    pool = cupy.get_default_memory_pool()
    limited(300_000_000)
    before = pool.used_bytes()
    model = train(SPEC, *rows, epochs=4, batch_size=50)
    gc.collect()
    assert pool.free_bytes() <= 2 * model.flat.nbytes
    assert (
        pool.used_bytes() - before <= model.flat.nbytes + 512
    )  # the pool allocates in blocks of 512 bytes


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (2_500_000, "2.5 MB")]
)
def test_bytes_are_formatted(count, words):
    assert format_bytes(count) == words
