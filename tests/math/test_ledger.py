"""The shape ledger: its shapes and sizes are those of the arrays of a step."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.initializers import initial, initial_population
from xpmlp.layout import padded_size, windows
from xpmlp.losses import loss
from xpmlp.network import forward
from xpmlp.optimizers import optimizer
from xpmlp.shape_ledger import bad_target, ledger
from xpmlp.shapes import Position, ShapeError
from xpmlp.spec import Spec
from xpmlp.step import Batch, gradient, new_state

LOSSES = ("squared_error", "huber:0.7", "cross_entropy", "quantile:0.1,0.5,0.9", "poisson")


class Recording:
    """NumPy, with a record of the arguments and results of xp.matmul."""

    def __init__(self):
        self.products = []

    def __getattr__(self, name):
        return getattr(np, name)

    def matmul(self, a, b):
        product = np.matmul(a, b)
        self.products.append((a.shape, b.shape, product.shape))
        return product


def run_step(xp, spec, rows, members):
    """The traces, the state and the arrays of one gradient."""
    lead = () if members is None else (members,)
    params = initial(spec, 0) if members is None else initial_population(spec, range(members))
    state = new_state(np, spec, optimizer("sgd"), params)
    target = np.ones((*lead, rows, loss(spec.loss).targets(spec.n_out)))
    batch = Batch(np.ones((*lead, rows, spec.n_in)), target, np.ones((*lead, rows)))
    masks = tuple(
        np.ones((*lead, rows, layer.n_out)) if layer.dropout else None for layer in spec.layers
    )
    gradient(xp, spec, state, batch, masks)
    return forward(np, spec, state.layers, batch.x, masks), state, batch


@st.composite
def networks(draw):
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    dropout = [draw(st.sampled_from([0.0, 0.5])) for _ in sizes[1:]]
    activations = draw(st.sampled_from(["relu", "tanh", None, "elu:0.5"]))
    return Spec.parse(
        [*sizes, 3], activation=activations, dropout=dropout, loss=draw(st.sampled_from(LOSSES))
    )


rows_and_members = st.tuples(st.integers(1, 12), st.none() | st.integers(1, 4))


@given(networks(), rows_and_members)
def test_every_line_has_the_shapes_of_the_arrays(spec, sizes):
    rows, members = sizes
    book = ledger(spec, batch_size=rows, members=members)
    traces, state, batch = run_step(np, spec, rows, members)
    arrays = {"x": batch.x, "target": batch.target}
    for i, (trace, pair, grad) in enumerate(zip(traces, state.layers, state.grads, strict=True), 1):
        # a delta has the shape of its z
        arrays |= {f"z{i}": trace.z, f"a{i}": trace.a, f"d{i}": trace.z, f"W{i}": pair.weights}
        arrays |= {f"b{i}": pair.bias, f"dW{i}": grad.weights, f"db{i}": grad.bias}
    for line in (*book.forward, *book.backward):
        name, expression = line.formula.split(" = ")
        assert line.result == arrays[name].shape
        assert not line.becomes or line.result == arrays[line.becomes].shape
        if line.joined == " @ ":
            words = expression.replace(" + ", " @ ").replace(" * ", " @ ").split(" @ ")[:2]
            shapes = [
                arrays[word.removesuffix(".T")].mT.shape if word.endswith(".T")
                else arrays[word].shape
                for word in words
            ]  # fmt: skip
            assert list(line.operands) == shapes
        elif "target" in expression:
            assert line.operands == (traces[-1].a.shape, batch.target.shape)


@given(networks(), rows_and_members)
def test_products_match_a_real_gradient(spec, sizes):
    rows, members = sizes
    recording = Recording()
    run_step(recording, spec, rows, members)
    book = ledger(spec, batch_size=rows, members=members)
    lines = [line for line in (*book.forward, *book.backward) if line.joined == " @ "]
    assert [(*line.operands, line.result) for line in lines] == recording.products
    # a product of (m, k) and (k, n) is m * n * k multiplications and as many additions
    counted = sum(2 * np.prod(result) * a[-1] for a, _, result in recording.products)
    assert book.operations == counted


@given(networks(), rows_and_members)
def test_parameter_count_excludes_padding(spec, sizes):
    flat = np.zeros(padded_size(spec))
    for pair in windows(np, spec, flat):
        pair.weights[...] = pair.bias[...] = 1
    book = ledger(spec, batch_size=sizes[0], members=sizes[1])
    assert book.parameters == spec.parameters == np.count_nonzero(flat)


@given(networks(), rows_and_members)
def test_bytes_count_state_traces_and_deltas(spec, sizes):
    rows, members = sizes
    traces, state, _ = run_step(np, spec, rows, members)
    expected = state.params.size + state.grad.size
    expected += sum(trace.z.size + trace.a.size for trace in traces)
    expected += sum(trace.z.size for trace in traces)  # the deltas
    assert ledger(spec, batch_size=rows, members=members).bytes == 4 * expected


@given(networks(), rows_and_members)
def test_lines_are_in_the_order_of_the_step(spec, sizes):
    book = ledger(spec, batch_size=sizes[0])
    count = len(spec.layers)
    assert [line.layer for line in book.forward] == [i for i in range(1, count + 1) for _ in "za"]
    layers = [line.layer for line in book.backward]
    assert layers == sorted(layers, reverse=True)
    assert not any("d0" in line.formula for line in book.backward)


# What is printed


def test_printed_lines():
    text = str(ledger("2,16,16,1", batch_size=8))
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert "2 dW2 = a1.T @ d2 (16, 8) @ (8, 16) -> (16, 16) = W2" in lines
    assert "1 d1 = d2 @ W2.T * f'(z1) (8, 16) @ (16, 16) -> (8, 16) = z1" in lines
    assert "1 z1 = x @ W1 + b1 (8, 2) @ (2, 16) -> (8, 16)" in lines
    assert "1 a1 = relu(z1) (8, 16) -> (8, 16)" in lines
    assert "3 d3 = squared_error'(a3, target) (8, 1), (8, 1) -> (8, 1) = z3" in lines
    assert "1 db1 = sum of d1 over its rows (8, 16) -> (1, 16) = b1" in lines
    assert text.splitlines()[0] == "2-16-16-1, loss squared_error, batch 8"
    assert "337 parameters" in text


def test_columns_are_aligned():
    lines = str(ledger("2,16,16,1", batch_size=8, members=3)).splitlines()
    rows = [line for line in lines if "->" in line]
    starts = {line.index(" (3, ") for line in rows}
    assert len(starts) == 1


def test_dropout_shows_where_it_acts():
    text = str(ledger(Spec.parse("2-4-3-1", dropout=[0.5, 0.0])))
    assert "a1 = relu(z1) * mask1" in text
    assert "d1 = d2 @ W2.T * f'(z1) * mask1" in text
    assert "mask2" not in text
    assert "mask3" not in text


def test_the_last_layers_activation_is_in_its_delta():
    text = str(ledger(Spec.parse("2-4-1", activation=["relu", "softplus"])))
    assert "d2 = squared_error'(a2, target) * f'(z2)" in text


def test_members_show_as_a_leading_axis():
    book = ledger("2-3-1", batch_size=8, members=5)
    single = ledger("2-3-1", batch_size=8)
    assert "5 members" in book.network
    assert book.forward[0].shapes == "(5, 8, 2) @ (5, 2, 3) -> (5, 8, 3)"
    assert book.parameters == single.parameters
    assert book.operations == 5 * single.operations
    assert book.bytes == 5 * single.bytes


def test_user_functions_are_printed_by_name_or_as_yours():
    def sine(xp, z):
        return xp.sin(z), xp.cos(z)

    text = str(ledger(Spec.parse("2-3-3-1", activation=[sine, lambda xp, z: (z, z)])))
    assert "a1 = sine(z1)" in text
    assert "a2 = yours(z2)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number; got 2.5"),
        ({"members": 0}, "members must be at least 1; got 0"),
        ({"members": "many"}, "members must be a whole number; got 'many'"),
    ],
)
def test_sizes_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ledger("2-1", **arguments)


# Errors that quote the ledger


@given(networks(), st.data())
def test_a_mismatch_quotes_the_ledger(spec, data):
    i = data.draw(st.integers(0, len(spec.layers) - 1))
    weights = (spec.layers[i].n_in, spec.layers[i].n_out)
    at = Position(i + 1, "x" if i == 0 else f"a{i}", "B")
    error = spec.layers[i].shape_error(at, (50, weights[0] + 1), [weights, (1, weights[1])])
    line = ledger(spec, batch_size=50).forward[2 * i]  # no layer here has 50 neurons
    assert isinstance(error, ShapeError)
    assert isinstance(error, ValueError)
    quoted = line.shapes.replace("(50, ", "(B, ")
    assert f"ledger: {line.formula}   {quoted}" in str(error)
    assert f"(50, {weights[0] + 1}) @ {weights} does not align" in str(error)
    assert f"W{i + 1} has {weights[0]} row" in str(error)


def test_a_mismatch_uses_the_callers_name_for_rows():
    spec = Spec.parse("1-3-2")
    assert str(spec.layers[0].shape_error(Position(1, "X", "B"), (8, 2))).startswith(
        "X has 2 columns but W1 has 1 row: layer 1"
    )
    assert str(spec.layers[1].shape_error(Position(2, "a1", "B"), (8, 1))).startswith(
        "a1 has 1 column but W2 has 3 rows"
    )
    assert str(bad_target(spec, (8,), (8, 2), "y")).startswith(
        "y is (8,) but the score a2 of layer 2 is (8, 2)"
    )
