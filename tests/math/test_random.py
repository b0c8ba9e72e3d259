"""Random numbers: a function of seed, stream, step and index, equal on every namespace."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.devices.namespace import to_host, to_place
from xpmlp.random import (
    Stream,
    counters,
    dropout_keys,
    generator,
    lanes,
    mask,
    mix,
    order,
    words,
)

SIGMAS = 5  # false alarm: one in two million; the seeds are fixed
COUNT = 200_000
SHAPE = (500, 400)


def numpy_bits(key, step, shape):
    bits_of_words = words(np, *counters(np, key.astype("uint32"), np.asarray(step), shape))
    return bits_of_words.reshape(*key.shape[:-1], *shape)


def words_on(place, key, step, shape):
    """The random words computed at `place`, copied to the host."""
    step = to_place(place, np.asarray(step, dtype="int64"))
    xp, key_device = place.xp, to_place(place, key, lanes(place.xp))
    bits = to_host(words(xp, *counters(xp, key_device, step, shape))).astype("int64")
    return bits.reshape(*key.shape[:-1], *shape)


def key_of(seed=0, layer=0):
    return dropout_keys([seed], (), layer)


# Orders


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 300))
def test_an_order_is_a_permutation(seed, epoch, rows):
    assert sorted(order(seed, epoch, rows)) == list(range(rows))


def test_orders_differ_by_epoch_and_by_seed_and_are_repeatable():
    orders = {(s, e): order(s, e, 100).tolist() for s in range(5) for e in range(5)}
    assert len({tuple(o) for o in orders.values()}) == 25
    assert orders[3, 4] == order(3, 4, 100).tolist()


def test_every_row_comes_first_equally_often():
    firsts = np.bincount([order(7, epoch, 8)[0] for epoch in range(4000)], minlength=8)
    sigma = np.sqrt(4000 * (1 / 8) * (7 / 8))
    assert np.all(np.abs(firsts - 500) < SIGMAS * sigma)


def test_streams_and_steps_of_one_seed_differ():
    draws = [
        generator(seed, stream, step).integers(2**63, size=4).tolist()
        for seed in (0, 1)
        for stream in Stream
        for step in (0, 1, 2)
    ]
    assert len({word for draw in draws for word in draw}) == 4 * len(draws)


def test_neighbouring_steps_never_overlap():
    # were the step in the low word of the counter, draw 4 of step 0 would equal draw 0 of step 1
    first = generator(0, Stream.ORDER, 0).integers(2**63, size=4000)
    second = generator(0, Stream.ORDER, 1).integers(2**63, size=4000)
    assert not np.intersect1d(first, second).size


# Keys


def test_a_key_is_two_words_per_member():
    assert dropout_keys([5], (), 0).shape == (2,)
    assert dropout_keys([5, 6, 7], (3,), 0).shape == (3, 2)
    words = dropout_keys(range(50), (50,), 2)
    assert words.dtype == np.int64
    assert words.min() >= 0
    assert words.max() < 2**32
    assert len(np.unique(words)) == 100


def test_a_members_key_equals_the_single_run():
    population = dropout_keys([5, 6, 7], (3,), 1)
    for k, seed in enumerate([5, 6, 7]):
        assert np.array_equal(population[k], dropout_keys([seed], (), 1))


def test_layers_have_their_own_keys():
    assert not np.intersect1d(key_of(layer=0), key_of(layer=1)).size


# Bits


def naive_mix(x):
    """The hash on one Python integer."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_mix_matches_python_integers_in_both_lane_widths(words):
    expected = [naive_mix(word) for word in words]
    for lane in ("uint32", "int64"):
        actual = mix(np.array(words, dtype=lane), 0xFFFFFFFF)
        assert actual.tolist() == expected


def test_mix_is_injective():
    words = np.concatenate([np.arange(2**17), 2**32 - 1 - np.arange(2**17)]).astype("uint32")
    assert len(np.unique(mix(words, 0xFFFFFFFF))) == len(words)


@pytest.mark.parametrize("step", [0, 1, 12345, 2**32 + 5])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_bits_are_the_same_on_every_namespace(place, step, lead):
    key = dropout_keys(range(lead[0] if lead else 1), lead, 1)
    words = words_on(place, key, step, (7, 5))
    low, high = key[..., 0], key[..., 1]
    shape = (*lead, 7, 5)
    assert words.shape == shape
    flat = words.reshape((*lead, 35))
    for member in np.ndindex(lead):
        moment = naive_mix((step % 2**32) ^ int(high[member]))
        expected = [naive_mix(naive_mix(i ^ int(low[member])) ^ moment) for i in range(35)]
        assert flat[member].tolist() == expected


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_the_same_bits_on_every_namespace(place, rate, dtype):
    key = dropout_keys([3, 4], (2,), 0)
    expected = mask(np, key.astype("uint32"), np.asarray(9), rate, (40, 30), dtype)
    key_device = to_place(place, key, lanes(place.xp))
    step = to_place(place, np.asarray(9))
    actual = mask(place.xp, key_device, step, rate, (40, 30), dtype)
    assert to_host(actual).dtype == expected.dtype == np.dtype(dtype)
    assert np.array_equal(to_host(actual), expected)


def test_a_members_mask_equals_the_single_run():
    key = dropout_keys([3, 4, 5], (3,), 2).astype("uint32")
    population = mask(np, key, np.asarray(11), 0.4, (6, 5), "float32")
    for k in range(3):
        single = mask(np, key[k], np.asarray(11), 0.4, (6, 5), "float32")
        assert np.array_equal(population[k], single)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_units_are_kept_at_the_given_rate_and_the_mean_is_1(rate):
    factors = mask(np, key_of().astype("uint32"), np.asarray(3), rate, SHAPE, "float64")
    assert set(np.unique(factors)) == {0.0, 1 / (1 - rate)}
    sigma = np.sqrt(rate * (1 - rate) / COUNT)
    assert abs(np.mean(factors > 0) - (1 - rate)) < SIGMAS * sigma
    assert abs(factors.mean() - 1) < SIGMAS * sigma / (1 - rate)
    # and in every column and row
    for axis, size in ((0, SHAPE[0]), (1, SHAPE[1])):
        share = np.mean(factors > 0, axis=axis)
        assert np.max(np.abs(share - (1 - rate))) < (SIGMAS + 1) * np.sqrt(rate * (1 - rate) / size)


def kept_units(seed=0, layer=0, step=0, rate=0.5):
    bits = numpy_bits(key_of(seed, layer), step, SHAPE)
    return (bits >= round(rate * 2**32)).ravel() * 2.0 - 1.0


@pytest.mark.parametrize(
    "other",
    [{"step": 1}, {"step": 2}, {"step": 65536}, {"layer": 1}, {"layer": 2}, {"seed": 1},
     {"seed": 2**31}],
    ids=str,
)  # fmt: skip
def test_steps_layers_and_members_are_uncorrelated(other):
    correlation = np.mean(kept_units() * kept_units(**other))
    assert abs(correlation) < SIGMAS / np.sqrt(COUNT)


@pytest.mark.parametrize("distance", [1, 2, 3, 16, 32, 400, 1024])
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_neighbouring_units_are_uncorrelated(distance, step):
    one = kept_units(step=step)
    correlation = np.mean(one[distance:] * one[:-distance])
    assert abs(correlation) < SIGMAS / np.sqrt(COUNT - distance)


@pytest.mark.parametrize("unit", [0, 1, 12345])
def test_one_unit_is_random_over_the_steps(unit):
    bits = np.array([numpy_bits(key_of(), step, (12346,))[unit] for step in range(2000)])
    signs = (bits >= 2**31) * 2.0 - 1.0
    assert abs(signs.mean()) < SIGMAS / np.sqrt(2000)
    assert abs(np.mean(signs[1:] * signs[:-1])) < SIGMAS / np.sqrt(1999)


def test_every_bit_is_set_half_the_time():
    bits = numpy_bits(key_of(), 5, SHAPE).ravel()
    for place in range(32):
        share = np.mean((bits >> place) & 1)
        assert abs(share - 0.5) < SIGMAS * 0.5 / np.sqrt(COUNT)


def test_bits_depend_only_on_the_step_number():
    repeated = numpy_bits(key_of(), 4, (50,))
    assert np.array_equal(repeated, numpy_bits(key_of(), 4, (50,)))
    assert not np.array_equal(repeated, numpy_bits(key_of(), 5, (50,)))
    # an index means the same unit, however many there are
    assert np.array_equal(numpy_bits(key_of(), 4, (80,))[:50], repeated)
