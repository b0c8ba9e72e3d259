"""Settings: frozen, and validated before training starts."""

import re
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

import xpmlp
from xpmlp import train
from xpmlp.training.settings import ELSEWHERE, OWN, Settings

X = np.arange(16.0).reshape(8, 2) / 16
Y = np.arange(8.0) / 8

# setting, an invalid value, and a part of the message besides the setting's name
BAD = [
    ("learning_rate", -1, "at least 0"),
    ("learning_rate", float("nan"), "finite"),
    ("learning_rate", float("inf"), "finite"),
    ("learning_rate", "fast", "number"),
    ("learning_rate", "0.1", "number"),
    ("learning_rate", None, "number"),
    ("learning_rate", True, "number"),
    ("learning_rate", 1j, "number"),
    ("learning_rate", [0.1, 0.2], "2 values"),
    ("learning_rate", {}, "0 values"),
    ("batch_size", 0, "at least 1"),
    ("batch_size", -4, "at least 1"),
    ("batch_size", 2.5, "whole"),
    ("batch_size", True, "whole number"),
    ("batch_size", [32], "whole"),
    ("epochs", 0, "at least 1"),
    ("epochs", -1, "at least 1"),
    ("epochs", 1.0, "whole"),
    ("epochs", "many", "whole"),
    ("epochs", None, "whole"),
    ("epochs", float("inf"), "whole"),
    ("members", 0, "at least 1"),
    ("members", -2, "at least 1"),
    ("members", 1.5, "whole"),
    ("members", True, "whole number"),
    ("members", [2], "whole"),
    ("seed", -1, "2**64"),
    ("seed", 2**64, "2**64"),
    ("seed", 1.5, "whole"),
    ("seed", None, "whole"),
    ("seed", "abc", "whole"),
    ("seed", True, "whole"),
    ("seed", [1, 2], "2 values"),
    ("seed", np.random.default_rng(0), "whole"),
    ("dtype", "float16", "float32"),
    ("dtype", "int64", "float32"),
    ("dtype", int, "float32"),
    ("dtype", 32, "float32"),
    ("keep", "first", "best"),
    ("keep", True, "best"),
    ("keep", ["best"], "best"),
    ("monitor", "loss", "val_loss"),
    ("monitor", None, "val_loss"),
    ("patience", 0, "at least 1"),
    ("patience", 2.5, "whole"),
    ("patience", -1, "at least 1"),
    ("min_delta", -1e-3, "at least 0"),
    ("min_delta", "small", "number"),
    ("min_delta", None, "number"),
    ("min_delta", float("nan"), "finite"),
    ("l1", -1, "at least 0"),
    ("l1", "a", "number"),
    ("l1", None, "number"),
    ("l2", float("nan"), "finite"),
    ("l2", [0.1], "1 values"),
    ("weight_decay", -0.1, "at least 0"),
    ("weight_decay", "a", "number"),
    ("clip", 0, "above 0"),
    ("clip", -1, "above 0"),
    ("clip", "norm", "number"),
    ("clip", float("inf"), "finite"),
    ("shuffle", "yes", "True or False"),
    ("shuffle", None, "True or False"),
    ("optimizer", "adan", "adam"),
    ("optimizer", None, "name"),
    ("optimizer", 3, "name"),
    ("optimizer", ["adam"], "name"),
    ("optimizer", lambda theta, g: theta, "rule"),
    ("schedule", "cosin", "cosine"),
    ("schedule", "step:-1", "every"),
    ("schedule", 5, "name"),
    ("schedule", ["cosine"], "name"),
    ("initializer", "he", "he_"),
    ("initializer", 5, "name"),
    ("initializer", None, "name"),
    ("loss", "squared", "squared_error"),
    ("loss", 5, "name"),
    ("loss", ["squared_error"], "name"),
    ("device", "cqu", "cpu"),
    ("device", 0, "cpu"),
    ("device", "gpu:one", "gpu:N"),
    ("optimizer_params", {"beta3": 0.9}, "beta"),
    ("optimizer_params", {"beta1": 1.0}, "[0, 1)"),
    ("optimizer_params", {"beta1": -0.1}, "[0, 1)"),
    ("optimizer_params", {"beta1": "a"}, "number"),
    ("optimizer_params", {"eps": float("nan")}, "eps"),
    ("optimizer_params", {"learning_rate": 0.1}, "learning_rate"),
    ("optimizer_params", {"beta1": [0.1, 0.2]}, "2 values"),
    ("optimizer_params", 0.9, "optimizer_params"),
    ("optimizer_params", "beta1=0.9", "optimizer_params"),
    ("class_weight", "balanced", "label"),
    ("callbacks", 5, "callbacks"),
    ("callbacks", ["stop"], "callbacks"),
]


@pytest.mark.parametrize(
    ("name", "value", "word"), BAD, ids=lambda value: repr(value).partition(" at 0x")[0][:30]
)
def test_an_invalid_setting_is_named(name, value, word):
    with pytest.raises((ValueError, TypeError)) as caught:
        train("2-2-1", X, Y, **{"epochs": 1} | {name: value})
    message = str(caught.value)
    assert name in message or (name == "optimizer_params" and next(iter(value), "") in message)
    assert word in message


@pytest.mark.parametrize(
    "name", [name for name in dict.fromkeys(name for name, *_ in BAD) if name != "callbacks"]
)
def test_an_invalid_setting_raises_value_error(name):
    """Also for values of a wrong type."""
    for setting, value, _ in BAD:
        if setting == name:
            with pytest.raises(ValueError, match=r"."):
                train("2-2-1", X, Y, **{"epochs": 1} | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("learning_rate", [0.1, 0.2, 0.3], "3 values"),
        ("learning_rate", [0.1, -0.2], "at least 0"),
        ("l2", [0.1, float("nan")], "finite"),
        ("weight_decay", np.array([0.1, 0.2, 0.3]), "3 values"),
        ("seed", [1], "1 values"),
        ("seed", [1, -2], "2**64"),
        ("seed", 2**64 - 1, "2**64"),
        ("clip", [1.0, 2.0], "clip"),
        ("min_delta", [0.1, 0.2], "min_delta"),
    ],
    ids=str,
)
def test_an_invalid_setting_per_member_is_named(name, value, word):
    with pytest.raises(ValueError, match=name) as caught:
        train("2-2-1", X, Y, members=2, epochs=1, **{name: value})
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("epoch", "epochs"),
        ("optimiser", "optimizer"),
        ("batches", "batch_size"),
        ("schedul", "schedule"),
        ("seeds", "seed"),
        ("member", "members"),
        ("weightdecay", "weight_decay"),
        ("mindelta", "min_delta"),
        ("sample_weights", "sample_weight"),
        ("devise", "device"),
        ("losses", "loss"),
        ("xval", "X_val"),
        ("callback", "callbacks"),
    ],
)
def test_an_unknown_keyword_suggests_the_nearest(wrong, right):
    with pytest.raises(TypeError, match=rf"'{wrong}'.*did you mean '{right}'"):
        train("2-1", X, Y, **{wrong: 1})


def test_an_unknown_keyword_without_a_similar_name_has_no_suggestion():
    with pytest.raises(TypeError, match=r"'qqqq'\.$"):
        train("2-1", X, Y, qqqq=1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("learning_rate", [0.01, np.float32(0.01), np.float64(0.01), Fraction(1, 100)]),
        ("batch_size", [4, np.int64(4), np.uint8(4), "4", np.array(4)]),
        ("epochs", [2, np.int32(2), "2"]),
        ("seed", [3, np.int64(3), np.uint64(3)]),
        ("patience", [5, np.int64(5)]),
    ],
)
def test_settings_accept_any_number_type(name, values):
    params = [train("2-3-1", X, Y, **{"epochs": 2} | {name: value}).flat for value in values]
    for flat in params[1:]:
        assert np.allclose(flat, params[0], rtol=1e-6)  # a float32 rate is not quite 0.01


def test_settings_are_frozen_and_have_the_documented_defaults():
    default = Settings()
    assert (default.optimizer, default.learning_rate, default.epochs, default.batch_size) == (
        "adam",
        1e-3,
        100,
        32,
    )
    with pytest.raises(FrozenInstanceError):
        default.learning_rate = 1


def test_seeds_of_members_count_up_from_the_seed():
    assert tuple(Settings(**{"seed": 5}).seeds) == (5,)
    assert tuple(Settings(**{"seed": 5, "members": 3}).seeds) == (5, 6, 7)
    assert Settings(**{"seed": np.array([9, 2]), "members": 2}).seeds == (9, 2)
    assert Settings(**{}).lead == ()
    assert Settings(**{"members": 3}).lead == (3,)


def test_settings_are_validated_before_the_data():
    with pytest.raises(ValueError, match="learning_rate"):
        train("2-1", None, None, learning_rate=-1)


def momentum(xp, h, t, theta, g, v):
    return theta - h.learning_rate * g, v


@pytest.mark.parametrize("optimizer", ["adam", momentum])
@pytest.mark.parametrize("name", OWN)
def test_arguments_of_train_are_rejected_in_optimizer_params(name, optimizer):
    with pytest.raises(
        ValueError, match=f"optimizer_params must not hold '{name}': pass {name}= itself"
    ):
        Settings(optimizer=optimizer, optimizer_params={name: 0.1})


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_of_other_libraries_are_translated(name):
    with pytest.raises(TypeError, match=re.escape(f"here it is {ELSEWHERE[name]}")):
        train("2-1", None, None, **{name: 1})


@pytest.mark.parametrize(
    ("function", "name", "hint"),
    [(xpmlp.ledger, "batch", "batch_size"), (xpmlp.gradcheck, "batch_size", "rows")],
)
def test_ledger_and_gradcheck_translate_names_too(function, name, hint):
    with pytest.raises(TypeError, match=f"no argument '{name}'; here it is {hint}"):
        function("3-1", **{name: 3})
