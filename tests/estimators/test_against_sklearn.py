"""With the same seed and rows as they come: scikit-learn's weights, curves and stops."""

import warnings
from inspect import signature

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import neural_network as theirs
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

import xpmlp
from xpmlp.estimators import lbfgs

CURVE = 1e-6  # relative, float64: the order of a sum differs, and training spreads it
STEADY = {"random_state": 0, "shuffle": False, "max_iter": 12, "hidden_layer_sizes": (9, 5)}


def agree(a, b):
    """Everything that a fit leaves behind, scikit-learn's `a` against ours `b`."""
    assert b.n_iter_ == a.n_iter_
    assert b.t_ == a.t_
    assert b.loss_ == pytest.approx(a.loss_, rel=CURVE)
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=CURVE)
    for name in ("best_loss_", "best_validation_score_"):
        ours, expected = getattr(b, name), getattr(a, name)
        assert ours == expected or ours == pytest.approx(expected, rel=CURVE), name
    if a.validation_scores_ is None:
        assert b.validation_scores_ is None
    else:
        np.testing.assert_allclose(b.validation_scores_, a.validation_scores_, rtol=CURVE)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(b, name) == getattr(a, name), name
    assert b._no_improvement_count == a._no_improvement_count
    for one, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert other.shape == one.shape
        assert other.dtype == one.dtype
        np.testing.assert_allclose(other, one, rtol=CURVE, atol=CURVE)


# Initial weights


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("name", ["iris", "cancer", "three targets"])
def test_initial_weights_are_scikit_learns_bits(name, activation, data, pair, quietly):
    X, y = data(name)
    # a step of 1e-300 leaves every weight as it was drawn
    still = {"learning_rate_init": 1e-300, "alpha": 0.0, "max_iter": 1, "random_state": 7}
    a, b = pair(name, activation=activation, hidden_layer_sizes=(6, 4), **still)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    for one, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("given", [None, np.random.RandomState(5)], ids=["global", "instance"])
def test_initial_weights_come_from_the_random_state_given(given, data, quietly):
    X, y = data("iris")
    np.random.seed(11)
    state = check_random_state(given).get_state()
    still = {"learning_rate_init": 1e-300, "alpha": 0.0, "max_iter": 1, "random_state": given}
    fitted = []
    for module in (theirs, xpmlp):
        check_random_state(given).set_state(state)
        fitted.append(quietly(module.MLPClassifier(**still).fit, X, y))
    assert np.array_equal(fitted[0].coefs_[0], fitted[1].coefs_[0])


# The grid

SOLVERS = (
    {"solver": "adam", "learning_rate_init": 0.01},
    {"solver": "adam", "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-4},
    {"solver": "sgd", "learning_rate_init": 0.02},
    {"solver": "sgd", "momentum": 0.0},
    {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4},
    {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5, "learning_rate_init": 0.05},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.1},
    {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.01, "tol": 0.05,
        "n_iter_no_change": 1,
    },
)  # fmt: skip
WEIGHTS = {
    "unweighted": lambda count: None,
    "weighted": lambda count: np.random.default_rng(3).uniform(0, 3, count),
    "some at 0": lambda count: (np.arange(count) % 3).astype(float),
}


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "three targets"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_curves_weights_and_stops_are_scikit_learns(weights, name, solver, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    a, b = pair(name, **STEADY | {"batch_size": 32} | solver)
    quietly(a.fit, X, y, sample_weight=s)
    quietly(b.fit, X, y, sample_weight=s)
    agree(a, b)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("name", ["digits", "counts"])
def test_activations_and_the_poisson_loss_are_scikit_learns(
    name, activation, solver, data, pair, quietly
):
    X, y = data(name)
    loss = {"loss": "poisson"} if name == "counts" else {}
    a, b = pair(name, **STEADY, activation=activation, solver=solver, **loss)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    agree(a, b)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_digits])
def test_probabilities_near_0_and_1_cost_what_they_do_in_scikit_learn(load, quietly):
    X, y = load(return_X_y=True)  # in their own units, from 1e-3 to 1e3: saturated from the start
    a, b = (quietly(m.MLPClassifier(**STEADY).fit, X, y) for m in (theirs, xpmlp))
    agree(a, b)


@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "three targets"])
@pytest.mark.parametrize("weights", ["unweighted", "weighted"])
def test_early_stopping_holds_out_scikit_learns_rows(weights, name, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    more = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate_init": 0.02}
    a, b = pair(name, **STEADY | {"max_iter": 40, "n_iter_no_change": 3} | more)
    quietly(a.fit, X, y, sample_weight=s)
    quietly(b.fit, X, y, sample_weight=s)
    agree(a, b)
    np.testing.assert_allclose(b.predict(X), a.predict(X), rtol=CURVE)


@settings(max_examples=25)
@given(
    st.sampled_from(["iris", "cancer", "diabetes", "three targets"]),
    st.fixed_dictionaries(
        {
            "solver": st.sampled_from(["sgd", "adam"]),
            "learning_rate": st.sampled_from(["constant", "adaptive", "invscaling"]),
            "learning_rate_init": st.sampled_from([1e-3, 1e-2, 3e-2]),
            "alpha": st.sampled_from([0.0, 1e-4, 0.1, 10.0]),
            "batch_size": st.sampled_from(["auto", 1, 7, 50, 90]),
            "hidden_layer_sizes": st.sampled_from([(), 3, (4,), (5, 3), [4, 2, 3]]),
            "activation": st.sampled_from(["identity", "logistic", "tanh", "relu"]),
            "momentum": st.sampled_from([0.0, 0.5, 0.9]),
            "nesterovs_momentum": st.booleans(),
            "tol": st.sampled_from([0.0, 1e-4, 1e-2]),
            "n_iter_no_change": st.sampled_from([1, 3, np.inf]),
            "early_stopping": st.booleans(),
            "random_state": st.integers(0, 2**32 - 1),
        }
    ),
    st.booleans(),
)
def test_any_settings_train_as_scikit_learns(data, pair, quietly, name, chosen, weighted):
    X, y = (part[::2] for part in data(name))
    s = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weighted else None
    a, b = pair(name, shuffle=False, max_iter=5, **chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clipped batches, and what overflows in scikit-learn's
        a.fit(X, y, sample_weight=s)
        b.fit(X, y, sample_weight=s)
    agree(a, b)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_float32_trains_in_float32_and_close_to_scikit_learn(name, data, pair, quietly):
    X, y = data(name)
    X = X.astype(np.float32)
    a, b = pair(name, **STEADY)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    assert {part.dtype for part in (*b.coefs_, *b.intercepts_)} == {np.dtype("float32")}
    # float32 keeps 7 digits of each step
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=1e-4)


# lbfgs


@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "counts"])
@pytest.mark.parametrize("weights", ["unweighted", "weighted"])
def test_lbfgs_takes_scikit_learns_steps(weights, name, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    loss = {"loss": "poisson"} if name == "counts" else {}
    a, b = pair(name, solver="lbfgs", max_iter=15, random_state=1, activation="tanh", **loss)
    quietly(a.fit, X, y, sample_weight=s)
    quietly(b.fit, X, y, sample_weight=s)
    assert b.n_iter_ == a.n_iter_
    assert b.loss_ == pytest.approx(a.loss_, rel=CURVE)
    for one, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)  # curvature of differences
    assert not hasattr(b, "loss_curve_")


@pytest.mark.parametrize("name", ["iris", "labels", "three targets", "counts"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "gelu"])
def test_the_gradient_that_lbfgs_follows_is_its_losss(name, activation, data, pair, quietly):
    """scikit-learn's is not for several targets: a mean of losses with their sum's gradient."""
    X, y = (part[:20] for part in data(name))
    loss = {"loss": "poisson"} if name == "counts" else {}
    chosen = {"solver": "lbfgs", "max_iter": 1, "alpha": 0.3, "random_state": 0} | loss
    _, est = pair(name, activation=activation, **chosen)
    caught = []
    minimize = lbfgs.minimize

    def remember(objective, started, **options):
        caught.append((objective, started))
        return minimize(objective, started, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "minimize", remember)
        quietly(est.fit, X, y, sample_weight=np.linspace(0.5, 2, len(y)))
    ((objective, theta),) = caught
    _, gradient = objective(theta)
    direction = np.random.default_rng(0).normal(size=theta.shape) * (theta != 0)

    def apart(h):
        return objective(theta + h * direction)[0] - objective(theta - h * direction)[0]

    h = 1e-4
    slope = (8 * apart(h) - apart(2 * h)) / (12 * h)  # of fourth order
    assert gradient @ direction == pytest.approx(slope, rel=1e-7)


def test_lbfgs_gives_the_same_for_chunks_of_rows(data, monkeypatch, quietly):
    X, y = data("cancer")
    steady = {"solver": "lbfgs", "max_iter": 10, "random_state": 0, "activation": "tanh"}
    whole = quietly(xpmlp.MLPClassifier(**steady).fit, X, y)
    monkeypatch.setattr(lbfgs, "CHUNK_BYTES", 1)  # the smallest chunk: 256 rows of 569
    parts = quietly(xpmlp.MLPClassifier(**steady).fit, X, y)
    np.testing.assert_allclose(parts.coefs_[0], whole.coefs_[0], rtol=1e-6, atol=1e-9)


# What is printed and warned


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.1},
        {"tol": 0.5, "n_iter_no_change": 2},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1,
         "learning_rate_init": 1e-5, "max_iter": 30},
    ],
    ids=["plain", "early stopping", "converged", "adaptive"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_verbose_prints_scikit_learns_lines(name, more, data, pair, quietly, capsys):
    X, y = data(name)
    printed = []
    for est in pair(name, **STEADY | {"verbose": True} | more):
        quietly(est.fit, X, y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Iteration 1, loss = " in printed[0]


def test_the_end_of_epochs_is_warned_of_in_scikit_learns_words(data, pair):
    X, y = data("iris")
    texts = []
    for est in pair("iris", max_iter=3, random_state=0):
        with pytest.warns(ConvergenceWarning) as caught:
            est.fit(X, y)
        texts.append([str(one.message) for one in caught])
    assert texts[0] == texts[1]


def test_a_batch_larger_than_the_data_is_clipped_and_warned_of(data, pair, quietly):
    X, y = data("iris")
    texts = []
    for est in pair("iris", batch_size=1000, max_iter=1000, tol=1.0):
        with pytest.warns(UserWarning, match="clipped") as caught:
            est.fit(X, y)
        texts.append([str(one.message) for one in caught])
    assert texts[0] == texts[1]


def test_values_that_overflow_raise_scikit_learns_error():
    X = np.finfo(np.float64).max * np.random.default_rng(0).uniform(size=(10, 2))
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        xpmlp.MLPRegressor().fit(X, np.arange(10.0))


def test_a_batch_of_rows_without_weight_teaches_nothing(data):
    """scikit-learn stops there with a ZeroDivisionError."""
    X, y = data("iris")
    weight = np.ones(len(y))
    weight[:50] = 0  # the whole first batch
    steady = {"shuffle": False, "random_state": 0, "batch_size": 50, "max_iter": 400, "alpha": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours = xpmlp.MLPClassifier(**steady).fit(X, y, sample_weight=weight)
    assert np.isfinite(ours.loss_curve_).all()
    assert (ours.predict(X[50:]) == y[50:]).mean() > 0.9
    assert not (ours.predict(X[:50]) == y[:50]).any()


# Shuffled: other orders, the same quality


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize(
    "name", ["digits", "cancer", "wine", "iris", "generated", "diabetes", "three targets", "counts"]
)
def test_shuffled_scores_are_within_noise(name, solver, data, pair, quietly):
    X, y = data(name)
    scores = ([], [])
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(y))
        cut = 2 * len(y) // 3
        learnt, held = order[:cut], order[cut:]
        chosen = {"solver": solver, "random_state": seed, "max_iter": 60, "batch_size": 32}
        for est, found in zip(pair(name, **chosen, learning_rate_init=0.01), scores, strict=True):
            found.append(quietly(est.fit, X[learnt], y[learnt]).score(X[held], y[held]))
    gap = np.array(scores[1]) - np.array(scores[0])
    # the mean of ten paired gaps stays within three of its standard errors, or half a percent
    assert abs(gap.mean()) < max(3 * gap.std(ddof=1) / np.sqrt(10), 0.005), (scores, gap)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_every_parameter_has_scikit_learns_default_and_place(name):
    wanted, found = getattr(theirs, name)().get_params(), getattr(xpmlp, name)().get_params()
    assert {name: found[name] for name in wanted} == wanted
    places = [
        [
            p.name
            for p in signature(getattr(module, name)).parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        for module in (theirs, xpmlp)
    ]
    assert places[0] == places[1]
