"""The ONNX graph namespace: functions that ONNX lacks are accurate, and others raise."""

import numpy as np
import pytest

from xpmlp.recording.onnx_graph import Graph
from xpmlp.recording.tracing import CALLS, UntraceableError
from xpmlp.storage.onnx import serialize

pytest.importorskip("onnx")

RELATIVE = {"float32": 1e-6, "float64": 5e-15}  # a few roundings
TINY = np.finfo(np.float32).tiny


@pytest.fixture
def evaluate(run_onnx):
    """Evaluate the ONNX graph of a function of (xp, *arrays) on arrays (N,)."""

    def run(function, *arrays):
        graph = Graph()
        names = [f"a{i}" for i in range(len(arrays))]
        inputs = [
            graph.input(name, str(a.dtype), ("N",)) for name, a in zip(names, arrays, strict=True)
        ]
        graph.output("found", function(graph, *inputs))
        return run_onnx(serialize(graph), dict(zip(names, arrays, strict=True)))["found"]

    return run


def numbers(lowest, highest):
    powers = [sign * 10.0**-k for k in range(1, 31) for sign in (-1, 1)]
    values = np.concatenate([np.linspace(lowest, highest, 3001), powers, [0.0, 1e30, np.inf]])
    return values[values >= lowest]


# the smallest number in the domain of each
LOWEST = {"expm1": -110.0, "log1p": -1.0}


@pytest.mark.parametrize("name", LOWEST)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_missing_in_onnx_are_accurate(name, dtype, evaluate):
    x = numbers(LOWEST[name], 95.0).astype(dtype)
    actual = evaluate(lambda xp, x: getattr(xp, name)(x), x)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=RELATIVE[dtype], atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hypotenuse_does_not_overflow(dtype, evaluate):
    large = np.sqrt(np.finfo(dtype).max) * 1e5
    a = np.array([0, 3, -3, 1, 1, large, large, 1], dtype=dtype)
    b = np.array([0, 4, 4, 0, 1e-9, large, 1, -large], dtype=dtype)
    actual = evaluate(lambda xp, a, b: xp.hypot(a, b), a, b)
    np.testing.assert_allclose(actual, np.hypot(a, b), rtol=RELATIVE[dtype], atol=0)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_traceable_function_is_supported(name, evaluate, rng):
    arguments = list(rng.uniform(0.1, 2, (CALLS[name], 50)).astype(np.float32))
    if name == "where":
        actual = evaluate(lambda xp, a, b, c: xp.where(a > b, a, c), *arguments)
        np.testing.assert_array_equal(
            actual, np.where(arguments[0] > arguments[1], arguments[0], arguments[2])
        )
        return
    actual = evaluate(lambda xp, *arrays: getattr(xp, name)(*arrays), *arguments)
    np.testing.assert_allclose(actual, getattr(np, name)(*arguments), rtol=RELATIVE["float32"])


OPERATORS = {
    "numbers": lambda a, b: 2 - 3 * a / (b + 1) ** 2 + (-b) / 7 - 1 / a,
    "comparisons": lambda a, b: (a > b) * a + (a >= 1) * b + (b < 1) * (a + b) + (a <= b) * -b,
    "logic": lambda a, b: ((a > 1) & ~(b > 1)) * a,
}


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operators_are_supported(kind, dtype, evaluate, rng):
    a, b = rng.uniform(0.1, 2, (2, 50)).astype(dtype)
    actual = evaluate(lambda xp, a, b: OPERATORS[kind](a, b), a, b)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, OPERATORS[kind](a, b), rtol=RELATIVE[dtype])


def test_common_subexpressions_are_computed_once():
    graph = Graph()
    x = graph.input("x", "float32", ("N",))
    assert graph.exp(x) + graph.exp(x) is graph.exp(x) + graph.exp(x)
    assert [node.op_type for node in graph.nodes] == ["Exp", "Add"]
    assert graph.constant(0.0, "float32") is not graph.constant(-0.0, "float32")


def test_nodes_do_not_use_names_of_inputs(evaluate):
    graph = Graph()
    for name in ("Exp.0", "constant.0", "_Exp.0"):
        graph.input(name, "float32", ("N",))
    noted = graph.exp(graph.inputs["Exp.0"])
    assert noted.name not in graph.inputs
    assert graph.constant(1.0, "float32").name not in graph.inputs


UNSUPPORTED = {
    "an unknown call": (lambda xp, x: xp.fft(x), "it calls xp.fft"),
    "a missing argument": (lambda xp, x: xp.maximum(x), "xp.maximum with 1 argument"),
    "a text": (lambda xp, x: x + "a", "it uses a str"),
    "a truth": (lambda xp, x: x + True, "it uses a bool"),
    "an array": (lambda xp, x: x + np.ones(3), "it uses a ndarray"),
    "another dtype": (lambda xp, x: x + xp.astype(x, xp.float64), "float64 together with float32"),
    "an unknown dtype": (lambda xp, x: xp.astype(x, "complex64"), "it casts to complex64"),
    "some rows": (lambda xp, x: x[1:, :], "it takes a part of an array"),
    "every second column": (lambda xp, x: x[..., ::2], "it takes a part of an array"),
    "no column": (lambda xp, x: x[..., 3:2], "it takes a part of an array"),
    "a column of a member": (lambda xp, x: x[0, ..., 1:], "it takes a part of an array"),
    "a row as an array": (lambda xp, x: x + x[..., :1, :], "it uses a Row"),
    "a reading": (lambda xp, x: x if x > 0 else -x, "it reads a value"),
    "another axis": (lambda xp, x: xp.sum(x, axis=-2), "it reduces over the axis -2"),
    "NumPy": (lambda xp, x: np.clip(x, 0, 1), "it calls NumPy itself"),
    "NumPy's ufuncs": (lambda xp, x: np.exp(x), "ufunc"),
    "shapes that do not fit": (
        lambda xp, x: x + xp.input("y", "float32", (3, 2)),
        "do not broadcast",
    ),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_functions_raise(kind):
    function, message = UNSUPPORTED[kind]
    graph = Graph()
    x = graph.input("x", "float32", ("N", 5))
    with pytest.raises(TypeError, match=message) as caught:
        function(graph, x)
    assert isinstance(caught.value, UntraceableError) or kind == "NumPy's ufuncs"


def test_a_constant_beyond_the_dtype_is_refused():
    with pytest.raises(ValueError, match=r"constant\.0 has 1e\+300, beyond float32"):
        Graph().constant(1e300, "float32")
    Graph().constant(np.inf, "float32")
    Graph().constant(1e300, "float64")
