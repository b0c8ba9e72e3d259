"""Programs as CUDA kernels, run on the host by a C++ compiler: the numbers of the plain way."""

import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.backends.kernels import OPTIONS, Kernels
from xpmlp.backends.sources import TYPES, WIDEST, RowSource, Source
from xpmlp.backends.tracing import REDUCTIONS, arrays, trace
from xpmlp.core.activations import ACTIVATIONS, activation
from xpmlp.core.losses import LOSSES, loss
from xpmlp.core.network import activated, gradients, returned
from xpmlp.core.optimizers import OPTIMIZERS
from xpmlp.core.random import dropout_keys, factors, mask
from xpmlp.core.training import PENALTIES, outcome

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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lead", "columns"), [((), 4), ((), 1), ((3,), 4), ((3,), 70)])
@pytest.mark.parametrize("name", [*sorted(LOSSES), "cross_entropy:0.1", "quantile:0.1,0.4,0.8,0.9"])
def test_losses_and_last_deltas(name, lead, columns, dtype, kernels, gpu, rng):
    """Rows too long for a thread and quantiles run as they are, with the same numbers."""
    measure, slope = loss(name), activation("identity").slope
    columns = measure.levels or columns
    score = gpu.xp.asarray(4 * rng.normal(size=(*lead, 5, columns)), dtype=np.dtype(dtype))
    target = gpu.xp.asarray(rng.uniform(0, 0.9, size=score.shape), dtype=np.dtype(dtype))
    target = target[..., :1] if measure.levels else target
    weight = gpu.xp.asarray(rng.uniform(size=(*lead, 5, 1)), dtype=np.dtype(dtype))
    given = (measure.value, measure.delta, slope, score, target, weight, score)
    expected = outcome(gpu.xp, *given)
    found = kernels.apply(outcome, kernels.xp, *given)
    assert all(alike(*pair, dtype) for pair in zip(found, expected, strict=True))
    one_kernel = kernels.calls[0].plan is not None
    assert one_kernel == (measure.levels == 0 and columns <= WIDEST)


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"identity"}))
def test_the_last_layers_slope_is_part_of_it(name, kernels, gpu, rng):
    measure, pair = loss("cross_entropy"), activation(name)
    z = gpu.xp.asarray(rng.normal(size=(5, 4)))
    target, weight = (gpu.xp.asarray(rng.uniform(size=shape)) for shape in ((5, 4), (5, 1)))
    given = (measure.value, measure.delta, pair.slope, pair.f(gpu.xp, z), target, weight, z)
    expected = outcome(gpu.xp, *given)
    found = kernels.apply(outcome, kernels.xp, *given)
    assert all(alike(*two, "float64") for two in zip(found, expected, strict=True))
    assert kernels.calls[0].plan is not None


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_masks_are_one_kernel_and_the_same_bits(lead, dtype, kernels, gpu):
    keys = dropout_keys((1, 2, 3)[: 3 if lead else 1], lead, 0).astype("uint32")
    for step in (0, 7, 2**31 + 5):
        kernels.restart()
        expected = mask(np, keys, np.asarray(step), 0.3, (6, 5), dtype)
        there = (gpu.xp.asarray(keys), gpu.xp.asarray(np.asarray(step)))
        found = mask(kernels.xp, *there, 0.3, (6, 5), dtype, apply=kernels.apply)
        assert found.dtype == dtype
        assert found.get().tobytes() == expected.tobytes()
    assert kernels.calls[0].plan is not None


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
    written = Source(trace(lambda xp, z: z, np.ones(1)), [np.ones(1)]).literal(number, "double")
    assert float(written.removeprefix("(double)(").removesuffix(")")) == number


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
    text, count = "", 0
    for dtype in ("float32", "float64"):
        one = np.ones((2, 4), dtype=dtype)
        asked = [(activated, (activation(name).f, one, one[:1])) for name in ACTIVATIONS]
        asked += [(returned, (activation(n).slope, one, one, one)) for n in sorted(ACTIVATIONS)]
        for rule in OPTIMIZERS.values():
            h = SimpleNamespace(**rule.defaults, rate=one[:, :1], decay=one)
            asked.append((rule.rule, (h, one, one, one, *[one] * rule.memories)))
        for name in sorted({*LOSSES} - {"quantile"}):
            pair, slope = loss(name), activation("tanh").slope
            asked.append((outcome, (pair.value, pair.delta, slope, one, one, one[:, :1], one)))
        lane = one.astype("uint32")
        asked.append((factors, (0.3, dtype, lane[0], lane[:, :1], lane[:, :1], lane[0, :1])))
        for function, given in asked:
            program, values = trace(function, *given), arrays(given)
            rows = any(operation.name in REDUCTIONS for operation in program.operations)
            written = (RowSource if rows else Source)(program, values)
            body = (written.by_rows if rows else written.elementwise)(program.results)
            names = [(f"a{k}", a.dtype.name) for k, a in enumerate(values)]
            names += [(f"r{r}", written.dtypes[v.at]) for r, v in enumerate(program.results)]
            held = "".join(
                f"{TYPES[kind]}* {name} = ({TYPES[kind]}*)p[{k}];"
                if rows
                else f"{TYPES[kind]}& {name} = (({TYPES[kind]}*)p[{k}])[i];"
                for k, (name, kind) in enumerate(names)
            )
            text += f"__global__ void f{count}(void** p, long i) {{ {held} {body} }}\n"
            count += 1
    path = tmp_path / "kernels.cu"
    path.write_text(text)
    command = [nvcc, *OPTIONS, "--ptx", "-o", str(tmp_path / "kernels.ptx"), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert ptx.count(".entry") == count > 60
