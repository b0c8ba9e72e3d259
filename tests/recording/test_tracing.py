"""The programs traced from the core's elementwise functions, and what cannot be traced."""

from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.losses import LOSSES, loss
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.random import factors
from xpmlp.recording.tracing import Operation, UntraceableError, Value, arrays, constants, trace
from xpmlp.training.metrics import reported

ROWS = np.ones((2, 3))


def names(program):
    return [operation.name for operation in program.operations]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_and_slope_is_traced(name):
    pair = activation(name)
    assert len(trace(pair.f, ROWS).results) == 1
    assert trace(pair.slope, ROWS, ROWS).n_arguments == 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_is_traced(name):
    rule = OPTIMIZERS[name]
    h = SimpleNamespace(
        **rule.defaults | {"learning_rate": np.ones(1), "weight_decay": np.zeros(3)}
    )
    flat = [np.zeros(3)] * (2 + rule.slots)
    program = trace(rule.rule, h, np.ones(()), *flat)
    assert program.n_arguments == 2 + 1 + len(
        flat
    )  # weight decay and learning rate, the step, the buffers
    assert len(program.results) == 1 + rule.slots


def test_a_program_has_the_operations_of_the_formula():
    program = trace(lambda xp, z, a: 1 - a * a, ROWS, ROWS)
    product, difference = program.operations
    assert product == Operation("multiply", (Value(1), Value(1)))
    assert difference == Operation("subtract", (Value(-1, 1.0), Value(2)))
    assert program.results == (Value(3),)


def test_common_subexpressions_are_computed_once():
    assert names(trace(lambda xp, z: xp.exp(z) + xp.exp(z), ROWS)) == ["exp", "add"]


def test_positive_and_negative_zero_are_different_constants():
    def sum_of_zeros(xp, z):
        return xp.abs(z) * 0.0 + xp.abs(z) * -0.0

    assert names(trace(sum_of_zeros, ROWS)) == ["abs", "multiply", "multiply", "add"]


def test_factors_of_one_are_removed_but_not_terms_of_zero():
    assert names(trace(activation("identity").slope, ROWS, ROWS)) == []
    assert names(trace(lambda xp, z: z * xp.ones_like(z), ROWS)) == []
    assert names(trace(lambda xp, z: z + 0.0, ROWS)) == ["add"]  # -0.0 + 0.0 is 0.0


def test_numbers_become_constants_and_arrays_arguments():
    h = SimpleNamespace(beta=0.5, learning_rate=np.ones(1))
    arguments = (h, ROWS, 2.0)
    assert [a is b for a, b in zip(arrays(arguments), (h.learning_rate, ROWS), strict=True)] == [
        True,
        True,
    ]
    assert constants(arguments) == ((("beta", "0.5"),), "2.0")
    program = trace(lambda xp, h, z, factor: h.beta * z * h.learning_rate * factor, *arguments)
    assert program.n_arguments == 2


UNKNOWN = {
    "a sum over rows": lambda xp, z: xp.sum(z, axis=-2, keepdims=True),
    "a sum of all": lambda xp, z: xp.sum(z),
    "a part": lambda xp, z: z[..., :2],
    "a value": lambda xp, z: z if z > 0 else -z,
    "a result's shape": lambda xp, z: z / (2 * z).shape[0],
    "NumPy itself": lambda xp, z: np.exp(z),
    "another dtype": lambda xp, z: xp.astype(z, "complex64"),
    "two dtypes": lambda xp, z: z + xp.astype(z, "int64"),
    "an array of its own": lambda xp, z: z + np.ones(3),
    "a number that is none": lambda xp, z: z + True,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_untraceable_functions_raise(name):
    with pytest.raises(UntraceableError):
        trace(UNKNOWN[name], ROWS)


@pytest.mark.parametrize("name", sorted({*LOSSES} - {"quantile", "gaussian"}))
def test_every_loss_without_column_slices_is_traced(name):
    measure = loss(name)
    assert names(trace(measure.value, ROWS, ROWS))[-1] in ("sum_flat", "subtract")
    assert len(trace(measure.delta, ROWS, ROWS).results) == 1


@pytest.mark.parametrize("name", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_losses_in_scikit_learns_units_are_traced(name):
    assert len(trace(reported(name).value, ROWS, ROWS).operations) > 1


def test_reductions_over_the_last_axis_are_traced():
    def normal(xp, z):
        return z - xp.max(z, axis=-1, keepdims=True), xp.sum(z, axis=-1)

    assert names(trace(normal, ROWS)) == ["max", "subtract", "sum_flat"]


def test_the_dropout_hash_has_integer_operations_and_one_cast():
    index, key, now = (np.zeros(n, dtype="uint32") for n in (6, 1, 1))
    program = trace(factors, 0.3, "float32", index, key, key, now)
    assert program.dtypes[names(program).index("cast")] == "float32"
    numbers = [v.constant for o in program.operations for v in o.inputs if v.at < 0]
    assert all(isinstance(number, int) for number in numbers[:-1])
    assert {"bitwise_xor", "right_shift", "bitwise_and", "cast"} <= set(names(program))
