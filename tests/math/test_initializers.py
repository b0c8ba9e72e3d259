"""Initial weights: their variance, their bits, and the default for each activation."""

import numpy as np
import pytest

from xpmlp.activations import Activation
from xpmlp.initializers import (
    INITIALIZERS,
    default_initializer,
    initial,
    initial_population,
    initializer,
)
from xpmlp.layout import padded_size, windows
from xpmlp.random import generator
from xpmlp.spec import Spec

SIGMAS = 5  # false alarm: one in two million; the seeds are fixed
N_IN, N_OUT = 300, 200
ORTHONORMAL = 1e-13  # 300 products of numbers below 1 per entry
SPEC = Spec.parse("7-33-5-2", activation=["relu", "tanh"])

VARIANCES = {
    "normal": 1.0,
    "normal:0.1": 0.01,
    "glorot_uniform": 2 / (N_IN + N_OUT),
    "glorot_normal": 2 / (N_IN + N_OUT),
    "he_uniform": 2 / N_IN,
    "he_normal": 2 / N_IN,
    "lecun_uniform": 1 / N_IN,
    "lecun_normal": 1 / N_IN,
}


def draw(name, n_in=N_IN, n_out=N_OUT, seed=0):
    return initializer(name, "tanh")(generator(seed, 0), n_in, n_out)


@pytest.mark.parametrize("name", list(VARIANCES))
def test_variance_and_mean_match_the_formula(name):
    weights, variance = draw(name), VARIANCES[name]
    count = N_IN * N_OUT
    # the variance of a variance: 2 / n for a normal, 0.8 / n for a uniform distribution
    assert abs(weights.var() / variance - 1) < SIGMAS * np.sqrt(2 / count)
    assert abs(weights.mean()) < SIGMAS * np.sqrt(variance / count)


@pytest.mark.parametrize("name", ["glorot_uniform", "he_uniform", "lecun_uniform"])
def test_uniform_draws_are_within_the_bound(name):
    weights, bound = draw(name), np.sqrt(3 * VARIANCES[name])
    assert np.abs(weights).max() <= bound
    assert np.abs(weights).max() > 0.999 * bound


@pytest.mark.parametrize("name", ["glorot_normal", "he_normal", "lecun_normal", "normal"])
def test_normal_draws_have_normal_tails(name):
    scaled = draw(name) / np.sqrt(VARIANCES[name])
    share, count = 0.0455002639, N_IN * N_OUT  # beyond two standard deviations
    assert abs(np.mean(np.abs(scaled) > 2) - share) < SIGMAS * np.sqrt(share / count)


@pytest.mark.parametrize(("n_in", "n_out"), [(30, 30), (40, 7), (7, 40), (1, 5), (5, 1)])
def test_orthogonal_is_orthonormal_along_the_shorter_side(n_in, n_out):
    q = draw("orthogonal", n_in, n_out)
    assert q.shape == (n_in, n_out)
    gram = q.T @ q if n_in >= n_out else q @ q.T
    np.testing.assert_allclose(gram, np.eye(min(n_in, n_out)), atol=ORTHONORMAL)


def test_orthogonal_has_no_preferred_sign():
    # a bare QR leaves the signs of R's diagonal to LAPACK, and q[0, 0] would be mostly negative
    firsts = [draw("orthogonal", 3, 3, seed)[0, 0] > 0 for seed in range(400)]
    assert abs(np.mean(firsts) - 0.5) < SIGMAS * 0.5 / np.sqrt(400)


def test_zeros_are_zeros():
    assert not draw("zeros").any()


@pytest.mark.parametrize("name", [*INITIALIZERS, "auto"])
def test_the_same_seed_gives_the_same_bits_and_another_gives_others(name):
    first = initial(SPEC, 3, name)
    assert np.array_equal(first, initial(SPEC, 3, name))
    assert np.array_equal(first, initial(SPEC, 4, name)) == (name == "zeros")


@pytest.mark.parametrize("name", [*INITIALIZERS, "auto"])
def test_a_populations_rows_equal_single_draws(name):
    population = initial_population(SPEC, [5, 0, 9], name)
    assert population.shape == (3, padded_size(SPEC))
    for row, seed in zip(population, [5, 0, 9], strict=True):
        assert np.array_equal(row, initial(SPEC, seed, name))


@pytest.mark.parametrize("name", [*INITIALIZERS, "auto"])
def test_padding_is_zero_and_so_are_the_biases_of_a_named_initializer(name):
    flat = initial(SPEC, 0, name)
    assert flat.shape == (padded_size(SPEC),)
    assert flat.dtype == np.float64
    inside = 0
    for pair in windows(np, SPEC, flat):
        inside += np.count_nonzero(pair.weights) + np.count_nonzero(pair.bias)
        assert name == "auto" or not pair.bias.any()
    assert np.count_nonzero(flat) == inside


def test_auto_spreads_the_hidden_biases_and_leaves_the_last_at_zero():
    spec = Spec.parse("4-3000-2000-5")
    first, second, last = (pair.bias for pair in windows(np, spec, initial(spec, 0)))
    for bias, n_in in ((first, 4), (second, 3000)):
        bound = 1 / np.sqrt(n_in)
        assert np.abs(bias).max() <= bound
        # uniform: variance bound**2 / 3, and the variance of that variance 0.8 / n
        assert abs(bias.var() / (bound**2 / 3) - 1) < SIGMAS * np.sqrt(0.8 / bias.size)
        assert abs(bias.mean()) < SIGMAS * bound / np.sqrt(3 * bias.size)
    assert not last.any()


def test_layers_have_different_draws():
    spec = Spec.parse("8-8-8-8")
    weights_per_layer = [pair.weights for pair in windows(np, spec, initial(spec, 0, "normal"))]
    assert len({float(w[0, 0]) for w in weights_per_layer}) == 3


def test_a_layers_weights_do_not_depend_on_the_layers_after_it():
    short, long = (Spec.parse(text, activation="tanh") for text in ("8-8-3", "8-8-3-5"))
    first, second = (windows(np, spec, initial(spec, 0)) for spec in (short, long))
    assert np.array_equal(first[0].weights, second[0].weights)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        ("relu", "he_uniform"),
        ("leaky_relu:0.2", "he_uniform"),
        ("elu:0.5", "he_uniform"),
        ("gelu", "he_uniform"),
        ("silu", "he_uniform"),
        ("mish", "he_uniform"),
        ("selu", "lecun_normal"),
        ("tanh", "glorot_uniform"),
        ("sigmoid", "glorot_uniform"),
        ("softplus", "glorot_uniform"),
        ("identity", "glorot_uniform"),
        (lambda xp, z: (z, z), "glorot_uniform"),
        (Activation(lambda xp, z: z, lambda xp, z, a: z), "glorot_uniform"),
    ],
)
def test_auto_depends_on_the_activation(activation, name):
    assert default_initializer(activation) == name
    weights = initializer("auto", activation)(generator(1, 0), 20, 10)
    assert np.array_equal(weights, INITIALIZERS[name]()(generator(1, 0), 20, 10))


def test_auto_chooses_layer_by_layer():
    flat = initial(SPEC, 2, "auto")
    he, glorot = initial(SPEC, 2, "he_uniform"), initial(SPEC, 2, "glorot_uniform")
    auto, he_layers, glorot_layers = (windows(np, SPEC, params) for params in (flat, he, glorot))
    assert np.array_equal(auto[0].weights, he_layers[0].weights)  # relu
    assert np.array_equal(auto[1].weights, glorot_layers[1].weights)  # tanh
    assert np.array_equal(auto[2].weights, glorot_layers[2].weights)  # identity


def test_a_user_initializer_draws_every_layer():
    flat = initial(SPEC, 0, lambda rng, n_in, n_out: np.full((n_in, n_out), n_in + n_out / 100))
    values = [float(pair.weights[0, 0]) for pair in windows(np, SPEC, flat)]
    assert values == [7.33, 33.05, 5.02]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("he_unifrm", "initializer 'he_unifrm' is unknown; did you mean 'he_uniform'"),
        ("xavier", "Known: glorot_normal"),
        ("normal:wide", "normal:wide"),
        ("zeros:1", "zeros:1"),
    ],
)
def test_an_invalid_initializer_raises_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        initial(SPEC, 0, wrong)
