"""Traced programs as CUDA kernels: they match the separate operations."""

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
def allocated_sizes(gpu):
    """A function that calls another one and returns the sizes of its memory allocations."""
    import cupy

    def measure(function):
        sizes, pool = [], cupy.get_default_memory_pool()
        with cupy.cuda.using_allocator(lambda size: sizes.append(size) or pool.malloc(size)):
            function()
        return sizes

    return measure


@pytest.fixture
def values(gpu, rng):
    """Arrays on the device with values that reach every branch."""

    def random_values(*shape, dtype="float64", positive=False):
        array = rng.normal(size=shape)
        flat = array.reshape(-1)
        special = [0.0, -0.0, 30.0, -30.0, 1e3, -1e3, np.inf, np.nan]
        flat[: len(special)] = special[: flat.size]
        return gpu.xp.asarray(np.abs(array) if positive else array, dtype=np.dtype(dtype))

    return random_values


def close_arrays(actual, expected, dtype):
    actual, expected = actual.get(), expected.get()
    assert actual.dtype == expected.dtype == dtype
    assert actual.shape == expected.shape
    with np.errstate(all="ignore"):
        close = np.abs(actual - expected) <= CLOSE[dtype] * np.maximum(np.abs(expected), 1)
    return bool((close | (actual == expected) | (np.isnan(actual) & np.isnan(expected))).all())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_forward_and_backward(name, dtype, kernels, values, gpu):
    pair, xp = activation(name), gpu.xp
    product, bias, delta = (values(*s, dtype=dtype) for s in ((3, 6, 8), (3, 1, 8), (3, 6, 8)))
    z, a, _ = activated(xp, pair.f, product, bias)
    fast_z, fast_a, fast_x = kernels.apply(activated, kernels.xp, pair.f, product, bias)
    assert close_arrays(fast_z, z, dtype)
    assert close_arrays(fast_a, a, dtype)
    assert fast_x is fast_a
    expected = returned(xp, pair.slope, delta, z, a)
    assert close_arrays(
        kernels.apply(returned, kernels.xp, pair.slope, delta, z, a), expected, dtype
    )
    assert all(call.plan is not None for call in kernels.calls), "not one kernel"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_in_place_rules(name, lead, dtype, kernels, gpu, rng):
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
    assert all(close_arrays(a, b, dtype) for a, b in zip((theta, *slots), expected, strict=True))
    assert kernels.calls[0].plan is not None


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_penalties(name, kernels, gpu, values):
    cost, pull = PENALTIES[name]
    strength, theta, g = values(32, positive=True), values(2, 32), values(2, 32)
    expected = cost(gpu.xp, strength, 0.5, theta)
    assert close_arrays(kernels.apply(cost, kernels.xp, strength, 0.5, theta), expected, "float64")
    (expected,) = pull(gpu.xp, strength, 0.5, theta, g)
    kernels.apply(pull, kernels.xp, strength, 0.5, theta, g, into=(g,))
    assert close_arrays(g, expected, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lead", "columns"), [((), 4), ((), 1), ((3,), 4), ((3,), 70)])
@pytest.mark.parametrize("name", [*sorted(LOSSES), "cross_entropy:0.1", "quantile:0.1,0.4,0.8,0.9"])
def test_losses_and_deltas_of_the_last_layer(name, lead, columns, dtype, kernels, gpu, rng):
    """Quantiles and rows too long for a thread run as separate operations, with equal results."""
    measure = loss(name)
    columns = measure.scores_per_target if measure.scores_per_target > 1 else columns
    score = gpu.xp.asarray(4 * rng.normal(size=(*lead, 5, columns)), dtype=np.dtype(dtype))
    target = gpu.xp.asarray(rng.uniform(0, 0.9, size=score.shape), dtype=np.dtype(dtype))
    target = target[..., : measure.targets(columns)]
    weight = gpu.xp.asarray(rng.uniform(size=(*lead, 5, 1)), dtype=np.dtype(dtype))
    arguments = (measure.value, measure.delta, score, target, weight)
    expected = outcome(gpu.xp, *arguments)
    actual = kernels.apply(outcome, kernels.xp, *arguments)
    assert all(close_arrays(*pair, dtype) for pair in zip(actual, expected, strict=True))
    one_kernel = kernels.calls[0].plan is not None
    assert one_kernel == (
        name not in ("gaussian", "quantile", "quantile:0.1,0.4,0.8,0.9") and columns <= MAX_COLUMNS
    )


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"identity"}))
def test_the_slope_of_the_last_layer_is_a_kernel(name, kernels, gpu, rng):
    measure, pair = loss("cross_entropy"), activation(name)
    z = gpu.xp.asarray(rng.normal(size=(5, 4)))
    target, weight = (gpu.xp.asarray(rng.uniform(size=shape)) for shape in ((5, 4), (5, 1)))
    a = pair.f(gpu.xp, z)
    arguments = (measure.value, measure.delta, a, target, weight)
    expected = returned(gpu.xp, pair.slope, outcome(gpu.xp, *arguments)[1], z, a)
    _, g = kernels.apply(outcome, kernels.xp, *arguments)
    actual = kernels.apply(returned, kernels.xp, pair.slope, g, z, a)
    assert close_arrays(actual, expected, "float64")
    assert all(call.plan is not None for call in kernels.calls)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_masks_are_one_kernel_with_numpys_bits(lead, dtype, kernels, gpu):
    keys = dropout_keys((1, 2, 3)[: 3 if lead else 1], lead, 0).astype("uint32")
    for step in (0, 7, 2**31 + 5):
        kernels.restart()
        expected = mask(np, keys, np.asarray(step), 0.3, (6, 5), dtype)
        arguments = (gpu.xp.asarray(keys), gpu.xp.asarray(np.asarray(step)))
        mask_array = mask(kernels.xp, *arguments, 0.3, (6, 5), dtype, apply=kernels.apply)
        ones, zeros = (gpu.xp.full((*lead, n, 5), x, dtype=dtype) for n, x in ((6, 1.0), (1, 0.0)))
        *_, dropped = kernels.apply(
            activated, kernels.xp, activation("tanh").f, ones, zeros, mask_array
        )
        assert mask_array.array.get().tobytes() == expected.tobytes()
        assert np.allclose(dropped.get(), expected * np.tanh(1))
    assert kernels.calls[0].plan is not None
    assert len(kernels.calls) == 1


def test_a_mask_with_another_use_has_its_own_kernel(kernels, gpu):
    keys = dropout_keys((1,), (), 0).astype("uint32")
    arguments = (gpu.xp.asarray(keys), gpu.xp.asarray(np.asarray(3)))
    mask_array = mask(kernels.xp, *arguments, 0.3, (6, 5), "float32", apply=kernels.apply)
    delta = gpu.xp.ones((6, 5), dtype=gpu.xp.float32)
    slope = activation("relu").slope
    actual = kernels.apply(returned, kernels.xp, slope, delta, delta, delta, mask_array)
    expected = mask(np, keys, np.asarray(3), 0.3, (6, 5), "float32")
    assert (actual.get() == expected).all()


def test_products_and_sums_are_written_into_their_outputs(kernels, gpu, allocated_sizes, rng):
    x, delta, dW, db = (
        gpu.xp.asarray(rng.normal(size=s)) for s in ((5, 3), (5, 2), (3, 2), (1, 2))
    )
    into = {"into": (dW, db)}
    assert allocated_sizes(lambda: kernels.apply(gradients, kernels.xp, x, delta, **into)) == []
    assert np.allclose(dW.get(), x.get().T @ delta.get())
    assert np.allclose(db.get(), delta.get().sum(axis=0))


def test_a_result_that_is_an_argument_needs_no_kernel(kernels, gpu, allocated_sizes):
    z = gpu.xp.asarray([[1.0, 2.0]])
    slope = activation("identity").slope
    results = []
    kernel = lambda: results.append(kernels.apply(returned, kernels.xp, slope, z, z, z))
    assert allocated_sizes(kernel) == []
    assert results[0] is z


def test_equal_results_are_one_array(kernels, gpu):
    z, a, _ = kernels.apply(
        activated, kernels.xp, activation("identity").f, gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2))
    )
    assert z is a


@pytest.mark.parametrize("number", [0.1, -2.5e-300, 1e300, 3.0])
def test_literals_are_exact(number):
    literal = Source(trace(lambda xp, z: z, np.ones(1)), [np.ones(1)]).literal(number, "double")
    assert float(literal.removeprefix("(double)(").removesuffix(")")) == number


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinite_constants(number, kernels, gpu, monkeypatch):
    monkeypatch.setattr("xpmlp.recording.plans.is_own", lambda function: True)
    actual = kernels.apply(lambda xp, x: x + number, kernels.xp, gpu.xp.ones((1, 2)))
    assert (actual.get() == number).all()
    assert kernels.calls[0].plan is not None


def test_mixed_dtypes_are_not_fused(kernels, gpu):
    mixed = (gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2), dtype=np.float32))
    actual, *_ = kernels.apply(activated, kernels.xp, activation("tanh").f, *mixed)
    assert actual.dtype == np.float64
    assert kernels.calls[0].plan is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lead", "n"), [((), 5), ((), 535_840), ((3,), 20_000), ((2,), 0)])
def test_vecdot_matches_numpy(lead, n, dtype, kernels, gpu, rng):
    a, b = (rng.standard_normal((*lead, n)).astype(dtype) for _ in range(2))
    actual = kernels.xp.vecdot(gpu.xp.asarray(a), gpu.xp.asarray(b)).get()
    assert actual.dtype == dtype
    size = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b)) + 1e-30
    error = np.abs(actual - np.vecdot(a.astype("float64"), b.astype("float64"))) / size
    assert np.all(error < (1e-6 if dtype == "float32" else 1e-15))


def test_a_long_row_is_summed_by_several_blocks(kernels, gpu, card):
    """As in the norm of the gradient; a reduction of CuPy uses one block per row."""
    grad = gpu.xp.ones((535_840,), dtype=gpu.xp.float32)
    kernels.vecdot(grad, grad)
    card.launches.clear()
    assert kernels.vecdot(grad, grad).get() == 535_840
    assert [launch.name for launch in card.launches] == ["xpmlp_vecdot"] * 2
    assert [launch.grid for launch in card.launches] == [130, 1]


@pytest.mark.parametrize("lead", [(), (3,)])
def test_many_rows_are_summed_in_two_kernels(lead, kernels, gpu, card, rng):
    """As in the bias gradient of a large batch, where there is no epilogue."""
    delta = rng.standard_normal((*lead, 2048, 5))
    device_delta = gpu.xp.asarray(delta)
    kernels.xp.sum(device_delta, axis=-2, keepdims=True)
    card.launches.clear()
    actual = kernels.xp.sum(device_delta, axis=-2, keepdims=True).get()
    assert np.allclose(actual, delta.sum(axis=-2, keepdims=True), rtol=1e-12)
    assert [launch.name for launch in card.launches] == ["cupy_sum"] * 2
