"""The JSON of our files: what is written is read, and what nothing holds is neither."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.storage.checksummed import checksummed, read_metadata, read_object

TOP = int(np.finfo(np.float64).max)
NUMBERS = st.integers(-2 * TOP, 2 * TOP) | st.integers() | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=4)  # halves of characters too
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def held(value):
    """Whether floats and UTF-8 can hold all of it."""
    if isinstance(value, dict):
        return all(held(key) and held(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(held, value))
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int | float) or -TOP <= value <= TOP


def written(value):
    """JSON, where an infinity is a number too large."""
    return json.dumps({"a": value}).replace("Infinity", "1e999")


@given(VALUES)
def test_what_is_read_is_what_numbers_and_texts_can_hold(value):
    if held(value):
        assert read_object(written(value)) == {"a": value}
        return
    with pytest.raises(ValueError, match=r"no float can hold|half of a character"):
        read_object(written(value))


@given(VALUES)
def test_what_is_not_read_is_not_written(value):
    arrays = {"x": np.zeros(2)}
    if held(value):
        config = read_metadata(checksummed("kind", 1, arrays, written(value)), "kind", 1)["config"]
        assert read_object(config) == {"a": value}
        return
    with pytest.raises(ValueError, match=r"no float can hold|half of a character"):
        checksummed("kind", 1, arrays, written(value))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 310, "-" + "1" * 5000])
def test_a_number_that_no_float_holds_is_refused_in_a_short_line(number):
    with pytest.raises(ValueError, match="no float can hold") as caught:
        read_object(f'{{"a": {number}}}')
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize("number", ["1e308", "5e-324", "-0.0", str(TOP), str(2**70)])
def test_a_number_that_a_float_holds_is_read_as_it_is(number):
    found = read_object(f'{{"a": {number}}}')["a"]
    assert type(found) is (int if number.isdigit() else float)
    assert found == json.loads(number)
    assert math.copysign(1, found) == math.copysign(1, float(number))
