"""The stand-in for CuPy is as strict as a CUDA stream: what tests through it rest on."""

import numpy as np
import pytest


@pytest.fixture
def xp(recording):
    return recording.XP


@pytest.fixture
def lane(recording):
    """A stream under capture with memory of its own."""
    stream, pool = recording.Stream(), recording.MemoryPool()
    with stream, recording.using_allocator(pool.malloc):
        yield stream
        if stream.is_capturing():
            stream.end_capture()


def test_work_is_recorded_not_done_and_done_at_every_launch(xp, lane):
    x = xp.asarray([1.0, 2.0])
    lane.begin_capture()
    y = x * 2 + 1
    x[...] = y
    graph = lane.end_capture()
    assert x.get().tolist() == [1.0, 2.0]
    assert np.isnan(y.get()).all()
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [7.0, 11.0]


@pytest.mark.parametrize(
    "read",
    [
        lambda xp, x: float(x[0]),
        lambda xp, x: bool(x[0]),
        lambda xp, x: int(x[0]),
        lambda xp, x: x.get(),
        lambda xp, x: np.asarray(x),
        lambda xp, x: x[x > 0],
        lambda xp, x: xp.asarray(0.5),
        lambda xp, x: x.device.synchronize(),
    ],
)
def test_what_cuda_forbids_is_forbidden(recording, xp, lane, read):
    x = xp.asarray([1.0, 2.0])
    read(xp, x)
    lane.begin_capture()
    with pytest.raises(recording.Forbidden, match="capturing"):
        read(xp, x)


def test_waiting_for_the_stream_ends_the_capture(recording, xp, lane):
    x = xp.asarray([1.0])
    lane.begin_capture()
    with pytest.raises(recording.Forbidden):
        lane.synchronize()
    with pytest.raises(recording.Forbidden, match="invalidated"):
        x + 1
    with pytest.raises(recording.Forbidden, match="invalidated"):
        lane.end_capture()


def test_memory_given_back_is_poisoned_and_lent_again(recording, xp):
    pool = recording.MemoryPool()
    with recording.using_allocator(pool.malloc):
        x = xp.asarray([1.0, 2.0])
        view = x[:1]
        memory = view.data
        del x
        assert memory.tolist() == [1.0]  # a view holds it
        del view
        assert np.isnan(memory).all()
        again = recording.empty((2,))
    assert np.shares_memory(again.data, memory)


def test_a_graph_keeps_no_array_alive(recording, xp, lane):
    x = xp.asarray([1.0])
    with recording.using_allocator(None):
        other = xp.asarray([5.0])
    lane.begin_capture()
    x[...] = x + other
    graph = lane.end_capture()
    graph.launch()
    assert x.get().tolist() == [6.0]
    del other
    graph.launch()
    assert np.isnan(x.get()).all()


def test_freed_memory_is_not_worked_in(recording, xp, lane):
    pool = recording.MemoryPool()
    x = xp.asarray([1.0])
    with recording.using_allocator(pool.malloc):
        lane.begin_capture()
        x[...] = (x + 1) * 2
        graph = lane.end_capture()
    graph.launch()
    pool.free_all_blocks()
    with pytest.raises(recording.Forbidden, match="freed"):
        graph.launch()


def test_a_numpy_array_is_no_array_of_the_device(xp):
    with pytest.raises(TypeError, match="NumPy"):
        xp.asarray([1.0]) + np.ones(1)


def test_a_limit_is_kept(recording, xp):
    pool = recording.MemoryPool(limit=100)
    with recording.using_allocator(pool.malloc):
        x = xp.zeros((10,))
        with pytest.raises(recording.OutOfMemoryError, match="80 bytes"):
            x + 1
