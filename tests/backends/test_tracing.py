"""What the core's elementwise functions come to as programs, and what is not traced."""

from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.backends.tracing import Operation, UntraceableError, Value, arrays, constants, trace
from xpmlp.core.activations import ACTIVATIONS, activation
from xpmlp.core.losses import loss
from xpmlp.core.optimizers import OPTIMIZERS

ROWS = np.ones((2, 3))


def names(program):
    return [operation.name for operation in program.operations]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_and_slope_is_traced(name):
    pair = activation(name)
    assert trace(pair.f, ROWS).single
    assert trace(pair.slope, ROWS, ROWS).arguments == 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_is_traced(name):
    rule = OPTIMIZERS[name]
    h = SimpleNamespace(**rule.defaults, rate=np.ones(1), decay=np.zeros(3))
    flat = [np.zeros(3)] * (2 + rule.memories)
    program = trace(rule.rule, h, np.ones(()), *flat)
    assert program.arguments == 2 + 1 + len(flat)  # decay and rate, the step, the buffers
    assert len(program.results) == 1 + rule.memories


def test_a_program_is_the_formula():
    program = trace(lambda xp, z, a: 1 - a * a, ROWS, ROWS)
    product, difference = program.operations
    assert product == Operation("multiply", (Value(1), Value(1)))
    assert difference == Operation("subtract", (Value(-1, 1.0), Value(2)))
    assert program.results == (Value(3),)


def test_what_is_computed_twice_is_one_operation():
    assert names(trace(lambda xp, z: xp.exp(z) + xp.exp(z), ROWS)) == ["exp", "add"]


def test_zeros_of_two_signs_are_two_numbers():
    def both(xp, z):
        return xp.abs(z) * 0.0 + xp.abs(z) * -0.0

    assert names(trace(both, ROWS)) == ["abs", "multiply", "multiply", "add"]


def test_a_factor_of_one_is_left_out_and_a_term_of_zero_is_not():
    assert names(trace(activation("identity").slope, ROWS, ROWS)) == []
    assert names(trace(lambda xp, z: z * xp.ones_like(z), ROWS)) == []
    assert names(trace(lambda xp, z: z + 0.0, ROWS)) == ["add"]  # -0.0 + 0.0 is 0.0


def test_numbers_are_constants_and_arrays_arguments():
    h = SimpleNamespace(beta=0.5, rate=np.ones(1))
    given = (h, ROWS, 2.0)
    assert [a is b for a, b in zip(arrays(given), (h.rate, ROWS), strict=True)] == [True, True]
    assert constants(given) == ((("beta", "0.5"),), "2.0")
    program = trace(lambda xp, h, z, factor: h.beta * z * h.rate * factor, *given)
    assert program.arguments == 2


NOT_ELEMENTWISE = {
    "a sum": lambda xp, z: xp.sum(z, axis=-1),
    "a part": lambda xp, z: z[..., :2],
    "a value": lambda xp, z: z if z > 0 else -z,
    "a shape": lambda xp, z: z / z.shape[0],
    "NumPy itself": lambda xp, z: np.exp(z),
    "another dtype": lambda xp, z: xp.astype(z, "int64"),
    "an array of its own": lambda xp, z: z + np.ones(3),
    "a number that is none": lambda xp, z: z + True,
}


@pytest.mark.parametrize("what", NOT_ELEMENTWISE)
def test_what_is_not_elementwise_is_not_traced(what):
    with pytest.raises(UntraceableError):
        trace(NOT_ELEMENTWISE[what], ROWS)


def test_losses_that_reduce_are_not_traced():
    for function in (loss("cross_entropy").delta, loss("squared_error").value):
        with pytest.raises(UntraceableError):
            trace(function, ROWS, ROWS)
    assert names(trace(loss("squared_error").delta, ROWS, ROWS)) == ["subtract"]
