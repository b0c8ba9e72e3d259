"""Names with arguments, and what a wrong one is answered."""

import pytest

from xpmlp.names import lookup, nearest, title

TABLE = {
    "plain": ("a finished value",),
    "power": lambda base=2, exponent=3.0: (base, exponent),
    "many": lambda *values: values,
}


@pytest.mark.parametrize(
    ("text", "found"),
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
def test_finds_the_entry_and_calls_it_with_its_arguments(text, found):
    assert lookup("word", TABLE, text) == found


def test_whole_numbers_stay_whole():
    assert [type(value) for value in lookup("word", TABLE, "many:1,1.0")] == [int, float]


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_a_wrong_name_or_argument_is_a_value_error_that_names_it(text, said):
    with pytest.raises(ValueError, match="word") as caught:
        lookup("word", TABLE, text)
    for piece in said:
        assert piece in str(caught.value)


def test_no_suggestion_where_nothing_is_near():
    assert nearest("xyzzy", ["relu", "tanh"]) == "."
    assert nearest("rleu", ["relu", "tanh"]) == "; did you mean 'relu'?"


def test_titles_what_has_a_name_and_calls_the_rest_yours():
    class Named:
        name = "mine"

    def sine():
        pass

    assert title("huber:1.35") == "huber:1.35"
    assert title(Named()) == "mine"
    assert title(sine) == "sine"
    assert title(lambda: None) == "yours"
    assert title(object()) == "yours"
