"""Layout: windows are aligned, disjoint views of one flat buffer, padded with zeros."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.devices.namespace import to_host, to_place
from xpmlp.layout import ALIGN, block_factors, blocks, padded, padded_size, starts, windows
from xpmlp.spec import Spec

SPECS = ["1-1", "2-16-16-1", "5-33-7-3", "32-32", "31-1-64"]
LEADS = [(), (1,), (3,), (2, 3)]

sizes = st.lists(st.integers(1, 70), min_size=2, max_size=5)


def filled(xp, spec, flat):
    """Write a different number into every window and return how many elements were written."""
    count = 0
    for number, pair in enumerate(windows(xp, spec, flat), 1):
        pair.weights[...] = xp.full_like(pair.weights, 2.0 * number)
        pair.bias[...] = xp.full_like(pair.bias, 2.0 * number + 1)
        count += pair.weights.shape[-1] * pair.weights.shape[-2] + pair.bias.shape[-1]
    return count


@given(sizes)
def test_windows_start_aligned_and_cover_without_overlap(sizes):
    spec = Spec.parse(sizes)
    assert all(start % ALIGN == 0 for start in starts(spec))
    flat = np.zeros(padded_size(spec))
    writes_per_element = np.zeros(padded_size(spec), dtype=int)
    owner = flat.__array_interface__["data"][0]
    for pair in windows(np, spec, flat):
        for view in pair:
            first = (view.__array_interface__["data"][0] - owner) // flat.itemsize
            assert first % ALIGN == 0
            writes_per_element[first : first + view.size] += 1
    assert writes_per_element.max() == 1
    assert writes_per_element.sum() == spec.parameters
    # no more padding than the alignment asks for
    assert padded_size(spec) - spec.parameters < ALIGN * 2 * len(spec.layers)


@given(st.integers(0, 10**6))
def test_padding_goes_to_the_next_multiple(count):
    assert 0 <= padded(count) - count < ALIGN
    assert padded(count) % ALIGN == 0


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("lead", LEADS)
def test_windows_are_views_that_write_through(place, text, lead):
    xp, spec = place.xp, Spec.parse(text)
    flat = to_place(place, np.zeros((*lead, padded_size(spec))))
    count = filled(xp, spec, flat)
    buffer = to_host(flat)
    members = int(np.prod(lead))
    assert np.count_nonzero(buffer) == members * count == members * spec.parameters
    # and what is written into the buffer shows in the windows
    flat[...] = xp.full_like(flat, 7.0)
    for pair, layer in zip(windows(xp, spec, flat), spec.layers, strict=True):
        assert tuple(pair.weights.shape) == (*lead, layer.n_in, layer.n_out)
        assert tuple(pair.bias.shape) == (*lead, 1, layer.n_out)
    views = windows(xp, spec, flat)
    flat[...] = xp.full_like(flat, 8.0)
    assert all(np.all(to_host(view) == 8) for pair in views for view in pair)


@pytest.mark.parametrize("lead", LEADS)
def test_padding_is_untouched_by_writes(place, lead):
    spec = Spec.parse("5-33-7-3")
    flat = to_place(place, np.full((*lead, padded_size(spec)), -1.0))
    filled(place.xp, spec, flat)
    inside = np.zeros(padded_size(spec), dtype=bool)
    for start, (rows, columns) in zip(
        starts(spec), [block.shape for block in blocks(spec)], strict=False
    ):
        inside[start : start + rows * columns] = True
    buffer = to_host(flat)
    assert np.all(buffer[..., ~inside] == -1)
    assert np.all(buffer[..., inside] > 0)


def test_every_member_has_its_own_windows(rng):
    spec = Spec.parse("5-33-7-3")
    flat = rng.standard_normal((4, padded_size(spec)))
    for k in range(4):
        for population_window, member_window in zip(
            windows(np, spec, flat), windows(np, spec, flat[k]), strict=True
        ):
            assert np.array_equal(population_window.weights[k], member_window.weights)
            assert np.array_equal(population_window.bias[k], member_window.bias)


def test_windows_are_in_order_with_weights_before_bias():
    spec = Spec.parse("2-3-1")
    assert [block.shape for block in blocks(spec)] == [(2, 3), (1, 3), (3, 1), (1, 1)]
    assert starts(spec) == (0, 32, 64, 96, 128)
    flat = np.arange(128.0)
    first = windows(np, spec, flat)[0]
    assert first.weights.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first.bias.tolist() == [[32, 33, 34]]


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_weights_decay(place, text, dtype):
    spec = Spec.parse(text)
    like = to_place(place, np.zeros((3, padded_size(spec))), dtype)
    marks = block_factors(place.xp, spec, like, "decay_factor")
    assert marks.dtype == like.dtype
    factors = to_host(marks)
    assert factors.sum() == sum(layer.n_in * layer.n_out for layer in spec.layers)
    for pair in windows(np, spec, factors):
        assert np.all(pair.weights == 1)
        assert np.all(pair.bias == 0)
