"""The plan against a GEMM that reads memory by its numbers; the device half on CuPy."""

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

JUNK = [0, 1, -1, 2, 7, -300, 10**6]  # strides that an axis of extent 1 may well have


class Minibatch(NamedTuple):
    """An array somewhere in a buffer, and where it starts there."""

    buffer: np.ndarray  # (size,)
    view: np.ndarray
    start: int  # in elements


def draw(rng, shape, *, broadcast=True, dtype="float64") -> Minibatch:
    """An array of this shape: axes in any memory order, windowed, stepped, reversed, broadcast."""
    order = rng.permutation(len(shape)) if rng.random() < 0.4 else np.arange(len(shape))
    if len(shape) > 1 and rng.random() < 0.4:
        order = np.array([*order[:-2], order[-1], order[-2]])
    extents, cuts = [], []
    tame = rng.random() < 0.5  # a layout that training meets: no steps, nothing reversed
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
    return Minibatch(buffer, view, start)


def draw_extent(rng) -> int:
    return int(rng.choice([0, 1, 1, 1, 2, 3, 4, 5, 6], p=[0.03, 0.1, 0.1, 0.07, *[0.14] * 5]))


def draw_shapes(rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes that matmul takes: 1-D to 3-D mostly, some 4-D and 5-D, broadcast both ways."""
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


def draw_product(rng, dtype="float64") -> tuple[Minibatch, Minibatch, Minibatch]:
    """Two operands and an out that the plan may write to."""
    a_shape, b_shape = draw_shapes(rng)
    a, b = draw(rng, a_shape, dtype=dtype), draw(rng, b_shape, dtype=dtype)
    shape = product_shape(a_shape, b_shape)
    for _ in range(8):
        out = draw(rng, shape, broadcast=False, dtype=dtype)
        if writable(layout(out.view)):
            return a, b, out
    fresh = np.zeros(shape, dtype)
    return a, b, Minibatch(fresh.reshape(-1), fresh, 0)


# cuBLAS, in NumPy --------------------------------------------------------------------------


def addresses(rows, columns, ld, start):
    """Where a column-major matrix lies: element (i, j) at start + i + j ld."""
    return start + np.arange(rows)[:, None] + np.arange(columns) * ld


def assert_taken_by_cublas(p):
    """What cublasGemmEx and cublasGemmStridedBatchedEx demand of their arguments."""
    assert p.m >= 0
    assert p.n >= 0
    assert p.k >= 0
    assert p.batch >= 0
    assert p.lda >= max(1, p.k if p.transa else p.m)
    assert p.ldb >= max(1, p.n if p.transb else p.k)
    assert p.ldc >= max(1, p.m)
    assert all(type(number) is int for number in p[3:13])
    assert p.batch != 1 or (p.stride_a, p.stride_b, p.stride_c) == (0, 0, 0)


def carry_out(p, a: Minibatch, b: Minibatch, out: Minibatch) -> tuple[Counter, Counter, Counter]:
    """Write a @ b to out by the plan's numbers; how often each address of the three was used."""
    first, second = (b, a) if p.first == "b" else (a, b)
    used = Counter(), Counter(), Counter()
    for (i, j, l), at in product(p.starts(), range(p.batch)):
        rows, columns = (p.k, p.m) if p.transa else (p.m, p.k)
        of_a = addresses(rows, columns, p.lda, first.start + i + at * p.stride_a)
        rows, columns = (p.n, p.k) if p.transb else (p.k, p.n)
        of_b = addresses(rows, columns, p.ldb, second.start + j + at * p.stride_b)
        of_c = addresses(p.m, p.n, p.ldc, out.start + l + at * p.stride_c)
        for counter, taken in zip(used, (of_a, of_b, of_c), strict=True):
            counter.update(taken.ravel().tolist())
        for taken, within in ((of_a, first), (of_b, second), (of_c, out)):
            assert taken.size == 0 or 0 <= taken.min() <= taken.max() < within.buffer.size
        stored_a, stored_b = first.buffer[of_a], second.buffer[of_b]
        op_a, op_b = stored_a.T if p.transa else stored_a, stored_b.T if p.transb else stored_b
        out.buffer[of_c] = op_a @ op_b
    return (used[1], used[0], used[2]) if p.first == "b" else used


def own_addresses(drawn: Minibatch) -> list[int]:
    """Where the elements of an array lie in its buffer, once per element."""
    numbers = np.arange(drawn.buffer.size)
    strides = [stride // drawn.buffer.itemsize * numbers.itemsize for stride in drawn.view.strides]
    return as_strided(numbers[drawn.start :], drawn.view.shape, strides).ravel().tolist()


def after_copy(drawn: Minibatch, copied: bool) -> Minibatch:
    if not copied:
        return drawn
    fresh = np.ascontiguousarray(drawn.view)
    return Minibatch(fresh.reshape(-1), fresh, 0)


def check_product(a: Minibatch, b: Minibatch, out: Minibatch):
    """Plan, carry out, compare; every address read is the operand's, every one of out written."""
    expected = np.matmul(a.view, b.view)
    untouched = out.buffer.copy()
    p = plan(layout(a.view), layout(b.view), layout(out.view))
    assert_taken_by_cublas(p)
    assert p.copies == (not readable(layout(a.view)), not readable(layout(b.view)))
    a, b = after_copy(a, p.copies[0]), after_copy(b, p.copies[1])
    used = carry_out(p, a, b, out)
    np.testing.assert_array_equal(out.view, expected)  # small integers: exact in any order
    for drawn, taken in zip((a, b), used, strict=False):
        assert set(taken) <= set(own_addresses(drawn))
    assert used[2] == Counter(own_addresses(out))  # each element once, and no other
    untouched[own_addresses(out)] = out.buffer[own_addresses(out)]
    np.testing.assert_array_equal(out.buffer, untouched)
    return p


@pytest.mark.parametrize("chunk", range(8))
def test_plan_computes_the_product_over_random_layouts(chunk):
    seen = Counter()
    for seed in range(1000 * chunk, 1000 * chunk + 1000):
        rng = np.random.default_rng(seed)
        drawn = draw_product(rng)
        try:
            p = check_product(*drawn)
        except Exception as error:
            error.add_note(f"seed {seed}: {[layout(x.view) for x in drawn]}")
            raise
        seen[p.copies] += 1
        seen["first", p.first] += 1
        seen["trans", p.first, p.transa, p.transb] += 1
        seen["batch"] += p.batch > 1
        seen["shared"] += p.batch > 1 and 0 in {p.stride_a, p.stride_b}
        seen["loops"] += bool(p.loops)
        seen["window"] += p.ldc > p.m > 1
        seen["folded"] += p.batch == 1 and not p.loops and drawn[2].view.ndim > 2
        seen["empty"] += 0 in {p.m, p.n, p.k}
    kinds_of_case = 4 + 2 + 8 + 6
    assert len(seen) == kinds_of_case, seen
    assert min(seen.values()) >= 5, seen


def test_negative_strides_are_copied():
    rows = np.zeros((4, 5))
    for view in (rows[::-1], rows[:, ::-1], rows.T[::-1], np.zeros((2, 4, 5))[::-1], rows[0][::-1]):
        assert not readable(layout(view))
    assert readable(layout(rows[:1, :][::-1]))  # along one row nothing is reversed


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
def test_out_is_written_only_where_no_element_lies_twice(view, is_writable):
    assert writable(layout(view)) is is_writable


def test_a_plan_for_an_out_that_cannot_be_written_raises():
    with pytest.raises(ValueError, match="cuBLAS cannot write"):
        plan(contiguous((4, 5)), contiguous((5, 6)), Layout((4, 6), (12, 2)))


@pytest.mark.parametrize(("population", "own_rows"), [((), False), ((5,), False), ((5,), True)])
def test_no_layout_met_in_training_is_copied_or_looped(population, own_rows):
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


def test_weights_shared_by_a_batch_of_matrices_make_one_product():
    weights = Layout((7, 11), (11, 1))
    for images in (
        contiguous((5, 16, 7)),
        Layout((5, 16, 7), (16 * 9, 9, 1)),
        Layout((5, 1, 7), (9, 0, 1)),
    ):
        out = contiguous((*images.shape[:-1], 11))
        p = plan(images, weights, out)
        assert (p.batch, p.loops, p.m, p.n) == (1, (), 11, 5 * images.shape[1])
    apart = Layout((5, 16, 7), (200, 7, 1))
    assert plan(apart, weights, contiguous((5, 16, 11))).batch == 5


def test_the_longest_of_two_axes_that_cannot_be_joined_is_the_batch():
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
def test_shapes_that_do_not_fit_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        product_shape(a, b)


# The device half: CuPy's arrays and NVIDIA's bindings -----------------------------------------

DATA = {"float16": 2, "float32": 0, "float64": 1}  # cudaDataType


@pytest.fixture
def cupy(gpu):
    import cupy

    return cupy


@pytest.fixture
def asked(card):
    """A function from names of cuBLAS's functions to what they were called with in this test."""
    from support.standin import products

    products.calls.clear()
    return lambda *names: [given for name, given in products.calls if name in names]


GEMMS = ("gemm_ex", "gemm_strided_batched_ex")


@pytest.fixture
def own_matmul(cupy, monkeypatch):
    """The calls of CuPy's own product."""
    calls, matmul = [], cupy.matmul

    def noted(*given, **named):
        calls.append(given)
        return matmul(*given, **named)

    monkeypatch.setattr(cupy, "matmul", noted)
    return calls


def on_device(cupy, drawn: Minibatch):
    """The drawn array on the device, laid out as it is on the host."""
    memory = cupy.asarray(drawn.buffer) if drawn.buffer.size else cupy.zeros(1, drawn.buffer.dtype)
    start = memory.data + drawn.start * drawn.buffer.itemsize
    view = drawn.view
    return cupy.ndarray(view.shape, view.dtype, start, strides=view.strides)


def counted(cupy, shape, dtype="float64"):
    return cupy.asarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype))


def test_cupy_lays_its_views_out_as_numpy_does(cupy):
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
def test_matmul_is_numpys_for_any_layout(cupy, dtype, own_matmul, monkeypatch):
    gemm, copies, contiguous = Gemm(), [], cupy.ascontiguousarray
    monkeypatch.setattr(cupy, "ascontiguousarray", lambda x: copies.append(x) or contiguous(x))
    for seed in range(150):
        rng = np.random.default_rng(seed)
        a, b, out = draw_product(rng, dtype)
        expected = np.matmul(a.view, b.view)
        p = plan(layout(a.view), layout(b.view), layout(out.view))
        copies.clear()
        given = on_device(cupy, out)
        assert gemm.matmul(on_device(cupy, a), on_device(cupy, b), out=given) is given
        np.testing.assert_array_equal(given.get(), expected)
        if expected.size and p.k:
            assert len(copies) == sum(p.copies)
        fresh = gemm.matmul(on_device(cupy, a), on_device(cupy, b))
        np.testing.assert_array_equal(fresh.get(), expected)
        assert fresh.dtype == dtype
    assert not own_matmul


def test_out_that_cannot_be_written_directly_is_filled_all_the_same(cupy):
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


def test_an_empty_inner_axis_gives_zeros_without_cublas(cupy, asked):
    out = counted(cupy, (4, 6))
    Gemm().matmul(counted(cupy, (4, 0)), counted(cupy, (0, 6)), out=out)
    np.testing.assert_array_equal(out.get(), np.zeros((4, 6)))
    assert Gemm().matmul(counted(cupy, (0, 3)), counted(cupy, (3, 6))).shape == (0, 6)
    assert not asked(*GEMMS)


@pytest.mark.parametrize(("a", "b"), [("int64", "int64"), ("bool", "bool"), ("float32", "float64")])
def test_other_dtypes_are_left_to_cupy(cupy, own_matmul, a, b):
    x, y = counted(cupy, (2, 3), a), counted(cupy, (3, 2), b)
    np.testing.assert_array_equal(Gemm().matmul(x, y).get(), np.matmul(x.get(), y.get()))
    assert len(own_matmul) == 1


def test_out_of_another_dtype_is_left_to_cupy(cupy, own_matmul):
    x, y = counted(cupy, (2, 3), "float32"), counted(cupy, (3, 2), "float32")
    Gemm().matmul(x, y, out=counted(cupy, (2, 2)))
    assert len(own_matmul) == 1


def test_precision_is_asked_for_by_the_compute_type(cupy, asked):
    for precision, number in (("full", 68), ("tf32", 77)):
        gemm = Gemm(precision)
        for dtype, expected in (("float32", number), ("float64", 70), ("float16", 68)):
            gemm.matmul(counted(cupy, (2, 3), dtype), counted(cupy, (3, 2), dtype))
            last = asked(*GEMMS)[-1]
            assert (last.compute_type, last.atype, last.algo) == (expected, DATA[dtype], -1)
    with pytest.raises(ValueError, match="precision"):
        Gemm("half")


def test_bfloat16_has_its_numbers(gpu):
    from nvmath import CudaDataType
    from nvmath.bindings import cublas

    assert kinds(cublas.ComputeType, CudaDataType, "tf32")["bfloat16"][:2] == (14, 68)


def test_the_handle_follows_the_stream_with_a_workspace_of_its_own(cupy, asked):
    gemm, x, other = Gemm(), counted(cupy, (2, 2)), cupy.cuda.Stream(non_blocking=True)
    for stream in (cupy.cuda.Stream.null, other, other, cupy.cuda.Stream.null):
        with stream:
            gemm.matmul(x, x)
    assert [call.stream_id for call in asked("set_stream")] == [0, other.ptr, 0]
    spaces = asked("set_workspace")
    assert {space.workspace_size_in_bytes for space in spaces} == {WORKSPACE}
    assert spaces[0].workspace == spaces[2].workspace != spaces[1].workspace


def test_a_stream_that_is_done_with_is_forgotten(cupy, asked):
    gemm, x = Gemm(), counted(cupy, (2, 2))
    for _ in range(2):
        gemm.matmul(x, x)
        gemm.forget(0)
        gemm.forget(7)  # never seen
    assert not gemm._workspaces
    assert len(asked("set_workspace")) == 2


def test_closing_destroys_the_handle_once(cupy, asked):
    gemm = Gemm()
    gemm.close()
    gemm.close()
    del gemm
    gc.collect()
    assert len(asked("destroy")) == 1


def test_a_dropped_gemm_destroys_its_handle_but_not_at_exit(cupy, asked):
    gemm = Gemm()
    assert not gemm._finalizer.atexit
    del gemm
    gc.collect()
    assert len(asked("destroy")) == 1


def test_shapes_that_do_not_fit_are_named(cupy):
    gemm = Gemm()
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 3\) do not align"):
        gemm.matmul(counted(cupy, (2, 3)), counted(cupy, (2, 3)))
    with pytest.raises(ValueError, match=r"out has shape \(2, 3\), the product \(2, 2\)"):
        gemm.matmul(counted(cupy, (2, 3)), counted(cupy, (3, 2)), out=counted(cupy, (2, 3)))
