"""Tests that need a real GPU, because the stand-in cannot reproduce what they check."""

import numpy as np
import pytest

from benchmarks.gpu.checklist.runs import SMALL, longest_graph, open_reports, sized_trainer
from xpmlp.devices.epilogues import EPILOGUES
from xpmlp.recording.cuda_writer import CudaBackend

LT = "what cuBLASLt offers, and its numbers, are its own"
BLOCKS = "the stand-in runs the blocks of a kernel one after another"
CUB = "CUB's kernels are machine code for a GPU"


@pytest.fixture
def real_gpu(request, has_gpu):
    """A real GPU, or a skip that says what the stand-in cannot reproduce."""
    if not has_gpu:
        pytest.skip(f"no GPU here: {request.param}")
    return request.getfixturevalue("gpu")


@pytest.mark.parametrize("real_gpu", [LT], indirect=True)
def test_every_epilogue_is_trusted(real_gpu):
    import cupy

    CudaBackend(real_gpu.xp, cupy)
    assert real_gpu.xp.epilogues.trusted == {*EPILOGUES}


@pytest.mark.parametrize("real_gpu", [LT], indirect=True)
def test_the_small_step_has_epilogues_for_every_layer(real_gpu):
    from benchmarks.gpu.checklist.check import nodes

    run = sized_trainer(real_gpu, SMALL, 128, 16, 0)
    with open_reports(run) as reports:
        assert next(reports).executor == "captured"
        steps, graph = longest_graph(run)
        assert nodes(graph.graph).total() <= 16 * steps  # cuBLAS may split a product in two


@pytest.mark.parametrize("real_gpu", [BLOCKS], indirect=True)
def test_sums_over_many_blocks_are_deterministic(real_gpu, rng):
    import cupy

    kernels = CudaBackend(real_gpu.xp, cupy)
    x = cupy.asarray(rng.standard_normal((3, 1_000_000)).astype("float32"))
    results = {kernels.vecdot(x, x).get().tobytes() for _ in range(200)}
    assert len(results) == 1


@pytest.mark.parametrize("real_gpu", [CUB], indirect=True)
def test_a_sum_over_all_parameters_is_captured(real_gpu, rng):
    import cupy

    from benchmarks.gpu.checklist.check import new_stream, record

    x = cupy.asarray(rng.standard_normal(1_000_000))
    stream = new_stream(real_gpu)
    with stream.open():
        graph = record(stream, lambda: real_gpu.xp.sum(x, axis=-1))
        graph.launch()
        assert np.isclose(graph.value.get(), x.get().sum())
