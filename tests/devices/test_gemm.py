"""The GEMM plan against a GEMM in NumPy that reads memory by addresses; the device part on CuPy."""

import gc
from collections import Counter
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from xpmlp.devices.gemm import (
    WORKSPACE,
    Gemm,
    Layout,
    contiguous,
    kinds,
    layout,
    plan,
    product_shape,
    readable,
    writable,
)
from xpmlp.layout import padded_size, windows
from xpmlp.spec import Spec

# Layouts, drawn at random ------------------------------------------------------------------

JUNK = [0, 1, -1, 2, 7, -300, 10**6]  # strides that an axis of extent 1 may have


class BufferArray(NamedTuple):
    """An array within a buffer, and its start there."""

    buffer: np.ndarray  # (size,)
    view: np.ndarray
    start: int  # in elements


def draw(rng, shape, *, broadcast=True, dtype="float64") -> BufferArray:
    """An array of this shape: axes in any memory order, windowed, stepped, reversed, broadcast."""
    order = rng.permutation(len(shape)) if rng.random() < 0.4 else np.arange(len(shape))
    if len(shape) > 1 and rng.random() < 0.4:
        order = np.array([*order[:-2], order[-1], order[-2]])
    extents, cuts = [], []
    tame = rng.random() < 0.5  # a layout as in training: no steps, nothing reversed
    for extent in shape:
        before, after = (int(rng.integers(0, 4)) if rng.random() < 0.3 else 0 for _ in range(2))
        step = 1 if tame or rng.random() < 0.8 else int(rng.choice([2, 3, -1, -2]))
        if broadcast and extent > 0 and rng.random() < 0.12:
            extents.append(1)
            cuts.append(slice(None))
            continue
        extents.append(before + extent * abs(step) + after)
        cut = slice(before, before + extent * abs(step), abs(step))
        cuts.append((cut, step < 0))
    buffer = rng.integers(-4, 5, int(np.prod(extents))).astype(dtype)
    view = buffer.reshape([extents[axis] for axis in order]).transpose(np.argsort(order))
    for axis, cut in enumerate(cuts):
        if isinstance(cut, tuple):
            at = (slice(None),) * axis
            view = view[(*at, cut[0])]
            view = view[(*at, slice(None, None, -1))] if cut[1] else view
    strides = list(np.broadcast_to(view, shape).strides)
    for axis, extent in enumerate(shape):
        if extent == 1 and rng.random() < 0.5:
            strides[axis] = int(rng.choice(JUNK)) * buffer.itemsize
    view = as_strided(view, shape, strides)
    start = (view.ctypes.data - buffer.ctypes.data) // buffer.itemsize
    return BufferArray(buffer, view, start)


def draw_extent(rng) -> int:
    return int(rng.choice([0, 1, 1, 1, 2, 3, 4, 5, 6], p=[0.03, 0.1, 0.1, 0.07, *[0.14] * 5]))


def draw_shapes(rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes for matmul: mostly 1-D to 3-D, some 4-D and 5-D, broadcast in both directions."""
    m, n, k = (draw_extent(rng) for _ in range(3))
    depth = int(rng.choice([0, 1, 2, 3], p=[0.3, 0.45, 0.2, 0.05]))
    leading = [max(1, draw_extent(rng)) if rng.random() < 0.97 else 0 for _ in range(depth)]
    a, b = (
        tuple(1 if rng.random() < 0.2 else extent for extent in leading)[int(rng.integers(0, 2)) :]
        if rng.random() < 0.7
        else ()
        for _ in range(2)
    )
    a = (k,) if rng.random() < 0.08 else (*a, m, k)
    b = (k,) if rng.random() < 0.08 else (*b, k, n)
    return a, b


def draw_product(rng, dtype="float64") -> tuple[BufferArray, BufferArray, BufferArray]:
    """Two operands and a writable out."""
    a_shape, b_shape = draw_shapes(rng)
    a, b = draw(rng, a_shape, dtype=dtype), draw(rng, b_shape, dtype=dtype)
    shape = product_shape(a_shape, b_shape)
    for _ in range(8):
        out = draw(rng, shape, broadcast=False, dtype=dtype)
        if writable(layout(out.view)):
            return a, b, out
    new_array = np.zeros(shape, dtype)
    return a, b, BufferArray(new_array.reshape(-1), new_array, 0)


# cuBLAS, in NumPy --------------------------------------------------------------------------


def addresses(rows, columns, ld, start):
    """A column-major matrix: element (i, j) is at start + i + j ld."""
    return start + np.arange(rows)[:, None] + np.arange(columns) * ld


def assert_taken_by_cublas(p):
    """Check what cublasGemmEx and cublasGemmStridedBatchedEx require of their arguments."""
    assert p.m >= 0
    assert p.n >= 0
    assert p.k >= 0
    assert p.batch >= 0
    assert p.lda >= max(1, p.k if p.transa else p.m)
    assert p.ldb >= max(1, p.n if p.transb else p.k)
    assert p.ldc >= max(1, p.m)
    assert all(type(number) is int for number in p[3:13])
    assert p.batch != 1 or (p.stride_a, p.stride_b, p.stride_c) == (0, 0, 0)


def execute_plan(
    p, a: BufferArray, b: BufferArray, out: BufferArray
) -> tuple[Counter, Counter, Counter]:
    """Write a @ b to out as planned and count how often each address of the three is used."""
    first, second = (b, a) if p.first == "b" else (a, b)
    used = Counter(), Counter(), Counter()
    for (i, j, l), at in product(p.starts(), range(p.batch)):
        rows, columns = (p.k, p.m) if p.transa else (p.m, p.k)
        of_a = addresses(rows, columns, p.lda, first.start + i + at * p.stride_a)
        rows, columns = (p.n, p.k) if p.transb else (p.k, p.n)
        of_b = addresses(rows, columns, p.ldb, second.start + j + at * p.stride_b)
        of_c = addresses(p.m, p.n, p.ldc, out.start + l + at * p.stride_c)
        for counter, positions in zip(used, (of_a, of_b, of_c), strict=True):
            counter.update(positions.ravel().tolist())
        for positions, array in ((of_a, first), (of_b, second), (of_c, out)):
            assert (
                positions.size == 0 or 0 <= positions.min() <= positions.max() < array.buffer.size
            )
        stored_a, stored_b = first.buffer[of_a], second.buffer[of_b]
        op_a, op_b = stored_a.T if p.transa else stored_a, stored_b.T if p.transb else stored_b
        out.buffer[of_c] = op_a @ op_b
    return (used[1], used[0], used[2]) if p.first == "b" else used


def element_addresses(array: BufferArray) -> list[int]:
    """The buffer address of every element of an array."""
    numbers = np.arange(array.buffer.size)
    strides = [stride // array.buffer.itemsize * numbers.itemsize for stride in array.view.strides]
    return as_strided(numbers[array.start :], array.view.shape, strides).ravel().tolist()


def after_copy(array: BufferArray, copied: bool) -> BufferArray:
    if not copied:
        return array
    copy = np.ascontiguousarray(array.view)
    return BufferArray(copy.reshape(-1), copy, 0)


def check_product(a: BufferArray, b: BufferArray, out: BufferArray):
    """Plan, execute and compare; only the operands are read and all of out is written."""
    expected = np.matmul(a.view, b.view)
    untouched = out.buffer.copy()
    p = plan(layout(a.view), layout(b.view), layout(out.view))
    assert_taken_by_cublas(p)
    assert p.copies == (not readable(layout(a.view)), not readable(layout(b.view)))
    a, b = after_copy(a, p.copies[0]), after_copy(b, p.copies[1])
    used = execute_plan(p, a, b, out)
    np.testing.assert_array_equal(out.view, expected)  # small integers: exact in any order
    for array, addresses in zip((a, b), used, strict=False):
        assert set(addresses) <= set(element_addresses(array))
    assert used[2] == Counter(element_addresses(out))  # each element once, and no other
    untouched[element_addresses(out)] = out.buffer[element_addresses(out)]
    np.testing.assert_array_equal(out.buffer, untouched)
    return p


@pytest.mark.parametrize("chunk", range(8))
def test_plan_computes_the_product_over_random_layouts(chunk):
    layouts = Counter()
    for seed in range(1000 * chunk, 1000 * chunk + 1000):
        rng = np.random.default_rng(seed)
        product = draw_product(rng)
        try:
            p = check_product(*product)
        except Exception as error:
            error.add_note(f"seed {seed}: {[layout(x.view) for x in product]}")
            raise
        layouts[p.copies] += 1
        layouts["first", p.first] += 1
        layouts["trans", p.first, p.transa, p.transb] += 1
        layouts["batch"] += p.batch > 1
        layouts["shared"] += p.batch > 1 and 0 in {p.stride_a, p.stride_b}
        layouts["loops"] += bool(p.loops)
        layouts["window"] += p.ldc > p.m > 1
        layouts["folded"] += p.batch == 1 and not p.loops and product[2].view.ndim > 2
        layouts["empty"] += 0 in {p.m, p.n, p.k}
    kinds_of_case = 4 + 2 + 8 + 6
    assert len(layouts) == kinds_of_case, layouts
    assert min(layouts.values()) >= 5, layouts


def test_negative_strides_are_copied():
    rows = np.zeros((4, 5))
    for view in (rows[::-1], rows[:, ::-1], rows.T[::-1], np.zeros((2, 4, 5))[::-1], rows[0][::-1]):
        assert not readable(layout(view))
    assert readable(layout(rows[:1, :][::-1]))  # one row cannot be reversed


@pytest.mark.parametrize(
    ("view", "is_readable"),
    [
        (np.zeros((4, 6)), True),
        (np.zeros((4, 6)).T, True),
        (np.zeros((4, 9))[:, 2:8], True),
        (np.zeros((4, 9))[:, 2:8].T, True),
        (np.zeros((8, 6))[::2], True),
        (np.zeros((4, 12))[:, ::2], False),
        (np.zeros((8, 12))[::2, ::2], False),
        (np.zeros((1, 12))[:, ::2], True),  # one row: its elements are the columns
        (np.zeros((4, 12))[:, ::12], True),  # one column
        (np.broadcast_to(np.zeros(6), (4, 6)), False),
        (np.broadcast_to(np.zeros((4, 6)), (3, 4, 6)), True),
        (np.zeros((3, 4, 6)).mT, True),
        (np.zeros((4, 3, 6)).transpose(1, 0, 2), True),
        (np.zeros((4, 6, 3)).transpose(2, 0, 1), False),
        (np.zeros(12)[::3], True),
        (as_strided(np.zeros(12), (4, 6), (8, 8)), False),  # rows that overlap
    ],
)
def test_only_what_cublas_cannot_read_is_copied(view, is_readable):
    assert readable(layout(view)) is is_readable


def test_an_axis_of_extent_one_may_have_any_stride():
    for first, second, leading in product(JUNK, JUNK, JUNK):
        assert readable(Layout((1, 1, 1), (leading, first, second)))
        assert writable(Layout((1, 1, 1), (leading, first, second)))
        assert readable(Layout((1, 1, 5), (leading, first, 1)))
        assert readable(Layout((1, 5, 1), (leading, 1, second)))


@pytest.mark.parametrize(
    ("view", "is_writable"),
    [
        (np.zeros((4, 6)), True),
        (np.zeros((4, 9))[:, :6], True),
        (np.zeros((6, 4)).T, True),
        (np.zeros((4, 12))[:, ::2], False),
        (np.zeros((4, 3, 6)).transpose(1, 0, 2), True),  # matrices interleaved, but apart
        (np.broadcast_to(np.zeros((4, 6)), (3, 4, 6)), False),
        (as_strided(np.zeros(60), (3, 4, 6), (8 * 12, 8 * 6, 8)), False),  # they overlap
        (np.zeros((4, 6))[::-1], False),
        (np.zeros(()), True),
    ],
)
def test_out_with_overlapping_elements_is_not_written_directly(view, is_writable):
    assert writable(layout(view)) is is_writable


def test_a_plan_for_an_unwritable_out_raises():
    with pytest.raises(ValueError, match="cuBLAS cannot write"):
        plan(contiguous((4, 5)), contiguous((5, 6)), Layout((4, 6), (12, 2)))


@pytest.mark.parametrize(("population", "own_rows"), [((), False), ((5,), False), ((5,), True)])
def test_layouts_of_training_need_no_copy_or_loop(population, own_rows):
    spec = Spec.parse("7-11-3-1")
    flat, grads = (np.zeros((*population, padded_size(spec))) for _ in range(2))
    params, grads = windows(np, spec, flat), windows(np, spec, grads)
    rows = np.zeros((*population, 16, 7) if own_rows else (16, 7))
    plans = []
    for i, layer in enumerate(spec.layers):
        delta = np.zeros((*population, 16, layer.n_out))
        weights, into = params[i].weights, grads[i].weights
        assert np.shares_memory(weights, flat)
        for a, b, out in (
            (rows, weights, delta),
            (rows.mT, delta, into),
            (delta, weights.mT, np.zeros((*population, 16, layer.n_in))),
        ):
            assert writable(layout(out))
            plans.append(plan(layout(a), layout(b), layout(out)))
        rows = delta
    for p in plans:
        assert p.copies == (False, False)
        assert p.loops == ()
        assert p.batch == (population[0] if population else 1)


def test_shared_weights_make_one_product():
    weights = Layout((7, 11), (11, 1))
    for images in (
        contiguous((5, 16, 7)),
        Layout((5, 16, 7), (16 * 9, 9, 1)),
        Layout((5, 1, 7), (9, 0, 1)),
    ):
        out = contiguous((*images.shape[:-1], 11))
        p = plan(images, weights, out)
        assert (p.batch, p.loops, p.m, p.n) == (1, (), 11, 5 * images.shape[1])
    separated = Layout((5, 16, 7), (200, 7, 1))
    assert plan(separated, weights, contiguous((5, 16, 11))).batch == 5


def test_the_longer_of_two_separate_axes_is_the_batch():
    for counts in ((3, 9), (9, 3)):
        a, b = contiguous((*counts, 4, 5)), contiguous((counts[0], 1, 5, 6))
        b = Layout(b.shape, (60, 7, 6, 1))
        a = Layout(a.shape, (2000, 200, 5, 1))  # apart, so that they are not one tall matrix
        p = plan(a, b, contiguous((*counts, 4, 6)))
        assert (p.batch, [axis.extent for axis in p.loops]) == (9, [3])


def test_shapes_follow_numpy():
    rng = np.random.default_rng(7)
    for _ in range(500):
        a, b = draw_shapes(rng)
        assert product_shape(a, b) == np.matmul(np.zeros(a), np.zeros(b)).shape


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ((), (3,), "at least one axis"),
        ((2, 3), (2, 3), "do not align"),
        ((3,), (2, 4), "do not align"),
        ((3,), (2,), "do not align"),
        ((2, 1, 3), (4, 3, 1), "do not broadcast"),
    ],
)
def test_mismatched_shapes_raise(a, b, words):
    with pytest.raises(ValueError, match=words):
        product_shape(a, b)


# The device half: CuPy's arrays and NVIDIA's bindings -----------------------------------------

DATA = {"float16": 2, "float32": 0, "float64": 1}  # cudaDataType


@pytest.fixture
def cupy(gpu):
    import cupy

    return cupy


@pytest.fixture
def cublas_calls(card):
    """A function from cuBLAS function names to the arguments of their calls in this test."""
    from support.standin import products

    products.calls.clear()
    return lambda *names: [call for name, call in products.calls if name in names]


GEMMS = ("gemm_ex", "gemm_strided_batched_ex")


@pytest.fixture
def cupy_matmul_calls(cupy, monkeypatch):
    """The recorded calls of CuPy's matmul."""
    calls, matmul = [], cupy.matmul

    def recorded(*arguments, **keywords):
        calls.append(arguments)
        return matmul(*arguments, **keywords)

    monkeypatch.setattr(cupy, "matmul", recorded)
    return calls


def on_device(cupy, array: BufferArray):
    """The array on the device with its host layout."""
    memory = cupy.asarray(array.buffer) if array.buffer.size else cupy.zeros(1, array.buffer.dtype)
    start = memory.data + array.start * array.buffer.itemsize
    view = array.view
    return cupy.ndarray(view.shape, view.dtype, start, strides=view.strides)


def counted(cupy, shape, dtype="float64"):
    return cupy.asarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype))


def test_cupy_views_have_numpys_layout(cupy):
    host = np.zeros((4, 5, 6), "float32")
    device = cupy.asarray(host)
    for view in (
        lambda x: x,
        lambda x: x.mT,
        lambda x: x[..., 1:4],
        lambda x: x[:, ::2],
        lambda x: x[::-1, :, 1:],
        lambda x: x[:, :1].mT,
        lambda x: x[2, 3],
    ):
        assert layout(view(device)) == layout(view(host))
        assert view(device).data.ptr - device.data.ptr == view(host).ctypes.data - host.ctypes.data


@pytest.mark.parametrize("dtype", DATA)
def test_matmul_matches_numpy_for_any_layout(cupy, dtype, cupy_matmul_calls, monkeypatch):
    gemm, copies, contiguous = Gemm(), [], cupy.ascontiguousarray
    monkeypatch.setattr(cupy, "ascontiguousarray", lambda x: copies.append(x) or contiguous(x))
    for seed in range(150):
        rng = np.random.default_rng(seed)
        a, b, out = draw_product(rng, dtype)
        expected = np.matmul(a.view, b.view)
        p = plan(layout(a.view), layout(b.view), layout(out.view))
        copies.clear()
        device_out = on_device(cupy, out)
        assert gemm.matmul(on_device(cupy, a), on_device(cupy, b), out=device_out) is device_out
        np.testing.assert_array_equal(device_out.get(), expected)
        if expected.size and p.k:
            assert len(copies) == sum(p.copies)
        actual = gemm.matmul(on_device(cupy, a), on_device(cupy, b))
        np.testing.assert_array_equal(actual.get(), expected)
        assert actual.dtype == dtype
    assert not cupy_matmul_calls


def test_out_that_cannot_be_written_directly_is_filled(cupy):
    gemm, a, b = Gemm(), counted(cupy, (4, 5)), counted(cupy, (5, 6))
    expected = np.matmul(a.get(), b.get())
    stepped, reverse = cupy.zeros((4, 12))[:, ::2], cupy.zeros((4, 6))[::-1]
    for out in (stepped, reverse):
        assert gemm.matmul(a, b, out=out) is out
        np.testing.assert_array_equal(out.get(), expected)
    square = counted(cupy, (5, 5))
    expected = np.matmul(square.get(), square.get().T)
    assert gemm.matmul(square, square.T, out=square) is square
    np.testing.assert_array_equal(square.get(), expected)


def test_an_empty_inner_axis_gives_zeros_without_cublas(cupy, cublas_calls):
    out = counted(cupy, (4, 6))
    Gemm().matmul(counted(cupy, (4, 0)), counted(cupy, (0, 6)), out=out)
    np.testing.assert_array_equal(out.get(), np.zeros((4, 6)))
    assert Gemm().matmul(counted(cupy, (0, 3)), counted(cupy, (3, 6))).shape == (0, 6)
    assert not cublas_calls(*GEMMS)


@pytest.mark.parametrize(("a", "b"), [("int64", "int64"), ("bool", "bool"), ("float32", "float64")])
def test_other_dtypes_use_cupys_product(cupy, cupy_matmul_calls, a, b):
    x, y = counted(cupy, (2, 3), a), counted(cupy, (3, 2), b)
    np.testing.assert_array_equal(Gemm().matmul(x, y).get(), np.matmul(x.get(), y.get()))
    assert len(cupy_matmul_calls) == 1


def test_out_of_another_dtype_uses_cupys_product(cupy, cupy_matmul_calls):
    x, y = counted(cupy, (2, 3), "float32"), counted(cupy, (3, 2), "float32")
    Gemm().matmul(x, y, out=counted(cupy, (2, 2)))
    assert len(cupy_matmul_calls) == 1


def test_precision_is_set_by_the_compute_type(cupy, cublas_calls):
    for precision, number in (("full", 68), ("tf32", 77)):
        gemm = Gemm(precision)
        for dtype, expected in (("float32", number), ("float64", 70), ("float16", 68)):
            gemm.matmul(counted(cupy, (2, 3), dtype), counted(cupy, (3, 2), dtype))
            last = cublas_calls(*GEMMS)[-1]
            assert (last.compute_type, last.atype, last.algo) == (expected, DATA[dtype], -1)
    with pytest.raises(ValueError, match="precision"):
        Gemm("half")


def test_bfloat16_values(gpu):
    from nvmath import CudaDataType
    from nvmath.bindings import cublas

    assert kinds(cublas.ComputeType, CudaDataType, "tf32")["bfloat16"][:2] == (14, 68)


def test_every_stream_has_its_own_workspace(cupy, cublas_calls):
    gemm, x, second_stream = Gemm(), counted(cupy, (2, 2)), cupy.cuda.Stream(non_blocking=True)
    for stream in (cupy.cuda.Stream.null, second_stream, second_stream, cupy.cuda.Stream.null):
        with stream:
            gemm.matmul(x, x)
    assert [call.stream_id for call in cublas_calls("set_stream")] == [0, second_stream.ptr, 0]
    spaces = cublas_calls("set_workspace")
    assert {space.workspace_size_in_bytes for space in spaces} == {WORKSPACE}
    assert spaces[0].workspace == spaces[2].workspace != spaces[1].workspace


def test_a_destroyed_stream_is_forgotten(cupy, cublas_calls):
    gemm, x = Gemm(), counted(cupy, (2, 2))
    for _ in range(2):
        gemm.matmul(x, x)
        gemm.forget(0)
        gemm.forget(7)  # never seen
    assert not gemm._workspaces
    assert len(cublas_calls("set_workspace")) == 2


def test_closing_destroys_the_handle_once(cupy, cublas_calls):
    gemm = Gemm()
    gemm.close()
    gemm.close()
    del gemm
    gc.collect()
    assert len(cublas_calls("destroy")) == 1


def test_a_dropped_gemm_destroys_its_handle_but_not_at_exit(cupy, cublas_calls):
    gemm = Gemm()
    assert not gemm._finalizer.atexit
    del gemm
    gc.collect()
    assert len(cublas_calls("destroy")) == 1


def test_mismatched_shapes_are_named(cupy):
    gemm = Gemm()
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 3\) do not align"):
        gemm.matmul(counted(cupy, (2, 3)), counted(cupy, (2, 3)))
    with pytest.raises(ValueError, match=r"out has shape \(2, 3\), the product \(2, 2\)"):
        gemm.matmul(counted(cupy, (2, 3)), counted(cupy, (3, 2)), out=counted(cupy, (2, 3)))
