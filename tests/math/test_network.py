"""Forward and backward: equal to loops over neurons and to PyTorch, on every namespace."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.apply import plain
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.initializers import initial, initial_population
from xpmlp.layout import padded_size, windows
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, backward, forward, gradients, returned
from xpmlp.shape_ledger import ShapeError
from xpmlp.spec import Spec

ACTIVATION_NAMES = [*ACTIVATIONS, "leaky_relu:0.2", "elu:0.5"]
LOSS_NAMES = [*LOSSES, "huber:0.3", "quantile:0.1,0.5,0.9", "cross_entropy:0.1"]

# sums of up to 33 products in another order: each rounding is 1.1e-16, or 6e-8 in float32
NAMESPACE = {"float64": 1e-12, "float32": 1e-5}
NAIVE = 1e-12
AUTOGRAD = 1e-10

SPEC = Spec.parse("5-33-7-3", activation=["tanh", "gelu"])


def params_of(spec, rng, lead=()):
    """A flat buffer (*lead, P) of random weights and biases."""
    seeds = range(prod(lead))
    params = initial_population(spec, seeds).reshape((*lead, -1)) if lead else initial(spec, 0)
    for pair in windows(np, spec, params):
        pair.bias[...] = 0.3 * rng.standard_normal(pair.bias.shape)
    return params


def whole_pass(xp, spec, flat, x, delta, masks=()):
    """All traces and the gradient of a forward and a backward pass."""
    grad = xp.zeros_like(flat)
    params, grads = windows(xp, spec, flat), windows(xp, spec, grad)
    traces = forward(xp, spec, params, x, masks)
    backward(xp, spec, params, traces, delta, grads)
    return traces, grad


def naive_pass(spec, params, x, delta, masks=()):
    """Forward and backward as loops over rows and neurons, with `params` as lists."""
    shapes = [(layer.n_in, layer.n_out) for layer in spec.layers]
    d_weights = [[[0.0] * n_out for _ in range(n_in)] for n_in, n_out in shapes]
    d_bias = [[0.0] * n_out for _, n_out in shapes]
    scores = []
    for row in range(len(x)):
        inputs, z, a = [list(x[row])], [], []
        for i, (n_in, n_out) in enumerate(shapes):
            weights, bias = params[i]
            z.append([bias[o] + sum(inputs[i][n] * weights[n][o] for n in range(n_in))
                      for o in range(n_out)])  # fmt: skip
            f = activation(spec.layers[i].activation).f
            a.append([float(f(np, np.array([[v]]))[0, 0]) for v in z[i]])
            inputs.append([a[i][o] * (masks[i][row][o] if masks and masks[i] is not None else 1)
                           for o in range(n_out)])  # fmt: skip
        scores.append(a[-1])
        d = list(delta[row])
        for i in reversed(range(len(shapes))):
            n_in, n_out = shapes[i]
            for o in range(n_out):
                d_bias[i][o] += d[o]
                for n in range(n_in):
                    d_weights[i][n][o] += inputs[i][n] * d[o]
            if i:
                weights, _ = params[i]
                # a neuron feeds every neuron of the next layer: sum over them
                through = [sum(weights[n][o] * d[o] for o in range(n_out)) for n in range(n_in)]
                slope = activation(spec.layers[i - 1].activation).slope
                slopes = [float(slope(np, np.array([[p]]), np.array([[q]]))[0, 0])
                         for p, q in zip(z[i - 1], a[i - 1], strict=True)]  # fmt: skip
                factors = masks[i - 1][row] if masks and masks[i - 1] is not None else [1] * n_in
                d = [t * s * m for t, s, m in zip(through, slopes, factors, strict=True)]
    return scores, d_weights, d_bias


def dropped(rng, spec, rows, lead=()):
    """Masks for all but the last layer."""
    masks = [rng.choice([0.0, 2.0], (*lead, rows, layer.n_out)) for layer in spec.layers[:-1]]
    return (*masks, None)


@pytest.mark.parametrize("with_masks", [False, True])
def test_forward_and_backward_match_loops_over_neurons(with_masks, rng):
    flat, x = params_of(SPEC, rng), rng.standard_normal((4, 5))
    delta = rng.standard_normal((4, 3))
    masks = dropped(rng, SPEC, 4) if with_masks else ()
    traces, grad = whole_pass(np, SPEC, flat, x, delta, masks)
    lists = [(w.tolist(), b[0].tolist()) for w, b in windows(np, SPEC, flat)]
    scores, d_weights, d_bias = naive_pass(SPEC, lists, x.tolist(), delta.tolist(), masks)
    near = {"rtol": NAIVE, "atol": NAIVE}
    np.testing.assert_allclose(traces[-1].a, scores, **near)
    for pair, weights, bias in zip(windows(np, SPEC, grad), d_weights, d_bias, strict=True):
        np.testing.assert_allclose(pair.weights, weights, **near)
        np.testing.assert_allclose(pair.bias[0], bias, **near)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("with_masks", [False, True])
def test_matches_numpy_on_every_namespace(place, dtype, lead, with_masks, rng):
    flat = params_of(SPEC, rng, lead).astype(dtype)
    x, delta = (rng.standard_normal((*lead, 6, n)).astype(dtype) for n in (5, 3))
    masks = dropped(rng, SPEC, 6, lead) if with_masks else ()
    masks = tuple(m if m is None else m.astype(dtype) for m in masks)
    expected, grad = whole_pass(np, SPEC, flat, x, delta, masks)
    masks_device = tuple(m if m is None else to_place(place, m) for m in masks)
    arrays = (to_place(place, part) for part in (flat, x, delta))
    traces, actual_grad = whole_pass(place.xp, SPEC, *arrays, masks_device)
    for trace, numpys in zip(traces, expected, strict=True):
        for part, expected_array in zip(trace[:3], numpys[:3], strict=True):
            assert to_host(part).dtype == dtype
            scale = np.abs(expected_array).max()
            np.testing.assert_allclose(
                to_host(part), expected_array, rtol=0, atol=NAMESPACE[dtype] * scale
            )
    scale = np.abs(grad).max()
    np.testing.assert_allclose(to_host(actual_grad), grad, rtol=0, atol=NAMESPACE[dtype] * scale)


def test_a_member_equals_a_single_network(rng):
    flat = params_of(SPEC, rng, (3,))
    x, delta = (rng.standard_normal((3, 6, n)) for n in (5, 3))
    traces, grad = whole_pass(np, SPEC, flat, x, delta)
    for k in range(3):
        single, single_grad = whole_pass(np, SPEC, flat[k], x[k], delta[k])
        np.testing.assert_allclose(traces[-1].a[k], single[-1].a, rtol=NAIVE, atol=NAIVE)
        np.testing.assert_allclose(grad[k], single_grad, rtol=NAIVE, atol=NAIVE)


def test_members_may_share_rows(rng):
    flat, x = params_of(SPEC, rng, (3,)), rng.standard_normal((6, 5))
    shared = forward(np, SPEC, windows(np, SPEC, flat), x)[-1].a
    repeated = forward(np, SPEC, windows(np, SPEC, flat), np.stack([x] * 3))[-1].a
    np.testing.assert_allclose(shared, repeated, rtol=NAIVE)


def test_rows_are_independent_of_each_other(rng):
    flat, x = params_of(SPEC, rng), rng.standard_normal((6, 5))
    batch = forward(np, SPEC, windows(np, SPEC, flat), x)[-1].a
    single_rows = [forward(np, SPEC, windows(np, SPEC, flat), row[None])[-1].a[0] for row in x]
    np.testing.assert_allclose(batch, single_rows, rtol=NAIVE, atol=NAIVE)


def test_a_trace_keeps_what_backward_needs(rng):
    flat, x = params_of(SPEC, rng), rng.standard_normal((6, 5))
    masks = dropped(rng, SPEC, 6)
    traces = forward(np, SPEC, windows(np, SPEC, flat), x, masks)
    assert traces[0].x is x
    for trace, next_trace in pairwise(traces):
        assert np.array_equal(next_trace.x, trace.a * trace.mask)
    for trace, layer, pair in zip(traces, SPEC.layers, windows(np, SPEC, flat), strict=True):
        assert np.array_equal(trace.z, trace.x @ pair.weights + pair.bias)
        assert np.array_equal(trace.a, activation(layer.activation).f(np, trace.z))


def test_modifies_only_the_gradient(rng):
    flat, x = params_of(SPEC, rng), rng.standard_normal((6, 5))
    delta, masks = rng.standard_normal((6, 3)), dropped(rng, SPEC, 6)
    arrays = [flat, x, delta, *masks[:-1]]
    originals = [part.copy() for part in arrays]
    traces, _ = whole_pass(np, SPEC, flat, x, delta, masks)
    frozen = [[part.copy() for part in trace[:3]] for trace in traces]
    whole_pass(np, SPEC, flat, -x, delta, masks)
    assert all(map(np.array_equal, arrays, originals))
    for trace, before in zip(traces, frozen, strict=True):
        assert all(map(np.array_equal, trace[:3], before))


def test_the_small_functions_go_through_apply(rng):
    flat, x = params_of(SPEC, rng), rng.standard_normal((6, 5))
    calls = []

    def spying(function, xp, *arguments, into=()):
        calls.append((function, arguments[0] if callable(arguments[0]) else len(into)))
        return plain(function, xp, *arguments, into=into)

    params = windows(np, SPEC, flat)
    traces = forward(np, SPEC, params, x, apply=spying)
    backward(np, SPEC, params, traces, traces[-1].a, params, apply=spying)
    tanh, gelu, identity = (activation(layer.activation) for layer in SPEC.layers)
    forward_calls = [(activated, f) for f in (tanh.f, gelu.f, identity.f)]
    backward_calls = [
        call for f in (identity, gelu, tanh) for call in ((returned, f.slope), (gradients, 2))
    ]
    assert calls == [*forward_calls, *backward_calls]


# PyTorch's autograd, for every activation with every loss


def sample_target(name, rng, rows, n_out):
    measure = loss(name)
    if measure.labels == "classes":
        return rng.dirichlet([1.0] * n_out, rows)
    if measure.labels == "binary":
        return rng.uniform(0, 1, (rows, n_out))
    return rng.uniform(0.5, 3, (rows, measure.targets(n_out)))


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
@pytest.mark.parametrize("loss_name", LOSS_NAMES)
def test_gradient_matches_pytorch_autograd(
    name, loss_name, rng, torch, torch_activation, torch_loss
):
    measure = loss(loss_name)
    n_out = 3 if measure.scores_per_target == 1 else 2 * measure.scores_per_target
    spec = Spec.parse(f"4-6-5-{n_out}", activation=name, loss=loss_name)
    flat, x = params_of(spec, rng), rng.standard_normal((7, 4))
    target = sample_target(loss_name, rng, 7, n_out)
    params = windows(np, spec, flat)
    traces = forward(np, spec, params, x)
    grads = windows(np, spec, np.zeros_like(flat))
    backward(np, spec, params, traces, measure.delta(np, traces[-1].a, target), grads)

    leaves = [
        [torch.tensor(part, requires_grad=True) for part in (pair.weights, pair.bias)]
        for pair in params
    ]
    f, a = torch_activation(name), torch.tensor(x)
    for weights, bias in leaves[:-1]:
        a = f(a @ weights + bias)
    score = a @ leaves[-1][0] + leaves[-1][1]
    torch_loss(loss_name)(score, torch.tensor(target)).sum().backward()
    np.testing.assert_allclose(traces[-1].a, score.detach(), rtol=AUTOGRAD, atol=AUTOGRAD)
    scale = max(float(leaf.grad.abs().max()) for pair in leaves for leaf in pair)
    for pair, leaf_pair in zip(grads, leaves, strict=True):
        for actual, leaf in zip(pair, leaf_pair, strict=True):
            np.testing.assert_allclose(actual, leaf.grad, rtol=0, atol=AUTOGRAD * scale)


# Shapes that do not align


def test_mismatched_rows_name_layer_formula_and_shapes(place):
    xp, spec = place.xp, Spec.parse("2-16-16-1")
    flat = to_place(place, np.zeros(padded_size(spec)))
    with pytest.raises(ShapeError) as caught:
        forward(xp, spec, windows(xp, spec, flat), to_place(place, np.ones((8, 3))))
    first, second = str(caught.value).splitlines()
    assert first == (
        "x has 3 columns but W1 has 2 rows: layer 1 computes z1 = x @ W1 + b1, and "
        "(8, 3) @ (2, 16) does not align."
    )
    assert second == "  ledger: z1 = x @ W1 + b1   (B, 2) @ (2, 16) -> (B, 16)"


def test_mismatched_weights_name_their_layer(rng):
    spec = Spec.parse("2-4-5-1")
    flat = np.zeros(padded_size(spec))
    params = list(windows(np, spec, flat))
    params[1] = params[1]._replace(weights=np.zeros((7, 5)))
    with pytest.raises(ShapeError) as caught:
        forward(np, spec, params, rng.standard_normal((3, 2)))
    assert "a1 has 4 columns but W2 has 7 rows: layer 2 computes z2 = a1 @ W2 + b2" in str(
        caught.value
    )
    assert "(3, 4) @ (7, 5) does not align" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"x": np.ones(2)}, r"x is \(2,\) but must be rows \(B, 2\)"),
        (lambda a: a | {"params": a["params"][:1]}, "has 2 layers.* got 1 params"),
        (lambda a: a | {"masks": [None]}, "one mask .* got 1 masks"),
        (
            lambda a: a | {"params": [(np.ones((2, 4)), np.ones((1, 4))), a["params"][1]]},
            r"W1 is \(2, 4\) but must be \(2, 3\)",
        ),
        (
            lambda a: a | {"params": [(np.ones((2, 3)), np.ones((3, 1))), a["params"][1]]},
            r"b1 is \(3, 1\) but must be \(1, 3\)",
        ),
    ],
)
def test_shape_mismatches_are_named(change, message):
    spec = Spec.parse("2-3-1")
    params = [(np.ones((2, 3)), np.ones((1, 3))), (np.ones((3, 1)), np.ones((1, 1)))]
    arguments = change({"params": params, "x": np.ones((3, 2)), "masks": ()})
    with pytest.raises(ShapeError, match=message):
        forward(np, spec, arguments["params"], arguments["x"], arguments["masks"])


@pytest.mark.parametrize("shape", [(5, 3), (5,), (1, 1)])
def test_a_mismatched_score_gradient_is_named(shape):
    spec = Spec.parse("2-3-1")
    params = [(np.ones((2, 3)), np.ones((1, 3))), (np.ones((3, 1)), np.ones((1, 1)))]
    traces = forward(np, spec, params, np.ones((5, 2)))
    with pytest.raises(ShapeError, match=r"must be shaped like the score a2, \(5, 1\)"):
        backward(np, spec, params, traces, np.ones(shape), params)
