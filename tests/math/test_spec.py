"""Spec: every way to write a network, and the errors for invalid ones."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.activations import ACTIVATIONS, Activation
from xpmlp.layers import Dense
from xpmlp.losses import LOSSES, Loss
from xpmlp.spec import Spec


def sine(xp, z):
    return xp.sin(z), xp.cos(z)


def quartic(xp, score, target):
    e = score - target
    return xp.sum(e**4, axis=-1), 4 * e**3


WRITTEN = Spec(
    (Dense(2, 16, "relu"), Dense(16, 16, "relu"), Dense(16, 1, "identity")), "squared_error"
)


# Ways to write a network


@pytest.mark.parametrize("layers", ["2-16-1", (2, 16, 1), [[16, 2, "relu"]], [None]])
def test_invalid_layers_are_left_to_parse(layers):
    with pytest.raises(TypeError, match=r"^layer 1 must be a Layer, got .*: Spec.parse reads"):
        Spec(layers)


@pytest.mark.parametrize(
    "text",
    [
        "2-16-16-1",
        "2,16,16,1",
        " 2 - 16, 16 - 1 ",
        [2, 16, 16, 1],
        (2, 16, 16, 1),
        np.array([2, 16, 16, 1]),
        ["2", "16", "16", "1"],
        WRITTEN,
        [[16, 2, "relu"], [16, 16, "relu"], [1, 16, None]],
        [[16, 2, "relu", 0.0], [16, None, "relu"], (1, None)],
    ],
    ids=str,
)
def test_all_forms_parse_to_the_same_network(text):
    spec = Spec.parse(text)
    assert spec == WRITTEN
    assert hash(spec) == hash(WRITTEN)


def test_parses_the_stack_overflow_form():
    # [size, input_size, activation], as in the Stack Overflow question
    spec = Spec.parse([[3, 1, None], [2, None, None], [1, None, None]])
    assert spec.sizes == (1, 3, 2, 1)
    assert [layer.activation for layer in spec.layers] == ["identity"] * 3


def test_sizes():
    spec = Spec.parse("2-16-16-1")
    assert (spec.n_in, spec.n_out, spec.sizes) == (2, 1, (2, 16, 16, 1))
    assert spec.parameters == 2 * 16 + 16 + 16 * 16 + 16 + 16 + 1
    assert str(spec) == "2-16-16-1"


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_str_round_trip(sizes):
    spec = Spec.parse(sizes)
    assert Spec.parse(str(spec)) == spec
    assert spec.sizes == tuple(sizes)


def test_activations_and_dropouts_are_of_the_hidden_layers():
    spec = Spec.parse("2-3-4-5", activation="tanh", dropout=0.25)
    assert [(y.activation, y.dropout) for y in spec.layers] == [
        ("tanh", 0.25),
        ("tanh", 0.25),
        ("identity", 0.0),
    ]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (["tanh", "relu"], ["tanh", "relu", "identity"]),
        (("tanh", "relu", "softplus"), ["tanh", "relu", "softplus"]),
        (["tanh", None, None], ["tanh", "identity", "identity"]),
        (None, ["identity"] * 3),
        ("leaky_relu", ["leaky_relu:0.01", "leaky_relu:0.01", "identity"]),
        ("elu:2", ["elu:2.0", "elu:2.0", "identity"]),
        (sine, [sine, sine, "identity"]),
        ([sine, "tanh"], [sine, "tanh", "identity"]),
    ],
)
def test_an_activation_per_layer(activation, expected):
    spec = Spec.parse("2-3-4-5", activation=activation)
    assert [layer.activation for layer in spec.layers] == expected


def test_a_dropout_per_layer():
    spec = Spec.parse("2-3-4-5", dropout=[0.1, 0.5])
    assert [layer.dropout for layer in spec.layers] == [0.1, 0.5, 0.0]
    rows = [[3, 2, "tanh", 0.3], [1, None, None]]
    assert [layer.dropout for layer in Spec.parse(rows).layers] == [0.3, 0.0]


def test_an_activation_as_a_value_is_one_activation_not_a_list():
    custom = Activation(lambda xp, z: z, lambda xp, z, a: xp.ones_like(z))
    spec = Spec.parse("2-3-1", activation=custom)
    assert spec.layers[0].activation is custom
    # an activation with a name is stored as its name
    assert Spec.parse("2-3-1", activation=ACTIVATIONS["tanh"]).layers[0].activation == "tanh"


def test_the_loss_of_a_spec_is_kept_or_replaced():
    poisson = Spec.parse("2-1", loss="poisson")
    assert Spec.parse(poisson).loss == "poisson"
    assert Spec.parse(poisson, loss="huber:2").loss == "huber:2.0"
    assert Spec.parse("2-1", loss=quartic).loss is quartic
    assert Spec.parse("2-1", loss=LOSSES["poisson"]).loss == "poisson"


def test_a_network_may_have_no_hidden_layer():
    assert Spec.parse("3-2").layers == (Dense(3, 2),)


# Value semantics


def test_is_frozen():
    for holder, name, value in ((WRITTEN, "loss", "huber"), (WRITTEN.layers[0], "n_in", 5)):
        with pytest.raises(AttributeError):
            setattr(holder, name, value)


def test_equal_networks_have_equal_hashes():
    table = {Spec.parse("2-3-1", activation="leaky_relu"): "found"}
    assert table[Spec.parse([2, 3, 1], activation="leaky_relu:0.01")] == "found"
    assert Spec.parse("2-3-1") != Spec.parse("2-3-1", activation="tanh")
    assert Spec.parse("2-3-1") != Spec.parse("2-3-1", loss="huber")
    assert Spec.parse("2-3-1", activation=sine) == Spec.parse("2-3-1", activation=sine)


def test_numpy_numbers_become_python_numbers():
    spec = Spec.parse(np.array([2, 3, 1]), dropout=0)
    assert all(type(y.n_in) is int and type(y.dropout) is float for y in spec.layers)


# JSON

activations = st.sampled_from([*ACTIVATIONS, "leaky_relu:0.3", "elu:0.125"]) | st.none()
LAST = ("squared_error", "huber:0.7", "poisson", "cross_entropy:0.1", "quantile:0.1,0.5,0.9")


@st.composite
def specs(draw):
    sizes = draw(st.lists(st.integers(1, 50), min_size=1, max_size=4))
    hidden = len(sizes) - 1
    chosen_activations = [draw(activations) for _ in range(hidden + 1)]
    dropout = [draw(st.floats(0, 1, exclude_max=True)) for _ in range(hidden)]
    loss = draw(st.sampled_from(LAST))
    return Spec.parse([*sizes, 3], activation=chosen_activations, dropout=dropout, loss=loss)


@given(specs())
def test_json_round_trip(spec):
    restored = Spec.from_json(spec.to_json())
    assert restored == spec
    assert restored.to_json() == spec.to_json()
    json.loads(spec.to_json(), parse_constant=pytest.fail)  # plain JSON: no NaN, no Infinity


@pytest.mark.parametrize("name", ["tanh", "wave", None])
def test_an_activation_of_your_own_is_not_mistaken_for_a_known_one(name):
    """Whatever it calls itself."""
    own = Activation(lambda xp, z: xp.sin(z), lambda xp, z, a: xp.cos(z), name)
    spec = Spec.parse("2-3-1", activation=own)
    assert spec.layers[0].activation is own
    with pytest.raises(ValueError, match="layer 1's activation is your own function"):
        spec.to_json()


@pytest.mark.parametrize("name", ["huber:1.0", "fourth", None])
def test_a_loss_of_your_own_is_not_mistaken_for_a_known_one(name):
    own = Loss(
        lambda xp, s, t: xp.sum((s - t) ** 4, axis=-1),
        lambda xp, s, t: 4 * (s - t) ** 3,
        lambda xp, s: s,
        name=name,
    )
    spec = Spec.parse("2-3-1", loss=own)
    assert spec.loss is own
    with pytest.raises(ValueError, match="the loss is your own function"):
        spec.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": sine}, "layer 1's activation is your own function sine"),
        ({"activation": ["tanh", lambda xp, z: (z, z)]}, "layer 2's activation is your own"),
        ({"loss": quartic}, "the loss is your own function quartic"),
    ],
)
def test_a_user_function_cannot_be_stored(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spec.parse("2-3-1", **arguments).to_json()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"2-3-1"', "{}"])
def test_invalid_json_raises_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, or one of Spec's
        Spec.from_json(text)


DENSE = {"kind": "Dense", "n_in": 1, "n_out": 2, "activation": "relu", "dropout": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"layers": []},
        {"layers": 3},
        {"layers": {}},
        {"layers": [1, None]},
        {"layers": [[1, 2, "relu", 0]]},
        {"layers": [{"kind": "Dense"}]},
        {"layers": [{**DENSE, "more": 1}]},
        {"layers": [{**DENSE, "kind": "Dens"}]},
        {"layers": [{**DENSE, "kind": 3}]},
        {"layers": [{**DENSE, "dropout": "0"}]},
        {"layers": [{**DENSE, "dropout": float("nan")}]},
        {"layers": [{**DENSE, "activation": "rellu"}]},
        {"layers": [{**DENSE, "activation": ["relu"]}]},
        {"layers": [{**DENSE, "activation": 7}]},
        {"layers": [{**DENSE, "n_in": 1.5}]},
        {"layers": [{**DENSE, "n_in": True}]},
        {"layers": [{"kind": "Residual", "layers": 3}]},
        {"loss": "hubber"},
        {"loss": ["huber"]},
        {"loss": {}},
    ],
)
def test_json_of_a_changed_network_is_a_value_error(changes):
    good = {"layers": [DENSE], "loss": "huber:1.0"}
    expected = Spec.parse([Dense(1, 2, "relu")], loss="huber")
    assert Spec.from_json(json.dumps(good)) == expected
    with pytest.raises(ValueError):  # noqa: PT011 - the layer kind's, or one of Spec's
        Spec.from_json(json.dumps(good | changes))


# Errors: each names the place, the value and what is allowed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spec.parse("2-0-1"), "a layer's size must be at least 1; got '0'"),
        (lambda: Spec.parse("2-x-1"), "a layer's size must be a whole number; got 'x'"),
        (lambda: Spec.parse("2--1"), "a layer's size must be a whole number; got ''"),
        (lambda: Spec.parse([2, 3.0, 1]), "a layer's size must be a whole number; got 3.0"),
        (lambda: Spec.parse([2, -3, 1]), "a layer's size must be at least 1; got -3"),
        (lambda: Spec.parse([2, True, 1]), "a layer's size must be .*; got True"),
        (lambda: Spec.parse([2, None]), "a layer's size must be a whole number; got None"),
        (lambda: Spec.parse("5"), "inputs and outputs, such as \"2-16-1\"; got '5'"),
        (lambda: Spec.parse(""), "whole number; got ''"),
        (lambda: Spec.parse([]), r'written "2-16-16-1" or as a list; got \[\]'),
        (lambda: Spec.parse(5), 'written "2-16-16-1" or as a list; got 5'),
        (lambda: Spec.parse(None), "got None"),
        (lambda: Spec(()), "at least one layer; got none"),
        (
            lambda: Spec((Dense(2, 3), Dense(4, 1))),
            "layer 2 takes 4 inputs, but layer 1 has 3 neurons",
        ),
        (lambda: Spec((Dense(0, 3),)), "layer 1's input size must be at least 1; got 0"),
        (lambda: Spec((Dense(2, 3), Dense(3, 2.5))), "layer 2's size must be a whole .*got 2.5"),
        (
            lambda: Spec.parse([[3, 2, "relu"], [1, 4, None]]),
            "layer 2 takes 4 inputs, but layer 1 has 3 neurons",
        ),
        (lambda: Spec.parse([[3, None, "relu"]]), "layer 1 needs its input size"),
        (lambda: Spec.parse([[3]]), r"layer 1 must be \[size, input_size, activation\]"),
        (
            lambda: Spec.parse([[3, 1, None], [1, None, None, 0.0, 5]]),
            r"layer 2 must be .*; got \[1, None, None, 0.0, 5\]",
        ),
        (lambda: Spec.parse([[3, 1, None], 5]), "layer 2 must be .*; got 5"),
        (lambda: Spec.parse("2-3-1", activation="rellu"), "layer 1: .*'rellu'.* mean 'relu'"),
        (
            lambda: Spec.parse("2-3-3-1", activation=["relu", "thanh"]),
            "layer 2: .*'thanh' is unknown; did you mean 'tanh'",
        ),
        (lambda: Spec.parse("2-3-1", activation=5), "layer 1: activation must be .*; got 5"),
        (lambda: Spec.parse("2-3-1", activation=[["relu"]]), "layer 1"),
        (
            lambda: Spec.parse("2-3-3-1", activation=["relu"]),
            "one activation per hidden layer, 2; got 1",
        ),
        (lambda: Spec.parse("2-3-3-1", dropout=[0.1]), "one dropout per hidden layer, 2; got 1"),
        (
            lambda: Spec.parse("2-3-3-1", dropout=[0.1, 1.5]),
            r"dropout must be in \[0, 1\); layer 2 has 1.5",
        ),
        (lambda: Spec.parse("2-3-1", dropout=-0.1), r"in \[0, 1\); layer 1 has -0.1"),
        (lambda: Spec.parse("2-3-1", dropout=1), r"in \[0, 1\); layer 1 has 1"),
        (lambda: Spec.parse("2-3-1", dropout=float("nan")), r"in \[0, 1\); layer 1 has nan"),
        (lambda: Spec.parse("2-3-1", dropout=True), r"in \[0, 1\); layer 1 has True"),
        (lambda: Spec.parse("2-3-1", dropout="0.5"), r"in \[0, 1\)"),
        (lambda: Spec((Dense(2, 1, "relu", 0.5),)), "layer 1 is the last .* dropout must be 0"),
        (lambda: Spec.parse("2-1", loss="hubber"), "loss 'hubber' .* mean 'huber'"),
        (lambda: Spec.parse("2-1", loss=5), "loss must be a name or a function .*; got 5"),
        (
            lambda: Spec.parse("2-1", loss="cross_entropy"),
            "one neuron per class, at least 2; the last layer has 1.*binary_cross_entropy",
        ),
        (
            lambda: Spec.parse("2-2", loss="quantile:0.1,0.5,0.9"),
            "'quantile:0.1,0.5,0.9' needs 3 neurons for each target; the last layer has 2",
        ),
        (
            lambda: Spec((Dense(2, 1, "sigmoid"),), "binary_cross_entropy"),
            "'binary_cross_entropy' applies the sigmoid itself: .* must be None",
        ),
    ],
)
def test_an_invalid_network_raises_value_error(make: Callable[[], Spec], message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_user_loss_may_require_class_labels():
    custom = Loss(quartic, quartic, lambda xp, s: s, labels="classes")
    with pytest.raises(ValueError, match="loss 'yours' needs one neuron per class"):
        Spec.parse("2-1", loss=custom)


@pytest.mark.parametrize("layers", [[[4, 2, "tanh"], [1, 4, None]], Spec.parse("2-4-1")])
@pytest.mark.parametrize("extra", [{"activation": "tanh"}, {"activation": abs}, {"dropout": 0.1}])
def test_settings_of_layer_objects_may_not_be_given_twice(layers: object, extra: dict):
    with pytest.raises(ValueError, match=r"belong into the layers of .* themselves"):
        Spec.parse(layers, **extra)
