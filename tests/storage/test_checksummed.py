"""JSON in the metadata: values that float64 and UTF-8 cannot hold are neither read nor written."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.storage.checksummed import pack_checksummed, read_metadata, read_object

TOP = int(np.finfo(np.float64).max)
NUMBERS = st.integers(-2 * TOP, 2 * TOP) | st.integers() | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=4)  # unpaired surrogates too
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def is_representable(value):
    """Whether float64 and UTF-8 can represent the whole value."""
    if isinstance(value, dict):
        return all(is_representable(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return all(map(is_representable, value))
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int | float) or -TOP <= value <= TOP


def to_json(value):
    """JSON in which an infinity is a number beyond float64."""
    return json.dumps({"a": value}).replace("Infinity", "1e999")


@given(VALUES)
def test_only_representable_values_are_read(value):
    if is_representable(value):
        assert read_object(to_json(value)) == {"a": value}
        return
    with pytest.raises(ValueError, match=r"beyond the range of float64|unpaired surrogate"):
        read_object(to_json(value))


@given(VALUES)
def test_values_that_are_not_read_are_not_written(value):
    arrays = {"x": np.zeros(2)}
    if is_representable(value):
        config = read_metadata(pack_checksummed("kind", 1, arrays, to_json(value)), "kind", 1)[
            "config"
        ]
        assert read_object(config) == {"a": value}
        return
    with pytest.raises(ValueError, match=r"beyond the range of float64|unpaired surrogate"):
        pack_checksummed("kind", 1, arrays, to_json(value))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 310, "-" + "1" * 5000])
def test_a_number_beyond_float64_is_refused_in_a_short_line(number):
    with pytest.raises(ValueError, match="beyond the range of float64") as caught:
        read_object(f'{{"a": {number}}}')
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize("number", ["1e308", "5e-324", "-0.0", str(TOP), str(2**70)])
def test_a_number_within_float64_is_read_exactly(number):
    value = read_object(f'{{"a": {number}}}')["a"]
    assert type(value) is (int if number.isdigit() else float)
    assert value == json.loads(number)
    assert math.copysign(1, value) == math.copysign(1, float(number))
