"""Names with arguments, and the errors for wrong ones."""

import pytest

from xpmlp.names import lookup, nearest, title

TABLE = {
    "plain": ("a finished value",),
    "power": lambda base=2, exponent=3.0: (base, exponent),
    "many": lambda *values: values,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ("a finished value",)),
        ("  plain ", ("a finished value",)),
        ("power", (2, 3.0)),
        ("power:5", (5, 3.0)),
        ("power:5,exponent=0.5", (5, 0.5)),
        ("power: base = 7 , exponent = 1e-2", (7, 0.01)),
        ("power:", (2, 3.0)),
        ("many:1,2.5,-3", (1, 2.5, -3)),
    ],
)
def test_lookup_calls_the_entry_with_its_arguments(text, expected):
    assert lookup("word", TABLE, text) == expected


def test_integer_arguments_stay_integers():
    assert [type(value) for value in lookup("word", TABLE, "many:1,1.0")] == [int, float]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "powr:5",
            ["word 'powr' is unknown", "did you mean 'power'?", "Known: many, plain, power"],
        ),
        ("xyzzy", ["word 'xyzzy' is unknown", "Known: many, plain, power"]),
        ("", ["word '' is unknown", "Known"]),
        ("plain:3", ["word 'plain' takes no argument", "'plain:3'"]),
        ("power:three", ["word 'power:three'", "three"]),
        ("power:1,2,3", ["word 'power:1,2,3'", "positional"]),
        ("power:expnent=2", ["word 'power:expnent=2'", "expnent"]),
    ],
)
def test_an_invalid_name_or_argument_raises_value_error(text, messages):
    with pytest.raises(ValueError, match="word") as caught:
        lookup("word", TABLE, text)
    for message in messages:
        assert message in str(caught.value)


def test_suggests_only_similar_names():
    assert nearest("xyzzy", ["relu", "tanh"]) == "."
    assert nearest("rleu", ["relu", "tanh"]) == "; did you mean 'relu'?"


def test_title_of_named_and_unnamed_functions():
    class Named:
        name = "mine"

    def sine():
        pass

    assert title("huber:1.35") == "huber:1.35"
    assert title(Named()) == "mine"
    assert title(sine) == "sine"
    assert title(lambda: None) == "yours"
    assert title(object()) == "yours"
