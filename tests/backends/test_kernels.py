"""Programs as CUDA kernels, run on the host by a C++ compiler: the numbers of the plain way."""

import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.backends.kernels import OPTIONS, Kernels, literal, source
from xpmlp.backends.tracing import UntraceableError, trace
from xpmlp.core.activations import ACTIVATIONS, activation
from xpmlp.core.losses import LOSSES, loss
from xpmlp.core.network import activated, gradients, returned
from xpmlp.core.optimizers import OPTIMIZERS
from xpmlp.core.training import PENALTIES, last_delta

# relative, or to 1: exp and tanh of the C library and of NumPy differ in the last bits, which
# 1 - tanh(z)**2 lays bare; nothing else differs
CLOSE = {"float32": 1e-5, "float64": 2e-14}


@pytest.fixture
def kernels(gpu, recording):
    return Kernels(gpu.xp, recording.CUPY)


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
    z, a = activated(xp, pair.f, product, bias)
    fast_z, fast_a = kernels.apply(activated, kernels.xp, pair.f, product, bias)
    assert alike(fast_z, z, dtype)
    assert alike(fast_a, a, dtype)
    expected = returned(xp, pair.slope, back, z, a)
    assert alike(kernels.apply(returned, kernels.xp, pair.slope, back, z, a), expected, dtype)
    assert all(call.plan is not None for call in kernels.calls), "not one kernel"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_rules_are_written_where_they_are_read(name, lead, dtype, kernels, gpu, rng):
    rule, xp = OPTIMIZERS[name], gpu.xp
    theta, g, *memory = (
        xp.asarray(np.abs(rng.normal(size=(*lead, 64))), dtype=np.dtype(dtype))
        for _ in range(2 + rule.memories)
    )
    rate, decay = (
        xp.asarray(np.full(shape, 0.1), dtype=np.dtype(dtype)) for shape in ((*lead, 1), (64,))
    )
    h = SimpleNamespace(**rule.defaults, rate=rate, decay=decay)
    now = xp.asarray(3.0, dtype=np.dtype(dtype))
    expected = rule.rule(xp, h, now, theta, g, *memory)
    kernels.apply(rule.rule, kernels.xp, h, now, theta, g, *memory, into=(theta, *memory))
    assert all(alike(a, b, dtype) for a, b in zip((theta, *memory), expected, strict=True))
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


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_last_deltas(name, kernels, gpu, rng):
    """Where the loss adds up over the outputs it runs as it is, with the same numbers."""
    measure, slope = loss(name), activation("identity").slope
    score, target = (gpu.xp.asarray(rng.uniform(0.1, 0.9, size=(5, 4))) for _ in range(2))
    target = target[:, :1] if measure.levels else target
    weight = gpu.xp.asarray(rng.uniform(size=(5, 1)))
    given = (measure.delta, slope, score, target, weight, score)
    expected = last_delta(gpu.xp, *given)
    assert alike(kernels.apply(last_delta, kernels.xp, *given), expected, "float64")


def test_products_and_sums_are_made_where_they_are_wanted(kernels, gpu, recording, rng):
    x, delta, dW, db = (
        gpu.xp.asarray(rng.normal(size=s)) for s in ((5, 3), (5, 2), (3, 2), (1, 2))
    )

    before = recording.DEFAULT_POOL.allocations
    kernels.apply(gradients, kernels.xp, x, delta, into=(dW, db))
    assert recording.DEFAULT_POOL.allocations == before
    assert np.allclose(dW.get(), x.get().T @ delta.get())
    assert np.allclose(db.get(), delta.get().sum(axis=0))


def test_a_result_that_is_an_argument_needs_no_kernel(kernels, gpu, recording):
    z = gpu.xp.asarray([[1.0, 2.0]])
    slope = activation("identity").slope
    before = recording.DEFAULT_POOL.allocations
    assert kernels.apply(returned, kernels.xp, slope, z, z, z) is z
    assert recording.DEFAULT_POOL.allocations == before


def test_equal_results_are_one_array(kernels, gpu):
    z, a = kernels.apply(
        activated, kernels.xp, activation("identity").f, gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2))
    )
    assert z is a


@pytest.mark.parametrize("number", [0.1, -2.5e-300, 1e300, 3.0])
def test_literals_are_the_number(number):
    assert float(literal(number).removeprefix("T(").removesuffix(")")) == number


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinite_constants(number, kernels, gpu, monkeypatch):
    monkeypatch.setattr("xpmlp.backends.calls.ours", lambda function: True)
    found = kernels.apply(lambda xp, x: x + number, kernels.xp, gpu.xp.ones((1, 2)))
    assert (found.get() == number).all()
    assert kernels.calls[0].plan is not None


def test_the_same_dtype_is_asked_of_all(kernels, gpu):
    mixed = (gpu.xp.ones((2, 2)), gpu.xp.ones((1, 2), dtype=np.float32))
    found, _ = kernels.apply(activated, kernels.xp, activation("tanh").f, *mixed)
    assert found.dtype == np.float64
    assert kernels.calls[0].plan is None


@pytest.mark.slow
def test_nvidias_compiler_takes_every_kernel(tmp_path):
    """As text: nothing runs. Skipped without nvcc."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no GPU here: no nvcc either")
    bodies = []
    one = np.ones((2, 2))
    for name in ACTIVATIONS:
        pair = activation(name)
        for function, given in (
            (activated, (pair.f, one, one[:1])),
            (returned, (pair.slope, one, one, one)),
        ):
            try:
                bodies.append(trace(function, *given))
            except UntraceableError:
                continue
    for rule in OPTIMIZERS.values():
        h = SimpleNamespace(**rule.defaults, rate=one[:, :1], decay=one)
        bodies.append(trace(rule.rule, h, one, one, one, *[one] * rule.memories))
    text = ""
    for k, program in enumerate(bodies):
        inputs = "".join(f"const T a{i} = p[{i}];" for i in range(program.arguments))
        out = "".join(f"T& r{r} = p[{r}];" for r in range(len(program.results)))
        for kind in ("float", "double"):
            text += (
                f"__global__ void f{k}_{kind}({kind}* p) {{ typedef {kind} T; {inputs} {out} "
                f"{source(program, program.results)} }}\n"
            )
    path = tmp_path / "kernels.cu"
    path.write_text(text)
    command = [nvcc, *OPTIONS, "--ptx", "-o", str(tmp_path / "kernels.ptx"), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert ptx.count(".entry") == 2 * len(bodies)
    assert len(bodies) > 25
