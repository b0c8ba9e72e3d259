"""Programs as CUDA kernels: the numbers of the plain way."""

from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, gradients, returned
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.random import dropout_keys, mask
from xpmlp.recording.codegen import MAX_COLUMNS, Source
from xpmlp.recording.cuda_writer import CudaBackend
from xpmlp.recording.tracing import trace
from xpmlp.step import PENALTIES, outcome

# relative, or to 1: exp and tanh of the C library and of NumPy differ in the last bits, which
# 1 - tanh(z)**2 lays bare; nothing else differs
CLOSE = {"float32": 1e-5, "float64": 2e-14}


@pytest.fixture
def kernels(gpu):
    import cupy

    return CudaBackend(gpu.xp, cupy)


@pytest.fixture
def allocated(gpu):
    """A function that calls another one, and gives the sizes of the memory that this asked for."""
    import cupy

    def run(function):
        sizes, pool = [], cupy.get_default_memory_pool()
        with cupy.cuda.using_allocator(lambda size: sizes.append(size) or pool.malloc(size)):
            function()
        return sizes

    return run


@pytest.fixture
def values(gpu, rng):
    """Arrays at the stand-in that reach every branch."""

    def draw(*shape, dtype="float64", positive=False):
        drawn = rng.normal(size=shape)
        flat = drawn.reshape(-1)
        special = [0.0, -0.0, 30.0, -30.0, 1e3, -1e3, np.inf, np.nan]
        flat[: len(special)] = special[: flat.size]
        return gpu.xp.asarray(np.abs(drawn) if positive else drawn, dtype=np.dtype(dtype))

    return draw


def alike(found, expected, dtype):
    found, expected = found.get(), expected.get()
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    with np.errstate(all="ignore"):
        far = np.abs(found - expected) <= CLOSE[dtype] * np.maximum(np.abs(expected), 1)
    return bool((far | (found == expected) | (np.isnan(found) & np.isnan(expected))).all())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_and_their_way_back(name, dtype, kernels, values, gpu):
    pair, xp = activation(name), gpu.xp
    product, bias, back = (values(*s, dtype=dtype) for s in ((3, 6, 8), (3, 1, 8), (3, 6, 8)))
    z, a, _ = activated(xp, pair.f, product, bias)
    fast_z, fast_a, fast_x = kernels.apply(activated, kernels.xp, pair.f, product, bias)
    assert alike(fast_z, z, dtype)
    assert alike(fast_a, a, dtype)
    assert fast_x is fast_a
    expected = returned(xp, pair.slope, back, z, a)
    assert alike(kernels.apply(returned, kernels.xp, pair.slope, back, z, a), expected, dtype)
    assert all(call.plan is not None for call in kernels.calls), "not one kernel"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_rules_are_written_where_they_are_read(name, lead, dtype, kernels, gpu, rng):
    rule, xp = OPTIMIZERS[name], gpu.xp
    theta, g, *slots = (
        xp.asarray(np.abs(rng.normal(size=(*lead, 64))), dtype=np.dtype(dtype))
        for _ in range(2 + rule.slots)
    )
    rate, decay = (
        xp.asarray(np.full(shape, 0.1), dtype=np.dtype(dtype)) for shape in ((*lead, 1), (64,))
    )
    h = SimpleNamespace(**rule.defaults | {"learning_rate": rate, "weight_decay": decay})
    now = xp.asarray(3.0, dtype=np.dtype(dtype))
    expected = rule.rule(xp, h, now, theta, g, *slots)
    kernels.apply(rule.rule, kernels.xp, h, now, theta, g, *slots, into=(theta, *slots))
    assert all(alike(a, b, dtype) for a, b in zip((theta, *slots), expected, strict=True))
    assert kernels.calls[0].plan is not None


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_penalties(name, kernels, gpu, values):
    cost, pull = PENALTIES[name]
    strength, theta, g = values(32, positive=True), values(2, 32), values(2, 32)
    expected = cost(gpu.xp, strength, 0.5, theta)
    assert alike(kernels.apply(cost, kernels.xp, strength, 0.5, theta), expected, "float64")
    (expected,) = pull(gpu.xp, strength, 0.5, theta, g)
    kernels.apply(pull, kernels.xp, strength, 0.5, theta, g, into=(g,))
    assert alike(g, expected, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lead", "columns"), [((), 4), ((), 1), ((3,), 4), ((3,), 70)])
@pytest.mark.parametrize("name", [*sorted(LOSSES), "cross_entropy:0.1", "quantile:0.1,0.4,0.8,0.9"])
def test_losses_and_last_deltas(name, lead, columns, dtype, kernels, gpu, rng):
    """Rows too long for a thread and quantiles run as they are, with the same numbers."""
    measure = loss(name)
    columns = measure.scores_per_target if measure.scores_per_target > 1 else columns
    score = gpu.xp.asarray(4 * rng.normal(size=(*lead, 5, columns)), dtype=np.dtype(dtype))
    target = gpu.xp.asarray(rng.uniform(0, 0.9, size=score.shape), dtype=np.dtype(dtype))
    target = target[..., : measure.targets(columns)]
    weight = gpu.xp.asarray(rng.uniform(size=(*lead, 5, 1)), dtype=np.dtype(dtype))
    given = (measure.value, measure.delta, score, target, weight)
    expected = outcome(gpu.xp, *given)
    found = kernels.apply(outcome, kernels.xp, *given)
    assert all(alike(*pair, dtype) for pair in zip(found, expected, strict=True))
    one_kernel = kernels.calls[0].plan is not None
    assert one_kernel == (
        name not in ("gaussian", "quantile", "quantile:0.1,0.4,0.8,0.9") and columns <= MAX_COLUMNS
    )


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"identity"}))
def test_the_last_layers_slope_is_a_kernel(name, kernels, gpu, rng):
    measure, pair = loss("cross_entropy"), activation(name)
    z = gpu.xp.asarray(rng.normal(size=(5, 4)))
    target, weight = (gpu.xp.asarray(rng.uniform(size=shape)) for shape in ((5, 4), (5, 1)))
    a = pair.f(gpu.xp, z)
    given = (measure.value, measure.delta, a, target, weight)
    expected = returned(gpu.xp, pair.slope, outcome(gpu.xp, *given)[1], z, a)
    _, g = kernels.apply(outcome, kernels.xp, *given)
    found = kernels.apply(returned, kernels.xp, pair.slope, g, z, a)
    assert alike(found, expected, "float64")
    assert all(call.plan is not None for call in kernels.calls)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_masks_are_one_kernel_and_the_same_bits(lead, dtype, kernels, gpu):
    keys = dropout_keys((1, 2, 3)[: 3 if lead else 1], lead, 0).astype("uint32")
    for step in (0, 7, 2**31 + 5):
        kernels.restart()
        expected = mask(np, keys, np.asarray(step), 0.3, (6, 5), dtype)
        there = (gpu.xp.asarray(keys), gpu.xp.asarray(np.asarray(step)))
        drawn = mask(kernels.xp, *there, 0.3, (6, 5), dtype, apply=kernels.apply)
        one, none = (gpu.xp.full((*lead, n, 5), x, dtype=dtype) for n, x in ((6, 1.0), (1, 0.0)))
        *_, dropped = kernels.apply(activated, kernels.xp, activation("tanh").f, one, none, drawn)
        assert drawn.array.get().tobytes() == expected.tobytes()
        assert np.allclose(dropped.get(), expected * np.tanh(1))
    assert kernels.calls[0].plan is not None
    assert len(kernels.calls) == 1


def test_a_mask_that_is_multiplied_by_something_else_is_drawn_alone(kernels, gpu):
    keys = dropout_keys((1,), (), 0).astype("uint32")
    there = (gpu.xp.asarray(keys), gpu.xp.asarray(np.asarray(3)))
    drawn = mask(kernels.xp, *there, 0.3, (6, 5), "float32", apply=kernels.apply)
    back = gpu.xp.ones((6, 5), dtype=gpu.xp.float32)
    slope = activation("relu").slope
    found = kernels.apply(returned, kernels.xp, slope, back, back, back, drawn)
    expected = mask(np, keys, np.asarray(3), 0.3, (6, 5), "float32")
    assert (found.get() == expected).all()


def test_products_and_sums_are_made_where_they_are_wanted(kernels, gpu, allocated, rng):
    x, delta, dW, db = (
        gpu.xp.asarray(rng.normal(size=s)) for s in ((5, 3), (5, 2), (3, 2), (1, 2))
    )
    into = {"into": (dW, db)}
    assert allocated(lambda: kernels.apply(gradients, kernels.xp, x, delta, **into)) == []
    assert np.allclose(dW.get(), x.get().T @ delta.get())
    assert np.allclose(db.get(), delta.get().sum(axis=0))


def test_a_result_that_is_an_argument_needs_no_kernel(kernels, gpu, allocated):
    z = gpu.xp.asarray([[1.0, 2.0]])
    slope = activation("identity").slope
    found = []
    kernel = lambda: found.append(kernels.apply(returned, kernels.xp, slope, z, z, z))
    assert allocated(kernel) == []
    assert found[0] is z


def test_equal_results_are_one_array(kernels, gpu):
    z, a, _ = kernels.apply(
        activated, kernels.xp, activation("identity").f, gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2))
    )
    assert z is a


@pytest.mark.parametrize("number", [0.1, -2.5e-300, 1e300, 3.0])
def test_literals_are_the_number(number):
    written = Source(trace(lambda xp, z: z, np.ones(1)), [np.ones(1)]).literal(number, "double")
    assert float(written.removeprefix("(double)(").removesuffix(")")) == number


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinite_constants(number, kernels, gpu, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.plans.is_own", lambda function: True)
    found = kernels.apply(lambda xp, x: x + number, kernels.xp, gpu.xp.ones((1, 2)))
    assert (found.get() == number).all()
    assert kernels.calls[0].plan is not None


def test_the_same_dtype_is_asked_of_all(kernels, gpu):
    mixed = (gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2), dtype=np.float32))
    found, *_ = kernels.apply(activated, kernels.xp, activation("tanh").f, *mixed)
    assert found.dtype == np.float64
    assert kernels.calls[0].plan is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lead", "n"), [((), 5), ((), 535_840), ((3,), 20_000), ((2,), 0)])
def test_a_dot_product_of_rows_is_numpys(lead, n, dtype, kernels, gpu, rng):
    a, b = (rng.standard_normal((*lead, n)).astype(dtype) for _ in range(2))
    found = kernels.xp.vecdot(gpu.xp.asarray(a), gpu.xp.asarray(b)).get()
    assert found.dtype == dtype
    size = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b)) + 1e-30
    error = np.abs(found - np.vecdot(a.astype("float64"), b.astype("float64"))) / size
    assert np.all(error < (1e-6 if dtype == "float32" else 1e-15))


def test_a_long_row_is_summed_by_many_blocks(kernels, gpu, card):
    """As the gradient's norm: a reduction of CuPy's is one block a row, however long."""
    grad = gpu.xp.ones((535_840,), dtype=gpu.xp.float32)
    kernels.vecdot(grad, grad)
    card.launches.clear()
    assert kernels.vecdot(grad, grad).get() == 535_840
    assert [launch.name for launch in card.launches] == ["xpmlp_vecdot"] * 2
    assert [launch.grid for launch in card.launches] == [130, 1]


@pytest.mark.parametrize("lead", [(), (3,)])
def test_many_rows_are_summed_in_parts(lead, kernels, gpu, card, rng):
    """As the bias's gradient of a large batch, where the epilogue is not to be had."""
    delta = rng.standard_normal((*lead, 2048, 5))
    there = gpu.xp.asarray(delta)
    kernels.xp.sum(there, axis=-2, keepdims=True)
    card.launches.clear()
    found = kernels.xp.sum(there, axis=-2, keepdims=True).get()
    assert np.allclose(found, delta.sum(axis=-2, keepdims=True), rtol=1e-12)
    assert [launch.name for launch in card.launches] == ["cupy_sum"] * 2
