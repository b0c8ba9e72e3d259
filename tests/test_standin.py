"""The stand-in for a GPU is as strict as a real one."""

import gc

import numpy as np
import pytest
from support.standin.card import ALLOCATED
from support.standin.kernels import KernelError


@pytest.fixture
def cupy(card):
    import cupy

    return cupy


@pytest.fixture
def stream(cupy):
    """The current stream, with its own memory pool; a capture that is left open is ended."""
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        cupy.ones(2)  # a free block in the pool
        yield stream
        if stream.is_capturing():
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
                stream.end_capture()
    pool.free_all_blocks()


@pytest.fixture
def own_pool(cupy):
    """A new memory pool, so that memory is taken from the device."""
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        yield pool
    gc.collect()
    pool.free_all_blocks()


def fails(cupy, match):
    return pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=match)


def test_captured_work_runs_only_at_every_launch(cupy, stream):
    x, y = cupy.array([1.0, 2.0]), cupy.empty(2)
    cupy.multiply(x, 2, out=y)
    y.fill(np.nan)
    stream.begin_capture()
    cupy.multiply(x, 2, out=y)
    x[...] = y
    graph = stream.end_capture()
    assert x.get().tolist() == [1.0, 2.0]
    assert np.isnan(y.get()).all()
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [4.0, 8.0]


@pytest.mark.parametrize(
    "synchronize",
    [
        lambda cupy, stream, x: stream.synchronize(),
        lambda cupy, stream, x: cupy.cuda.Device().synchronize(),
        lambda cupy, stream, x: cupy.cuda.runtime.memset(x.data.ptr, 0, 1),
    ],
)
def test_synchronizing_invalidates_the_capture(cupy, stream, synchronize):
    x = cupy.ones(2)
    stream.begin_capture()
    with fails(cupy, "CaptureUnsupported"):
        synchronize(cupy, stream, x)
    with fails(cupy, "CaptureInvalidated"):
        x.fill(2)
    with fails(cupy, "CaptureInvalidated"):
        stream.end_capture()


def test_allocating_during_a_capture_is_reported(cupy, card, stream):
    stream.begin_capture()
    big = cupy.empty(1 << 20)
    stream.end_capture()
    del big
    with pytest.raises(AssertionError, match="memory is taken from the device while a stream"):
        card.check()
    card.complaints.clear()


def test_loading_a_kernel_during_a_capture_is_reported(cupy, card, stream):
    x = cupy.ones(2)
    kernel = cupy.ElementwiseKernel("float64 a", "float64 b", "b = a + 17", "never_seen_before")
    stream.begin_capture()
    kernel(x, x)
    stream.end_capture()
    with pytest.raises(AssertionError, match="never_seen_before is loaded while a stream"):
        card.check()
    card.complaints.clear()


def test_a_kernel_out_of_bounds_breaks_the_device(cupy, card, own_pool):
    runtime = cupy.cuda.runtime
    x = cupy.ones(4)
    block = card.block_of(x.data.ptr)
    too_long = cupy.ndarray(block.size // 8 + 4, x.dtype, x.data)
    with fails(cupy, "IllegalAddress"):
        too_long.fill(1)
    with fails(cupy, "IllegalAddress"):  # the error is sticky
        runtime.deviceSynchronize()
    card.fault = 0


def test_a_graph_whose_memory_was_freed_breaks_the_device(cupy, card):
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        x = cupy.ones(2)
        x.fill(3)
        stream.begin_capture()
        x.fill(4)
        graph = stream.end_capture()
    del x
    pool.free_all_blocks()
    with fails(cupy, "IllegalAddress"):
        graph.launch()
    card.fault = 0
    card.complaints.clear()


def test_new_memory_is_filled_with_a_pattern(cupy, own_pool):
    size = 1 << 22
    assert (cupy.empty(size, "uint8").get() == ALLOCATED).all()


def test_out_of_memory_raises_the_error_of_cupy(cupy, card, own_pool):
    card.limit(1 << 20)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(1 << 20)


# Branches


@pytest.fixture
def fork(cupy, stream):
    """A capture that branches to a second stream."""
    branch, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)
    x, y, z = (cupy.ones(2) for _ in range(3))
    cupy.add(x, 1, out=y)
    stream.begin_capture()
    event.record(stream)
    branch.wait_event(event)
    return branch, event, x, y, z


def test_branches_race_if_one_writes_what_the_other_reads(cupy, card, stream, fork):
    branch, event, x, y, _ = fork
    cupy.add(x, 1, out=y)
    with branch:
        cupy.add(y, 1, out=x)
    event.record(branch)
    stream.wait_event(event)
    graph = stream.end_capture()
    assert len(card.graphs[graph.graph]) == 2
    with pytest.raises(AssertionError, match="branches of a graph race: cupy_add"):
        card.check()
    card.complaints.clear()


def test_branches_that_only_read_shared_memory_do_not_race(cupy, card, stream, fork):
    branch, event, x, y, z = fork
    cupy.add(x, 1, out=y)
    with branch:
        cupy.add(x, 2, out=z)
    event.record(branch)
    stream.wait_event(event)
    stream.end_capture().launch()
    assert (y.get().tolist(), z.get().tolist()) == ([2.0, 2.0], [3.0, 3.0])
    card.check()


def test_a_branch_that_does_not_join_is_refused(cupy, stream, fork):
    branch, _, x, *_ = fork
    with branch:
        x.fill(3)
    with fails(cupy, "CaptureUnjoined"):
        stream.end_capture()


def test_an_event_from_before_the_capture_is_refused(cupy, stream):
    event = cupy.cuda.Event()
    event.record(stream)
    stream.begin_capture()
    with fails(cupy, "CaptureIsolation"):
        stream.wait_event(event)


# Kernels


def test_an_nvrtc_warning_is_an_error(cupy):
    with pytest.raises(KernelError, match="never referenced"):
        cupy.ElementwiseKernel("float32 a", "float32 b", "float c = a; b = a", "idle")(
            cupy.ones(1, "float32")
        )


def test_float64_in_a_float32_kernel_is_an_error(cupy):
    with pytest.raises(KernelError, match="wide computes in float64"):
        cupy.ElementwiseKernel("float32 a", "float32 b", "b = a * 0.1", "wide")(
            cupy.ones(1, "float32")
        )


def test_threads_of_a_block_wait_for_each_other(cupy):
    text = """
extern "C" __global__ void turned(const float *x, float *y) {
  __shared__ float all[64];
  all[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = all[63 - threadIdx.x];
}"""
    x, y = cupy.arange(64, dtype="float32"), cupy.empty(64, "float32")
    cupy.RawKernel(text, "turned")((1,), (64,), (x, y))
    assert y.get().tolist() == x.get()[::-1].tolist()


def test_work_on_the_null_stream_during_a_capture_is_reported(cupy, card, stream):
    x = cupy.ones(2)
    stream.begin_capture()
    with cupy.cuda.Stream.null:
        x.fill(2)
    stream.end_capture()
    with pytest.raises(AssertionError, match="legacy stream while a stream captures"):
        card.check()
    card.complaints.clear()
