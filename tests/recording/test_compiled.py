"""Rules compiled by numba: they match NumPy, are cached on disk, and are optional."""

import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, returned
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording import numba_writer as compiled
from xpmlp.recording.codegen import output_values
from xpmlp.recording.numpy_writer import NumpyBackend
from xpmlp.recording.plans import CompileRequest
from xpmlp.recording.tracing import trace
from xpmlp.step import l1_pull, l2_pull, outcome
from xpmlp.training.divergence import guarded

COUNT = compiled.MIN_SIZE
# relative: one rounding in the last digit, where the sqrt or expm1 of another library differs
DIGITS = {"float32": 4 * np.finfo("float32").eps, "float64": 4 * np.finfo("float64").eps}


@pytest.fixture(autouse=True)
def numba(optional, monkeypatch, tmp_path):
    """numba, with an empty cache for this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.load_function.cache_clear()
    return optional("numba")


def hyper_and_buffers(rule, dtype, lead, rng):
    h = SimpleNamespace(**rule.defaults, learning_rate=np.full((1,), 0.01, dtype=dtype))
    h.weight_decay = rng.uniform(0, 0.1, size=(*lead, COUNT)).astype(dtype)
    buffers = [rng.normal(size=(*lead, COUNT)).astype(dtype) for _ in range(2 + rule.slots)]
    buffers[2:] = [np.abs(part) for part in buffers[2:]]
    return h, buffers


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rules_match_numpy(name, dtype, rng, capsys, tmp_path):
    rule, backend = OPTIMIZERS[name], NumpyBackend()
    h, buffers = hyper_and_buffers(rule, dtype, (), rng)
    for t in (1.0, 2.0):
        now = np.asarray(t, dtype=dtype)
        expected = rule.rule(np, h, now, *(part.copy() for part in buffers))
        moved = [buffers[0], *buffers[2:]]
        backend.restart()
        backend.apply(rule.rule, np, h, now, *buffers, into=moved)
        for actual, value in zip(moved, expected, strict=True):
            scale = np.abs(value) + np.abs(h.learning_rate)
            assert (np.abs(actual - value) <= DIGITS[dtype] * scale).all()
    stderr = capsys.readouterr().err
    assert stderr.count("compiling") == 1, "once for both updates"
    assert str(tmp_path) in stderr


@pytest.mark.parametrize("pull", [l1_pull, l2_pull])
def test_penalties_are_compiled(pull, rng):
    strength, theta, g = (rng.normal(size=COUNT) for _ in range(3))
    scale = np.array([0.5])
    (expected,) = pull(np, strength, scale, theta, g)
    NumpyBackend().apply(pull, np, strength, scale, theta, g, into=(g,))
    np.testing.assert_allclose(g, expected, rtol=DIGITS["float64"], atol=1e-15)


def test_hyper_parameters_are_arguments_of_one_compiled_loop(rng, tmp_path):
    rule = OPTIMIZERS["adam"]
    for beta in (0.9, 0.8):
        h, buffers = hyper_and_buffers(rule, "float64", (), rng)
        h.beta1 = beta
        moved = [buffers[0], *buffers[2:]]
        step = np.asarray(1.0)
        expected = rule.rule(np, h, step, *(part.copy() for part in buffers))
        NumpyBackend().apply(rule.rule, np, h, step, *buffers, into=moved)
        np.testing.assert_allclose(moved[0], expected[0], rtol=1e-12)
    assert len(list((tmp_path / "xpmlp").glob("*.py"))) == 1


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_rules_of_populations_match_numpy(name, rng):
    """Each member has its own learning rate, and the second is stopped."""
    rule, dtype = guarded(OPTIMIZERS[name]), "float64"
    h, buffers = hyper_and_buffers(OPTIMIZERS[name], dtype, (3,), rng)
    h.learning_rate, h.alive = rng.uniform(0.1, 0.2, (3, 1)), np.array([[1.0], [0.0], [1.0]])
    h.slots_reset_step = np.zeros((3, 1))
    for t in (1.0, 2.0):
        now = np.asarray(t)
        expected = rule.rule(np, h, now, *(part.copy() for part in buffers))
        moved, before = [buffers[0], *buffers[2:]], buffers[0].copy()
        backend = NumpyBackend()
        backend.apply(rule.rule, np, h, now, *buffers, into=moved)
        assert isinstance(backend.calls[0].plan.run, partial), "it was compiled"
        for actual, value in zip(moved, expected, strict=True):
            scale = np.abs(value) + np.abs(h.learning_rate)
            assert (np.abs(actual - value) <= DIGITS[dtype] * scale).all()
        assert np.array_equal(buffers[0][1], before[1])
        assert not np.array_equal(buffers[0][2], before[2])


@pytest.mark.parametrize("reason", ["few", "strided"])
def test_small_or_strided_arrays_run_as_ufuncs(reason, rng, tmp_path):
    rule, backend = OPTIMIZERS["adam"], NumpyBackend()
    h, buffers = hyper_and_buffers(rule, "float64", (), rng)
    if reason == "few":
        buffers, h.weight_decay = [part[:64].copy() for part in buffers], h.weight_decay[:64].copy()
    if reason == "strided":
        buffers = [np.repeat(part, 2)[::2] for part in buffers]
    moved, step = [buffers[0], *buffers[2:]], np.asarray(1.0)
    expected = rule.rule(np, h, step, *(part.copy() for part in buffers))
    backend.apply(rule.rule, np, h, step, *buffers, into=moved)
    assert all(map(np.array_equal, moved, expected))
    assert not (tmp_path / "xpmlp").exists()


@pytest.mark.parametrize("part", [".nbc", ".nbi", ".py"])
def test_a_damaged_cache_file_is_rewritten(part, rng, tmp_path):
    rule = OPTIMIZERS["sgd"]
    h, buffers = hyper_and_buffers(rule, "float64", (), rng)
    (expected,) = rule.rule(np, h, np.asarray(1.0), *(b.copy() for b in buffers))
    for attempt in range(4):
        theta, g = (b.copy() for b in buffers)
        NumpyBackend().apply(rule.rule, np, h, np.asarray(1.0), theta, g, into=(theta,))
        assert np.array_equal(theta, expected)
        files = [path for path in (tmp_path / "xpmlp").rglob("*") if path.suffix == part]
        assert files or attempt == 1  # in the second attempt no cached file was usable
        if attempt == 0:
            for path in files:
                path.write_bytes(b"\xff")
        compiled.load_function.cache_clear()
        for name in [name for name in sys.modules if name.startswith("xpmlp_")]:
            del sys.modules[name]


def test_ufuncs_run_where_the_cache_is_not_writable(monkeypatch, rng, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    rule, backend = OPTIMIZERS["sgd"], NumpyBackend()
    h, buffers = hyper_and_buffers(rule, "float64", (), rng)
    (expected,) = rule.rule(np, h, np.asarray(1.0), *(part.copy() for part in buffers))
    backend.apply(rule.rule, np, h, np.asarray(1.0), *buffers, into=buffers[:1])
    assert np.array_equal(buffers[0], expected)


def test_the_generated_loop_has_the_operations_of_the_formula():
    values = [np.ones(1), np.ones(()), np.ones(3), np.ones(3)]
    program = trace(OPTIMIZERS["sgd"].rule, SimpleNamespace(learning_rate=values[0]), *values[1:])
    request = CompileRequest(program, values, values[2:3], (2,), "sgd")
    outputs, _ = output_values(request)
    text = compiled.PythonRowSource(request).text(outputs, "sgd")
    assert [line.strip() for line in text.splitlines()[-10:]] == [
        "x0 = a0.item()",
        "x1 = a1.item()",
        "x2 = a2.reshape((rows, width))",
        "x3 = a3.reshape((rows, width))",
        "y0 = x2",
        "for i in range(rows):",
        "for j in range(width):",
        "v4 = x0 * x3[i, j]",
        "v5 = x2[i, j] - v4",
        "y0[i, j] = v5",
    ]


CODE = """
import numpy as np, xpmlp, sys
X = np.random.default_rng(0).normal(size=(64, 200))
model = xpmlp.train("200-200-1", X, X[:, 0], epochs=2)
print(float(abs(model.flat).sum()), "numba" in sys.modules)
"""


def test_another_process_reuses_the_cache(tmp_path):
    outputs = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
        outputs.append((result.stdout, "compiling" in result.stderr))
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].endswith("True\n")
    assert [compiles for _, compiles in outputs] == [True, False]


def elements(function, dtype, rows=5, width=7, members=0):
    """Arguments of an elementwise function of a step, some of large magnitude.

    The biases of a population are strided views, as its windows onto the parameters are.
    """
    rng = np.random.default_rng(rows)
    kinds = {
        "activated": ((rows, width), (1, width)),
        "returned": ((rows, width),) * 3,
        "outcome": ((rows, width), (rows, width), (rows, 1)),
    }
    lead = (members,) if members else ()
    arrays = [3 * rng.standard_normal((*lead, *shape)) for shape in kinds[function.__name__]]
    if function is activated and members:
        arrays[1] = np.concatenate([arrays[1]] * 2, axis=-1)[..., :width]
    if function is outcome:
        arrays[1] = np.abs(arrays[1])
    return [part.astype(dtype) for part in arrays]


def actual_and_expected(function, functions, arguments):
    backend = NumpyBackend(compiled.MANY)
    actual = backend.apply(function, backend.xp, *functions, *arguments)
    assert isinstance(backend.calls[0].plan.run, partial), "it was compiled"
    expected = function(np, *functions, *arguments)
    pairs = zip(
        *(values if isinstance(values, tuple) else (values,) for values in (actual, expected)),
        strict=True,
    )
    return [(np.asarray(a), np.asarray(b)) for a, b in pairs]


SIZES = [(5, 7), (1, 7), (5, 1), (5, 7, 3), (5, 1, 3), (1, 7, 3), (5, 7, 1)]
NEAR = {"float32": 2e-6, "float64": 1e-14}  # the exp of another library rounds differently


def tolerances(dtype, times=1):
    return {"rtol": times * NEAR[dtype], "atol": times * NEAR[dtype]}


@pytest.mark.slow  # numba takes a second for each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_and_slopes_match_numpy(name, dtype):
    kind = activation(name)
    for function, part in ((activated, kind.f), (returned, kind.slope)):
        if len(trace(function, part, *elements(function, dtype)).operations) < 2:
            continue  # a single ufunc is not compiled
        for size in SIZES:
            for actual, expected in actual_and_expected(
                function, [part], elements(function, dtype, *size)
            ):
                assert actual.shape == expected.shape
                np.testing.assert_allclose(actual, expected, **tolerances(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name",
    # one of several scores per target reads columns, which is no elementwise kernel
    [*sorted({*LOSSES} - {"quantile", "gaussian"}), "cross_entropy:0.1"],
)
def test_losses_and_deltas_match_numpy(name, dtype):
    measure = loss(name)
    for size in SIZES:
        arguments = elements(outcome, dtype, *size)
        functions = [measure.value, measure.delta]
        for actual, expected in actual_and_expected(outcome, functions, arguments):
            assert actual.shape == expected.shape
            np.testing.assert_allclose(
                actual, expected, rtol=20 * NEAR[dtype], atol=20 * NEAR[dtype]
            )


def test_nan_and_infinity_propagate():
    z = np.array([[np.nan, np.inf, -np.inf, 1.0]])
    bias = np.zeros((1, 4))
    for name in ("relu", "sigmoid", "tanh"):
        for actual, expected in actual_and_expected(activated, [activation(name).f], [z, bias]):
            np.testing.assert_array_equal(actual, expected)
