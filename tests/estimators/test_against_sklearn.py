"""With the same seed and no shuffling: scikit-learn's weights, loss curves and stopping epochs."""

import warnings
from inspect import signature

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

import xpmlp
from xpmlp.estimators import lbfgs

CURVE = 1e-6  # relative, float64: sums in another order, and training amplifies the difference
UNSHUFFLED = {"random_state": 0, "shuffle": False, "max_iter": 12, "hidden_layer_sizes": (9, 5)}


def agree(a, b):
    """Assert that the fitted attributes of scikit-learn's `a` and of our `b` agree."""
    assert b.n_iter_ == a.n_iter_
    assert b.t_ == a.t_
    assert b.loss_ == pytest.approx(a.loss_, rel=CURVE)
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=CURVE)
    for name in ("best_loss_", "best_validation_score_"):
        actual, expected = getattr(b, name), getattr(a, name)
        assert actual == expected or actual == pytest.approx(expected, rel=CURVE), name
    if a.validation_scores_ is None:
        assert b.validation_scores_ is None
    else:
        np.testing.assert_allclose(b.validation_scores_, a.validation_scores_, rtol=CURVE)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(b, name) == getattr(a, name), name
    assert b._no_improvement_count == a._no_improvement_count
    for expected, actual in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=CURVE, atol=CURVE)


# Public names

ADDED_NAMES = {
    "callbacks", "checkpoint", "clip", "continuation", "device", "dropout", "dtype", "history_",
    "load", "n_threads", "output", "precision", "resume", "save", "schedule", "scoring",
    "validation_loss_curve_", "weight_decay",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "own"),
    [("iris", {"class_weight"}), ("diabetes", {"quantiles", "set_predict_request"})],
)
@pytest.mark.parametrize("fitted", [False, True])
def test_public_names_are_scikit_learns_and_the_documented_additions(
    fitted, name, own, data, pair, quietly
):
    estimators = pair(name, max_iter=2)
    if fitted:
        for est in estimators:
            quietly(est.fit, *data(name))
    theirs, ours = ({x for x in dir(est) if not x.startswith("_")} for est in estimators)
    added = {x for x in ADDED_NAMES if fitted or not x.endswith("_")}
    assert ours == theirs | added | own


# Initial weights


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("name", ["iris", "cancer", "three targets"])
def test_initial_weights_equal_scikit_learns(name, activation, data, pair, quietly):
    X, y = data(name)
    # steps of 1e-300 leave the initial weights unchanged
    frozen = {"learning_rate_init": 1e-300, "alpha": 0.0, "max_iter": 1, "random_state": 7}
    a, b = pair(name, activation=activation, hidden_layer_sizes=(6, 4), **frozen)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    for expected, actual in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        assert np.array_equal(expected, actual)


@pytest.mark.parametrize(
    "random_state", [None, np.random.RandomState(5)], ids=["global", "instance"]
)
def test_initial_weights_use_the_given_random_state(random_state, data, quietly):
    X, y = data("iris")
    np.random.seed(11)
    state = check_random_state(random_state).get_state()
    frozen = {
        "learning_rate_init": 1e-300,
        "alpha": 0.0,
        "max_iter": 1,
        "random_state": random_state,
    }
    fitted = []
    for module in (neural_network, xpmlp):
        check_random_state(random_state).set_state(state)
        fitted.append(quietly(module.MLPClassifier(**frozen).fit, X, y))
    assert np.array_equal(fitted[0].coefs_[0], fitted[1].coefs_[0])


# Training on a grid of parameters

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
def test_training_matches_scikit_learn(weights, name, solver, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    a, b = pair(name, **UNSHUFFLED | {"batch_size": 32} | solver)
    quietly(a.fit, X, y, sample_weight=s)
    quietly(b.fit, X, y, sample_weight=s)
    agree(a, b)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("name", ["digits", "counts"])
def test_activations_and_poisson_loss_match_scikit_learn(
    name, activation, solver, data, pair, quietly
):
    X, y = data(name)
    loss = {"loss": "poisson"} if name == "counts" else {}
    a, b = pair(name, **UNSHUFFLED, activation=activation, solver=solver, **loss)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    agree(a, b)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_digits])
def test_loss_of_saturated_probabilities_matches_scikit_learn(load, quietly):
    X, y = load(return_X_y=True)  # not scaled, from 1e-3 to 1e3: saturated from the start
    a, b = (quietly(m.MLPClassifier(**UNSHUFFLED).fit, X, y) for m in (neural_network, xpmlp))
    agree(a, b)


@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "three targets"])
@pytest.mark.parametrize("weights", ["unweighted", "weighted"])
def test_early_stopping_holds_out_the_same_rows_as_scikit_learn(weights, name, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    stopping = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate_init": 0.02}
    a, b = pair(name, **UNSHUFFLED | {"max_iter": 40, "n_iter_no_change": 3} | stopping)
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
def test_any_parameters_train_as_in_scikit_learn(data, pair, quietly, name, params, weighted):
    X, y = (part[::2] for part in data(name))
    s = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weighted else None
    a, b = pair(name, shuffle=False, max_iter=5, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clipped batches, and overflows in scikit-learn's
        a.fit(X, y, sample_weight=s)
        b.fit(X, y, sample_weight=s)
    agree(a, b)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_float32_trains_in_float32_and_is_close_to_scikit_learn(name, data, pair, quietly):
    X, y = data(name)
    X = X.astype(np.float32)
    a, b = pair(name, **UNSHUFFLED)
    quietly(a.fit, X, y)
    quietly(b.fit, X, y)
    assert {part.dtype for part in (*b.coefs_, *b.intercepts_)} == {np.dtype("float32")}
    # float32 keeps 7 digits of each step
    np.testing.assert_allclose(b.loss_curve_, a.loss_curve_, rtol=1e-4)


# lbfgs


@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "counts"])
@pytest.mark.parametrize("weights", ["unweighted", "weighted"])
def test_lbfgs_matches_scikit_learn(weights, name, data, pair, quietly):
    X, y = data(name)
    s = WEIGHTS[weights](len(y))
    loss = {"loss": "poisson"} if name == "counts" else {}
    a, b = pair(name, solver="lbfgs", max_iter=15, random_state=1, activation="tanh", **loss)
    quietly(a.fit, X, y, sample_weight=s)
    quietly(b.fit, X, y, sample_weight=s)
    assert b.n_iter_ == a.n_iter_
    assert b.loss_ == pytest.approx(a.loss_, rel=CURVE)
    for expected, actual in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        # lbfgs takes its curvature from differences of gradients, which amplifies rounding
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert not hasattr(b, "loss_curve_")


@pytest.mark.parametrize("name", ["iris", "labels", "three targets", "counts"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "gelu"])
def test_lbfgs_gradient_matches_finite_differences(name, activation, data, pair, quietly):
    """With several targets scikit-learn's does not: it minimizes a mean with a sum's gradient."""
    X, y = (part[:20] for part in data(name))
    loss = {"loss": "poisson"} if name == "counts" else {}
    params = {"solver": "lbfgs", "max_iter": 1, "alpha": 0.3, "random_state": 0} | loss
    _, est = pair(name, activation=activation, **params)
    calls = []
    minimize = lbfgs.minimize

    def record(objective, start, **options):
        calls.append((objective, start))
        return minimize(objective, start, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "minimize", record)
        quietly(est.fit, X, y, sample_weight=np.linspace(0.5, 2, len(y)))
    ((objective, theta),) = calls
    _, gradient = objective(theta)
    direction = np.random.default_rng(0).normal(size=theta.shape) * (theta != 0)

    def difference(h):
        return objective(theta + h * direction)[0] - objective(theta - h * direction)[0]

    h = 1e-4
    slope = (8 * difference(h) - difference(2 * h)) / (12 * h)  # of fourth order
    assert gradient @ direction == pytest.approx(slope, rel=1e-7)


def test_lbfgs_in_chunks_of_rows_equals_one_chunk(data, monkeypatch, quietly):
    X, y = data("cancer")
    params = {"solver": "lbfgs", "max_iter": 10, "random_state": 0, "activation": "tanh"}
    whole = quietly(xpmlp.MLPClassifier(**params).fit, X, y)
    monkeypatch.setattr(lbfgs, "CHUNK_BYTES", 1)  # the smallest chunk: 256 rows of 569
    chunked = quietly(xpmlp.MLPClassifier(**params).fit, X, y)
    np.testing.assert_allclose(chunked.coefs_[0], whole.coefs_[0], rtol=1e-6, atol=1e-9)


# Output and warnings


@pytest.mark.parametrize(
    "options",
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
def test_verbose_prints_the_lines_of_scikit_learn(name, options, data, pair, quietly, capsys):
    X, y = data(name)
    printed = []
    for est in pair(name, **UNSHUFFLED | {"verbose": True} | options):
        quietly(est.fit, X, y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Iteration 1, loss = " in printed[0]


def test_the_convergence_warning_equals_scikit_learns(data, pair):
    X, y = data("iris")
    texts = []
    for est in pair("iris", max_iter=3, random_state=0):
        with pytest.warns(ConvergenceWarning) as warned:
            est.fit(X, y)
        texts.append([str(warning.message) for warning in warned])
    assert texts[0] == texts[1]


def test_a_batch_larger_than_the_data_is_clipped_with_a_warning(data, pair, quietly):
    X, y = data("iris")
    texts = []
    for est in pair("iris", batch_size=1000, max_iter=1000, tol=1.0):
        with pytest.warns(UserWarning, match="clipped") as warned:
            est.fit(X, y)
        texts.append([str(warning.message) for warning in warned])
    assert texts[0] == texts[1]


def test_overflow_raises_the_error_of_scikit_learn():
    X = np.finfo(np.float64).max * np.random.default_rng(0).uniform(size=(10, 2))
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        xpmlp.MLPRegressor().fit(X, np.arange(10.0))


def test_a_batch_of_zero_weights_changes_nothing(data):
    """scikit-learn raises ZeroDivisionError there."""
    X, y = data("iris")
    weight = np.ones(len(y))
    weight[:50] = 0  # the whole first batch
    params = {"shuffle": False, "random_state": 0, "batch_size": 50, "max_iter": 400, "alpha": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est = xpmlp.MLPClassifier(**params).fit(X, y, sample_weight=weight)
    assert np.isfinite(est.loss_curve_).all()
    assert (est.predict(X[50:]) == y[50:]).mean() > 0.9
    assert not (est.predict(X[:50]) == y[:50]).any()


# With shuffling: other orders of the rows, the same quality


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
        train, test = order[:cut], order[cut:]
        params = {"solver": solver, "random_state": seed, "max_iter": 60, "batch_size": 32}
        for est, values in zip(pair(name, **params, learning_rate_init=0.01), scores, strict=True):
            values.append(quietly(est.fit, X[train], y[train]).score(X[test], y[test]))
    gap = np.array(scores[1]) - np.array(scores[0])
    # the mean of ten paired gaps is within three of its standard errors, or half a percent
    assert abs(gap.mean()) < max(3 * gap.std(ddof=1) / np.sqrt(10), 0.005), (scores, gap)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_have_the_defaults_and_order_of_scikit_learn(name):
    expected, actual = (getattr(m, name)().get_params() for m in (neural_network, xpmlp))
    assert {name: actual[name] for name in expected} == expected
    orders = [
        [
            p.name
            for p in signature(getattr(module, name)).parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        for module in (neural_network, xpmlp)
    ]
    assert orders[0] == orders[1]
