"""Layer kinds: each is checked, in the ledger, saved, resumed, exported, in populations, and on
every namespace; so is one that is defined here, outside the package."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import xpmlp
from xpmlp import Spec, gradcheck, ledger, load, save, train
from xpmlp.devices.namespace import to_host, to_place
from xpmlp.initializers import initial
from xpmlp.layers import Block, Dense, Layer, Normalize, Parametric, PReLU, Residual, Scale
from xpmlp.layout import block_factors, blocks, padded_size, windows
from xpmlp.network import backward, forward
from xpmlp.optimizers import optimizer
from xpmlp.step import Batch, gradient, new_state


@dataclass(frozen=True)
class Bend(Layer):
    """y = x + bend * x**2, a kind of a user's own: two functions and a block."""

    n_in: int

    @property
    def n_out(self):
        return self.n_in

    @property
    def blocks(self):
        return (Block("bend", (1, self.n_in), "c", start=0.1),)

    def forward(self, xp, x, bend):
        return x + bend * x * x

    def backward(self, xp, x, y, g, bend):
        return g * (1 + 2 * bend * x), xp.sum(g * x * x, axis=-2, keepdims=True)


@dataclass(frozen=True)
class Spread(Layer):
    """y[k] = x * r[k]: rows for k members that share the layers after it (as TabM has it)."""

    n_in: int
    k: int

    @property
    def n_out(self):
        return self.n_in

    @property
    def blocks(self):
        return (Block("r", (self.k, 1, self.n_in), "r", start=1.0),)

    def forward(self, xp, x, r):
        return x[..., None, :, :] * r

    def backward(self, xp, x, y, g, r):
        dr = xp.sum(g * x[..., None, :, :], axis=-2, keepdims=True)
        return xp.sum(g * r, axis=-3), dr


@dataclass(frozen=True)
class Gather(Layer):
    """The mean over the k members."""

    n_in: int
    k: int

    @property
    def n_out(self):
        return self.n_in

    def forward(self, xp, x):
        return xp.sum(x, axis=-3) / self.k

    def backward(self, xp, x, y, g):
        return (xp.broadcast_to(g[..., None, :, :] / self.k, x.shape),)


@dataclass(frozen=True)
class Square(Layer):
    """y = x**2, without parameters."""

    n_in: int

    @property
    def n_out(self):
        return self.n_in

    def forward(self, xp, x):
        return x * x

    def backward(self, xp, x, y, g):
        return 2 * g * x


@dataclass(frozen=True)
class Centered(Square):
    """y = x - its row's mean."""

    def forward(self, xp, x):
        return x - xp.mean(x, axis=-1, keepdims=True)

    def backward(self, xp, x, y, g):
        return g - xp.mean(g, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Narrow(Dense):
    pass


KINDS = {
    "scale": [Scale(3), Dense(3, 4, "tanh"), Dense(4, 2)],
    "prelu": [Dense(3, 4), PReLU(4), Dense(4, 2)],
    "parametric": [Dense(3, 4), Parametric(4, "silu", rate_factor=0.5), Dense(4, 2)],
    "normalize": [Normalize(3), Dense(3, 5), Normalize(5), Dense(5, 2)],
    "residual": [Dense(3, 4, "relu"), Residual((Dense(4, 6, "tanh"), Dense(6, 4))), Dense(4, 2)],
    "residual first": [Residual((Scale(3), Dense(3, 3, "elu"))), Dense(3, 2)],
    "nested": [Residual((Dense(3, 3, "tanh"), Residual((PReLU(3), Dense(3, 3))))), Dense(3, 2)],
    "last": [Dense(3, 2, "tanh"), Scale(2)],
    "yours": [Dense(3, 4, "tanh"), Bend(4), Dense(4, 2)],
}
EDGES = {"two columns": [Dense(3, 2), Normalize(2)], "no blocks": [Centered(3), Dense(3, 2)]}
DROPOUT = [
    Dense(3, 8, "relu", 0.2), Residual((Dense(8, 8, "tanh", 0.5), Dense(8, 8))), Dense(8, 2),
]  # fmt: skip
SHARED = [Dense(3, 4, "tanh"), Spread(4, 3), Dense(4, 5, "relu"), Dense(5, 2), Gather(2, 3)]

each_kind = pytest.mark.parametrize("name", KINDS)

# the same sums in another order, over two epochs: float64, and float32 in an exported file
NEAR, EXPORTED = 1e-10, 2e-5


def spec_of(name):
    return Spec.parse((KINDS | EDGES)[name])


@pytest.fixture
def rows(rng):
    return rng.standard_normal((20, 3))


@pytest.fixture
def target(rows):
    return np.stack([rows[:, 0] * rows[:, 1], np.sin(rows[:, 2])], axis=1)


def assert_close(actual, expected, tolerance=NEAR):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(to_host(actual), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", KINDS | EDGES)
def test_the_gradient_is_the_central_difference(name, place):
    check = gradcheck(spec_of(name), xp=place.xp)
    assert check.passed, str(check)
    assert len(check.differences) == len(blocks(spec_of(name)))


SHARED_KINDS = {
    "dense": Dense(4, 4, "tanh"), "scale": Scale(4), "prelu": PReLU(4), "yours": Bend(4),
    "parametric": Parametric(4, "silu"), "normalize": Normalize(4),
    "residual": Residual((Normalize(4), Dense(4, 4, "tanh"))),
}  # fmt: skip


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("name", SHARED_KINDS)
def test_a_shared_blocks_gradient_is_the_sum_over_members(name, members, rows, target):
    spec = Spec.parse([Dense(3, 4), Spread(4, 3), SHARED_KINDS[name], Gather(4, 3), Dense(4, 2)])
    check = gradcheck(spec)
    assert check.passed, str(check)
    model = train(spec, rows, target, epochs=2, members=members)
    assert model.predict(rows).shape[-2:] == target.shape


def test_a_kind_without_parameters_may_be_the_first(rows, target):
    model = train(Spec.parse([Square(3), Dense(3, 2)]), rows, target, epochs=2, members=2)
    assert model.predict(rows).shape == (2, *target.shape)
    with pytest.raises(ValueError, match="a network needs a layer with parameters to learn"):
        Spec.parse([Square(3)])


def test_a_kind_that_inherits_from_dense_trains_like_it(rows, target):
    own, dense = (
        train(Spec.parse([kind(3, 4, "tanh"), Dense(4, 2)]), rows, target, epochs=2)
        for kind in (Narrow, Dense)
    )
    assert np.array_equal(own.flat, dense.flat)


def test_a_shared_block_is_one_product_of_all_rows(rows):
    """In a population too, where the members' own axis comes first."""
    spec = Spec.parse(SHARED)
    flat = np.stack([initial(spec, seed) for seed in (0, 1)])
    population = forward(np, spec, windows(np, spec, flat), rows)
    for k in range(2):
        single = forward(np, spec, windows(np, spec, flat[k]), rows)
        assert_close(population[-1].y[k], single[-1].y, 1e-14)
    assert population[2].x.shape == (2, 3 * len(rows), 4)


@pytest.mark.parametrize("name", ["prelu", "parametric", "yours"])
def test_gradcheck_detects_a_wrong_derivative(name, monkeypatch):
    layer = KINDS[name][1]
    right = type(layer).backward

    def wrong(self, xp, x, y, g, *blocks):
        dx, *gradients = right(self, xp, x, y, g, *blocks)
        return 1.01 * dx, *gradients

    monkeypatch.setattr(type(layer), "backward", wrong)
    assert not gradcheck(spec_of(name)).passed


@each_kind
def test_the_ledger_lists_the_layer(name):
    spec = spec_of(name)
    book = ledger(spec, batch_size=5, members=2)
    assert book.parameters == spec.parameters == sum(np.prod(b.shape) for b in blocks(spec))
    gradients = [line for line in book.backward if line.formula.startswith(("dW", "db"))]
    traces = forward(np, spec, windows(np, spec, np.zeros((2, padded_size(spec)))), np.ones((5, 3)))
    last = [line for line in book.forward if line.formula.startswith(f"a{len(spec.layers)} = ")]
    assert last[-1].result == traces[-1].y.shape == (2, 5, 2)
    named = {line.becomes for line in book.backward}
    for i, layer in enumerate(spec.layers, 1):
        if not isinstance(layer, Residual):
            assert {f"{block.symbol}{i}" for block in layer.blocks} <= named
    assert all(line.result[0] == 2 for line in gradients)


def test_the_ledger_of_a_residual_block_is_in_the_order_of_the_step():
    text = str(ledger(Spec.parse(KINDS["residual"]), batch_size=5))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "2.1 z2.1 = a1 @ W2.1 + b2.1 (5, 4) @ (4, 6) -> (5, 6)",
        "2 a2 = a1 + a2.2 (5, 4), (5, 4) -> (5, 4)",
        "2 g2 = d3 @ W3.T (5, 2) @ (2, 4) -> (5, 4) = a2",
        "2.2 dW2.2 = a2.1.T @ d2.2 (6, 5) @ (5, 4) -> (6, 4) = W2.2",
        "1 d1 = (g2 + d2.1 @ W2.1.T) * f'(z1) (5, 6) @ (6, 4) -> (5, 4) = z1",
    ):
        assert line in lines


@each_kind
def test_training_matches_numpy_on_every_namespace(name, place, rows, target):
    options = {
        "epochs": 2,
        "batch_size": 6,
        "learning_rate": 0.01,
        "dtype": "float64",
        "l2": 0.01,
        "clip": 1.0,
    }
    expected = train(spec_of(name), rows, target, **options)
    actual = train(spec_of(name), to_place(place, rows), to_place(place, target), **options)
    assert_close(actual.flat, expected.flat)


@each_kind
def test_recorded_training_equals_unrecorded_training(name, rows, target):
    options = {
        "epochs": 20,
        "batch_size": 4,
        "dtype": "float64",
        "optimizer": "adamw",
        "learning_rate": 0.01,
    }
    whole = train(spec_of(name), rows, target, **options)
    uncaptured = train(spec_of(name), rows, target, **options, capture=False)
    assert_close(whole.flat, uncaptured.flat)
    expected_capture = "eager" if name == "yours" else "replayed"
    assert {*whole.history["executor"]} == {expected_capture}


@each_kind
def test_captured_training_equals_unrecorded_training(name, gpu, rows, target):
    options = {"epochs": 20, "batch_size": 4, "dtype": "float64", "learning_rate": 0.01}
    expected = train(spec_of(name), rows, target, **options)
    actual = train(spec_of(name), rows, target, **options, device="gpu")
    assert_close(actual.flat, expected.flat, 1e-8)
    assert {*actual.history["executor"]} == {"captured"}


@each_kind
def test_a_member_equals_a_single_network(name, rows, target):
    options = {"epochs": 2, "batch_size": 6, "dtype": "float64"}
    population = train(spec_of(name), rows, target, members=3, seed=5, **options)
    for k in range(3):
        single = train(spec_of(name), rows, target, seed=5 + k, **options)
        assert_close(population.member(k).flat, single.flat)


def test_dropout_within_a_block_changes_training(rows, target):
    spec = Spec.parse(DROPOUT)
    dropped = train(spec, rows, target, epochs=1)
    layers = [Dense(3, 8, "relu"), Residual((Dense(8, 8, "tanh"), Dense(8, 8))), Dense(8, 2)]
    without_dropout = train(Spec.parse(layers), rows, target, epochs=1)
    inside = dropped.params[1][0].weights - without_dropout.params[1][0].weights
    assert np.abs(inside).max() > 1e-6
    half = [replaced(DROPOUT[0], 0.0), DROPOUT[1], DROPOUT[2]]
    assert not np.array_equal(
        train(Spec.parse(half), rows, target, epochs=1).flat, without_dropout.flat
    )


def replaced(layer, dropout):
    return Dense(layer.n_in, layer.n_out, layer.activation, dropout)


def test_the_columns_of_a_ledger_are_aligned_below_nested_layers():
    nested = Residual((Dense(3, 3), Residual((Dense(3, 3),))))
    rows = str(ledger(Spec((nested, Dense(3, 1))))).splitlines()[1:-1]
    starts = {row.index(row.split()[1]) for row in rows if row.startswith(" ")}
    assert starts == {len("  1.2.1  ")}


@each_kind
def test_file_round_trip(name, rows, target, tmp_path):
    model = train(spec_of(name), rows, target, epochs=1, members=2, dtype="float64")
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.spec == model.spec
    assert np.array_equal(loaded.flat, model.flat)
    assert np.array_equal(loaded.predict(rows), model.predict(rows))
    assert Spec.from_json(model.spec.to_json()) == model.spec


def test_an_unknown_layer_kind_in_a_file_is_named():
    text = json.loads(spec_of("yours").to_json())
    text["layers"][1]["kind"] = "Bent"
    with pytest.raises(ValueError, match=r"layer kind 'Bent' is unknown; did you mean 'Bend'\?"):
        Spec.from_json(json.dumps(text))


def test_an_unknown_layer_field_in_a_file_is_rejected():
    data = json.loads(spec_of("parametric").to_json())
    assert data["layers"][1] == {
        "kind": "Parametric", "n_in": 4, "activation": "silu", "rate_factor": 0.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"layer of kind Parametric: .*slope"):
        Spec.from_json(json.dumps(data).replace('"rate_factor"', '"slope"'))


def test_a_layer_with_a_user_function_cannot_be_saved():
    spec = Spec.parse([Dense(3, 2), Parametric(2, lambda xp, z: (xp.sin(z), xp.cos(z)))])
    assert gradcheck(spec).passed
    with pytest.raises(ValueError, match="layer 2's activation is your own function yours, which"):
        spec.to_json()


@each_kind
def test_a_resumed_training_has_the_same_bits(name, rows, target, tmp_path):
    options = {"batch_size": 6, "optimizer": "adam", "dtype": "float64"}
    whole = train(spec_of(name), rows, target, epochs=6, **options)
    path = tmp_path / "run.ckpt"
    train(spec_of(name), rows, target, epochs=3, checkpoint=path, **options)
    resumed = train(spec_of(name), rows, target, epochs=6, checkpoint=path, resume=True, **options)
    assert np.array_equal(resumed.flat, whole.flat)


@pytest.mark.parametrize("name", KINDS | EDGES)
def test_onnx_export_matches_predict(name, rows, target, tmp_path, run_onnx):
    model = train(spec_of(name), rows, target, epochs=2)
    xpmlp.to_onnx(model, tmp_path / "model.onnx")
    outputs = run_onnx((tmp_path / "model.onnx").read_bytes(), {"X": rows.astype("float32")})
    assert_close(outputs["prediction"], model.predict(rows), EXPORTED)


def test_shapes_that_do_not_fit_are_named():
    spec = spec_of("scale")
    params = list(windows(np, spec, np.zeros(padded_size(spec))))
    with pytest.raises(xpmlp.ShapeError, match=r"x is \(5, 2\) but must be rows \(B, 3\): layer 1"):
        forward(np, spec, params, np.ones((5, 2)))
    params[0] = (np.ones((1, 2)),)
    with pytest.raises(xpmlp.ShapeError, match=r"s1 is \(1, 2\) but must be \(1, 3\)"):
        forward(np, spec, params, np.ones((5, 3)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Scale(0)], "layer 1's input size must be at least 1; got 0"),
        ([Scale(3, rate_factor=-1)], "rate_factor must be at least 0 and finite; layer 1 has -1"),
        ([Dense(3, 2), Parametric(2, "relux")], "layer 2: activation 'relux' is unknown"),
        ([Normalize(1)], "layer 1 normalizes one column"),
        ([Residual((Dense(3, 2),))], "layer 1 adds 2 columns to the 3"),
        ([Residual((Dense(3, 2), Dense(4, 3)))], "layer 1.2 takes 4 inputs, but layer 1.1 has 2"),
        ([Residual(())], "layer 1 needs a tuple of layers"),
        ([Dense(3, 2), Scale(3)], "layer 2 takes 3 inputs, but layer 1 has 2 neurons"),
    ],
)
def test_layers_are_checked(layers, message):
    with pytest.raises(ValueError, match=message):
        Spec.parse(layers)


# Blocks that decay, or have a learning rate of their own


def test_weight_decay_and_learning_rate_factors_are_per_block():
    spec = Spec.parse([Scale(3, rate_factor=6.0), Dense(3, 2)])
    like = np.zeros(padded_size(spec))
    decay, rate = (
        windows(np, spec, block_factors(np, spec, like, n)) for n in ("decay_factor", "rate_factor")
    )
    assert (decay[0].scale.max(), decay[1].weights.min(), decay[1].bias.max()) == (0, 1, 0)
    assert (rate[0].scale.min(), rate[1].weights.max(), rate[1].bias.min()) == (6, 1, 1)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_block_has_its_own_learning_rate(members, optimizer, place, rows, target):
    """Six times the rate is six times as far, in the first step of a rule that knows no past."""

    def step(rate):
        spec = Spec.parse([Scale(3, rate_factor=rate), Dense(3, 2)])
        x, y = (to_place(place, part) for part in (rows, target))
        return train(spec, x, y, epochs=1, batch_size=20, optimizer=optimizer, members=members,
                     weight_decay=None if optimizer == "sgd" else 0.1)  # fmt: skip

    unscaled, scaled, frozen = (step(rate) for rate in (1.0, 6.0, 0.0))
    moved = [to_host(model.params[0].scale) - 1 for model in (unscaled, scaled, frozen)]
    np.testing.assert_allclose(moved[1], 6 * moved[0], rtol=1e-4, atol=1e-9)
    assert not moved[2].any()
    assert np.array_equal(to_host(unscaled.params[1].weights), to_host(scaled.params[1].weights))


# What they compute, by PyTorch


def test_layer_normalization_and_prelu_match_pytorch(rows, torch):
    spec = Spec.parse([Normalize(3), PReLU(3), Dense(3, 2)])
    flat = initial(spec, 0)
    params = windows(np, spec, flat)
    params[0].gain[...] = [[0.5, 2.0, -1.0]]
    params[0].bias[...] = [[0.1, 0.0, -0.2]]
    x, gain, bias = (torch.tensor(part) for part in (rows, params[0].gain[0], params[0].bias[0]))
    normal = torch.nn.functional.layer_norm(x, (3,), gain, bias)
    expected = torch.nn.functional.prelu(normal, torch.tensor(params[1].alpha[0]))
    traces = forward(np, spec, params, rows)
    np.testing.assert_allclose(traces[1].y, expected, rtol=1e-12, atol=1e-12)


def test_parametric_interpolates_identity_and_activation(rows):
    spec = Spec.parse([Parametric(3, "relu"), Dense(3, 1)])
    params = windows(np, spec, initial(spec, 0))
    params[0].alpha[...] = [[0.0, 1.0, 0.5]]
    y = forward(np, spec, params, rows)[0].y
    relu = np.maximum(rows, 0)
    expected = np.stack([rows[:, 0], relu[:, 1], (rows[:, 2] + relu[:, 2]) / 2], axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-15, atol=1e-15)


def test_backward_returns_the_derivative_of_the_rows(rows, rng):
    spec = spec_of("residual first")
    state = new_state(np, spec, optimizer("sgd"), initial(spec, 0))
    g = rng.standard_normal((20, 2))
    traces = forward(np, spec, state.layers, rows)
    dx = backward(np, spec, state.layers, traces, g, state.grads)()
    h = 1e-6
    for j in range(3):
        move = h * np.eye(3)[j]
        up, down = (forward(np, spec, state.layers, rows + s * move)[-1].y for s in (1, -1))
        numeric = np.sum(g * (up - down), axis=1) / (2 * h)
        np.testing.assert_allclose(dx[:, j], numeric, rtol=1e-6, atol=1e-7)
    batch = Batch(rows, g, np.full(20, 1 / 20))
    assert gradient(np, spec, state, batch).shape == ()


# A kind of a user's own that is wrong


@dataclass(frozen=True)
class Wrong(Bend):
    """`Bend` with a mistake."""

    mistake: str = ""

    @property
    def blocks(self):
        shape = (self.n_in,) if self.mistake == "one axis" else (1, self.n_in)
        name = {"a blank": "my bend", "a keyword": "class"}.get(self.mistake, "bend")
        twice = [Block(name, shape, "c")] * (2 if self.mistake == "twice" else 1)
        return (("bend", shape),) if self.mistake == "no Block" else tuple(twice)

    def backward(self, xp, x, y, g, bend):
        dx, dbend = super().backward(xp, x, y, g, bend)
        returned = {"none": (dx,), "no keepdims": (dx, dbend[0]), "a list": [dx, dbend]}
        return returned.get(self.mistake, (dx, dbend))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("one axis", r"layer 1's block 'bend' must have two axes or more, .* \(3,\)"),
        ("twice", "two blocks of layer 1 have one name: bend, bend"),
        ("a blank", "layer 1's block 'my bend' must be named as an attribute can be"),
        ("a keyword", "layer 1's block 'class' must be named as an attribute can be"),
        ("no Block", r"layer 1's blocks must be a tuple of Block; it has \('bend', "),
        ("none", r"layer 1, Wrong, must return \(dx, dbend\) from backward; it gave 1 array$"),
        ("a list", r"layer 1, Wrong, must return \(dx, dbend\) from backward; it gave list"),
        ("no keepdims", r"layer 1, Wrong, must give bend as an array \(1, 3\) here"),
    ],
)
@pytest.mark.parametrize("action", ["gradcheck", "train"])
def test_a_mistake_in_a_user_layer_is_named(mistake, message, action, rows, target):
    layers = [Wrong(3, mistake=mistake), Dense(3, 2)]
    act = gradcheck if action == "gradcheck" else lambda spec: train(spec, rows, target, epochs=1)
    with pytest.raises((ValueError, TypeError), match=message):
        act(Spec.parse(layers))


@pytest.mark.parametrize("action", [gradcheck, lambda spec: train(spec, np.eye(4, 3), [1] * 4)])
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Spread(3, 2), Dense(3, 1)], r"must end in rows \(2, 1\) here; it ends in \(2, 2, 1\)"),
        ([Spread(3, 2), Dense(3, 3, dropout=0.5), Gather(3, 2), Dense(3, 1)],
         r"layer 2 cannot drop neurons of \(2, 2, 3\), which has an axis before the rows"),
    ],
)  # fmt: skip
def test_rows_of_several_members_that_do_not_end_are_named(layers, message, action):
    with pytest.raises(ValueError, match=message):
        action(Spec.parse(layers))


def test_a_kind_with_the_name_of_a_built_in_one_is_rejected(tmp_path, rows, target):
    model = train(spec_of("prelu"), rows, target, epochs=1)
    save(model, tmp_path / "model.safetensors")
    own = dataclass(frozen=True)(type("PReLU", (Bend,), {}))
    with pytest.raises(ValueError, match="layer 2's kind is called PReLU, as one of"):
        Spec.parse([Dense(3, 4), own(4)])
    assert np.array_equal(load(tmp_path / "model.safetensors").predict(rows), model.predict(rows))


def test_what_is_no_layer_among_layers_is_named():
    for wrong in ("scale", 3, Scale):
        with pytest.raises(TypeError, match="layer 1 must be a Layer, got "):
            Spec.parse([wrong, Dense(3, 1)])
    for layers in ((), Dense(3, 3)):
        with pytest.raises(ValueError, match="layer 1 needs a tuple of layers; got "):
            Spec.parse([Residual(layers), Dense(3, 1)])


def test_numbers_of_numpy_are_numbers():
    layers = [Scale(3, np.float32(6)), Dense(3, 3, dropout=np.float32(0.5)), Dense(3, 1)]
    spec = Spec.parse(layers)
    assert Spec.from_json(spec.to_json()) == spec


def test_a_kind_that_is_no_dataclass_is_rejected():
    plain = type("Plain", (Layer,), {"n_in": 3, "n_out": 3})
    with pytest.raises(ValueError, match="layer 1's kind Plain must be a frozen dataclass"):
        Spec.parse([plain(), Dense(3, 1)])


def test_a_field_that_a_file_cannot_hold_is_named():
    @dataclass(frozen=True)
    class Several(Square):
        sizes: tuple = (1, 2)

    with pytest.raises(ValueError, match=r"layer 1's sizes is \(1, 2\), which a file cannot hold"):
        Spec.parse([Several(3), Dense(3, 1)]).to_json()


def test_members_that_share_weights_train(rows, target):
    """On rows that have an axis of members between two kinds of one's own."""
    model = train(Spec.parse(SHARED), rows, target, epochs=30, learning_rate=0.01)
    assert model.history["loss"][-1] < 0.7 * model.history["loss"][0]
    assert model.predict(rows).shape == target.shape
