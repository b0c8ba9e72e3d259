"""Parameters that scikit-learn's MLP lacks: class weights, dropout, losses, solvers, callbacks."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.metrics import d2_pinball_score
from sklearn.utils.class_weight import compute_sample_weight

from xpmlp import Batch, MLPClassifier, MLPRegressor, Spec, gradient, new_state, update
from xpmlp.activations import ACTIVATIONS
from xpmlp.layout import padded_size
from xpmlp.names import title
from xpmlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FULL = {"random_state": 0, "max_iter": 20, "batch_size": 10_000_000}
FULL_WARNED = pytest.mark.filterwarnings("ignore:Got `batch_size`")


def close(est, other):
    pairs = zip(est.coefs_ + est.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    return all(np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


# Class weights


@FULL_WARNED
@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 5.0, 2: 0.5}])
def test_in_one_batch_class_weights_equal_sample_weights(class_weight, data):
    X, y = data("iris")
    X, y = X[20:], y[20:]
    sample_weight = np.linspace(0.5, 2, len(y))
    est = MLPClassifier(**FULL, class_weight=class_weight).fit(X, y)
    assert close(
        est, MLPClassifier(**FULL).fit(X, y, sample_weight=compute_sample_weight(class_weight, y))
    )
    if class_weight != "balanced":
        both = MLPClassifier(**FULL, class_weight=class_weight).fit(
            X, y, sample_weight=sample_weight
        )
        weight = sample_weight * compute_sample_weight(class_weight, y)
        assert close(both, MLPClassifier(**FULL).fit(X, y, sample_weight=weight))


@pytest.mark.filterwarnings("ignore:X is constant")
def test_rare_classes_have_their_share_of_the_loss_in_small_batches():
    """Normalised per batch, 1% of positives would carry 0.21 of the balanced loss, not 0.5."""
    y = (np.arange(6400) % 100 == 0).astype(int)
    X = np.ones((6400, 1))  # only the share can be learned: a constant, 0.5 if balanced
    params = {
        "hidden_layer_sizes": (), "solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.02,
        "batch_size": 32, "max_iter": 30, "alpha": 0.0, "random_state": 0, "tol": 0.0,
    }  # fmt: skip
    balanced = MLPClassifier(**params, class_weight="balanced").fit(X, y)
    weight = compute_sample_weight("balanced", y)
    per_batch = MLPClassifier(**params).fit(X, y, sample_weight=weight)
    assert balanced.predict_proba(X)[0, 1] == pytest.approx(0.5, abs=0.05)
    assert per_batch.predict_proba(X)[0, 1] < 0.35


@pytest.mark.parametrize("labels", [["a", "b"], [False, True], [-3, 8]])
def test_class_weights_are_by_label(labels, data):
    X, y = data("cancer")
    y = np.array(labels)[y]
    class_weight = {labels[0]: 1e4, labels[1]: 1e-4}
    est = MLPClassifier(class_weight=class_weight, max_iter=60, random_state=0).fit(X, y)
    assert (est.predict(X) == labels[0]).mean() > 0.9


def test_class_weights_of_several_labels_per_row():
    X, y = make_multilabel_classification(100, random_state=0)
    for class_weight in ("balanced", [{0: 1.0, 1: 2.0}] * y.shape[1]):
        est = MLPClassifier(class_weight=class_weight, max_iter=20, random_state=0).fit(X, y)
        assert est.predict(X).shape == y.shape
    with pytest.raises(ValueError, match="class_weight of several labels per row must be"):
        MLPClassifier(class_weight={0: 1.0, 1: 2.0}).fit(X, y)


@pytest.mark.parametrize("class_weight", [{7: 1.0}, "balnced", 3, {0: 0.0, 1: 0.0, 2: 0.0}])
def test_bad_class_weights_are_named(class_weight, data):
    X, y = data("iris")
    with pytest.raises(ValueError, match="class_weight"):
        MLPClassifier(class_weight=class_weight).fit(X, y)


# Activations, dropout


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_every_activation_learns(name, kind, data):
    X, y = data("iris")
    est = kind(activation=name, max_iter=150, learning_rate_init=0.01, random_state=0)
    assert est.fit(X, y).score(X, y) > 0.8


def test_an_estimator_with_an_activation_per_layer_matches_the_core_functions(data):
    X, y = data("iris")
    params = {"hidden_layer_sizes": (7, 5), "activation": ("leaky_relu:0.1", "logistic")}
    params |= {"random_state": 0, "shuffle": False, "alpha": 0.0}
    est = MLPClassifier(**params, max_iter=5).fit(X, y)
    start = MLPClassifier(**params, max_iter=1, learning_rate_init=1e-300).fit(X, y)
    spec = Spec.parse("4-7-5-3", activation=["leaky_relu:0.1", "sigmoid"], loss="cross_entropy")
    state = new_state(np, spec, "adam_sklearn", np.zeros(padded_size(spec)))
    for window, weights, bias in zip(state.layers, start.coefs_, start.intercepts_, strict=True):
        window.weights[...] = weights
        window.bias[...] = bias
    h = SimpleNamespace(**OPTIMIZERS["adam_sklearn"].defaults, learning_rate=0.001)
    for _ in range(5):
        gradient(np, spec, state, Batch(X, np.eye(3)[y], np.full(len(y), 1 / len(y))))
        update(np, "adam_sklearn", state, h)
    for window, weights, bias in zip(state.layers, est.coefs_, est.intercepts_, strict=True):
        np.testing.assert_allclose(weights, window.weights, rtol=1e-9)
        np.testing.assert_allclose(bias, window.bias[0], rtol=1e-9, atol=1e-12)


def sine(xp, z):
    return xp.sin(z), xp.cos(z)


def test_a_custom_activation(data):
    X, y = data("iris")
    est = MLPClassifier(activation=sine, max_iter=200, random_state=0).fit(X, y)
    assert est.score(X, y) > 0.9


def test_dropout_acts_only_in_training(data, same_weights):
    X, y = data("cancer")
    none = MLPClassifier(random_state=0, max_iter=10).fit(X, y)
    zero = MLPClassifier(random_state=0, max_iter=10, dropout=(0.0,)).fit(X, y)
    some = MLPClassifier(random_state=0, max_iter=10, dropout=0.5).fit(X, y)
    assert same_weights(none, zero)
    assert not same_weights(none, some)
    assert np.array_equal(some.predict_proba(X), some.predict_proba(X))
    assert some.score(X, y) > 0.9


# Losses and quantiles


@pytest.mark.parametrize("loss", ["huber", "huber:0.5", "absolute_error", "quantile:0.5"])
def test_robust_losses_resist_outliers(loss, rng):
    X = rng.normal(size=(400, 2))
    clean = X[:, 0] - X[:, 1]
    y = clean + np.where(rng.uniform(size=400) < 0.1, 50.0, 0.0)
    params = {
        "max_iter": 300,
        "learning_rate_init": 0.01,
        "random_state": 0,
        "hidden_layer_sizes": 20,
    }
    robust = MLPRegressor(loss, **params).fit(X, y)
    squared = MLPRegressor(**params).fit(X, y)
    error = [np.abs(est.predict(X) - clean).mean() for est in (robust, squared)]
    assert error[0] < error[1] / 3


def test_quantiles_cover_their_share_of_the_rows(rng):
    X = rng.uniform(-1, 1, size=(2000, 1))
    y = X[:, 0] + rng.exponential(size=2000)
    levels = (0.1, 0.5, 0.9)
    params = {"learning_rate_init": 0.01, "schedule": "cosine", "tol": 0.0, "random_state": 0}
    est = MLPRegressor(quantiles=levels, max_iter=60, **params)
    predicted = est.fit(X, y).predict(X)
    assert predicted.shape == (2000, 3)
    assert est.n_outputs_ == 3
    for level, column in zip(levels, predicted.T, strict=True):
        assert (y < column).mean() == pytest.approx(level, abs=0.03)
    scores = [d2_pinball_score(y, c, alpha=q) for q, c in zip(levels, predicted.T, strict=True)]
    assert est.score(X, y) == pytest.approx(np.mean(scores))
    single = MLPRegressor(quantiles=[0.9], max_iter=20, random_state=0).fit(X, y)
    assert single.predict(X).shape == (2000,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantiles": (0.1, 1.5)}, r"quantiles must be numbers in \(0, 1\)"),
        ({"quantiles": ()}, "quantiles must be"),
        ({"quantiles": (0.5,), "loss": "huber"}, "quantiles have a loss of their own"),
        ({"loss": "quantile:0.1,0.9"}, r"give quantiles=\(0.1,0.9\) instead"),
        ({"loss": "hubber"}, "loss"),
        ({"loss": "huber:-1"}, "huber"),
        ({"loss": "cross_entropy"}, "loss"),
    ],
)
def test_bad_losses_are_named(settings, message, data):
    X, y = data("diabetes")
    with pytest.raises(ValueError, match=message):
        MLPRegressor(**settings).fit(X, y)


def test_quantiles_need_one_target_and_poisson_needs_counts(data):
    X, y = data("three targets")
    with pytest.raises(ValueError, match="quantiles are of one target; y has 3 columns"):
        MLPRegressor(quantiles=(0.5,)).fit(X, y)
    with pytest.raises(ValueError, match="y must be at least 0 for loss='poisson'"):
        MLPRegressor("poisson").fit(X, y)


def test_a_custom_loss(data):
    X, y = data("diabetes")

    def half_square(xp, score, target):
        e = score - target
        return 0.5 * xp.sum(e * e, axis=-1), e

    custom, builtin = (
        MLPRegressor(loss, random_state=0, max_iter=20) for loss in (half_square, "squared_error")
    )
    np.testing.assert_allclose(custom.fit(X, y).predict(X), builtin.fit(X, y).predict(X), rtol=1e-9)


# Solvers, schedules, decay, clipping


@pytest.mark.parametrize("solver", [*sorted(OPTIMIZERS), OPTIMIZERS["adam"]], ids=title)
def test_every_optimizer_learns(solver, data):
    X, y = data("iris")
    est = MLPClassifier(solver=solver, learning_rate_init=0.02, max_iter=150, random_state=0)
    assert est.fit(X, y).score(X, y) > 0.9


def descent(xp, h, t, theta, g):
    return (theta - h.learning_rate * g,)


def test_a_custom_solver(data, same_weights):
    X, y = data("iris")
    momentum = {"momentum": 0.0, "nesterovs_momentum": False}
    custom = MLPClassifier(solver=descent, random_state=0, max_iter=5).fit(X, y)
    sgd = MLPClassifier(solver="sgd", **momentum, random_state=0, max_iter=5).fit(X, y)
    assert close(custom, sgd)


def test_a_schedule_changes_the_learning_rate(data):
    X, y = data("iris")
    est = MLPClassifier(schedule="cosine", max_iter=10, random_state=0).fit(X, y)
    rates = est.history_["learning_rate"]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] <= 0.001
    assert rates[-1] < 0.0001


def test_weight_decay_shrinks_weights_and_clip_bounds_steps(data):
    X, y = data("iris")
    plain = MLPClassifier(random_state=0, max_iter=30).fit(X, y)
    decayed = MLPClassifier(random_state=0, max_iter=30, weight_decay=10.0).fit(X, y)
    assert np.abs(decayed.coefs_[0]).sum() < np.abs(plain.coefs_[0]).sum()
    clipped = MLPClassifier(solver="sgd", momentum=0.0, nesterovs_momentum=False, random_state=0,
                         max_iter=1, clip=1e-12, alpha=0.0).fit(X, y)  # fmt: skip
    frozen = MLPClassifier(random_state=0, max_iter=1, learning_rate_init=1e-300, alpha=0.0).fit(
        X, y
    )
    assert np.allclose(clipped.coefs_[0], frozen.coefs_[0], rtol=0, atol=1e-12)


# Callbacks, progress, threads


def test_callbacks_get_every_epoch_and_stop_training(data):
    X, y = data("iris")
    losses = []

    def watch(report):
        losses.append((report.epoch, report.loss))
        return report.epoch == 4

    est = MLPClassifier(callbacks=[watch], random_state=0).fit(X, y)
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4]
    assert [loss for _, loss in losses] == est.loss_curve_ == est.history_["loss"]
    assert est.n_iter_ == 4


def test_a_callback_may_scale_the_learning_rate(data):
    X, y = data("iris")
    est = MLPClassifier(
        callbacks=[lambda report: report.scale_learning_rate(0.5)], max_iter=4, random_state=0
    )
    rates = est.fit(X, y).history_["learning_rate"]
    np.testing.assert_allclose(rates, 0.001 * 0.5 ** np.arange(4), rtol=1e-12)
    assert est._optimizer.learning_rate == pytest.approx(0.001 * 0.5**4)


def test_the_progress_bar_is_written_to_standard_error(data, capsys):
    X, y = data("iris")
    MLPClassifier(verbose="bar", max_iter=3).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss=" in err


def test_threads_are_limited_while_training_and_restored(data):
    from threadpoolctl import threadpool_info, threadpool_limits

    X, y = data("iris")

    def blas_threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    counts = []
    with threadpool_limits(2, user_api="blas"):
        est = MLPClassifier(
            n_threads=1, max_iter=2, callbacks=[lambda report: counts.append(blas_threads())]
        )
        est.fit(X, y)
        assert blas_threads() == {2}
    assert counts == [{1}, {1}]


@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.1}, {"schedule": "cosine"}, {"clip": 1.0}, {"callbacks": [print]}],
    ids=lambda options: next(iter(options)),
)
def test_lbfgs_refuses_parameters_of_epochs(options, data):
    X, y = data("iris")
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} needs a solver with epochs"):
        MLPClassifier(solver="lbfgs", **options).fit(X, y)


def test_class_weights_raise_the_recall_of_a_rare_class():
    X, y = make_classification(2000, weights=[0.95], n_informative=5, flip_y=0, random_state=0)
    params = {"max_iter": 20, "random_state": 0, "hidden_layer_sizes": 10}
    plain = MLPClassifier(**params, scoring="balanced_accuracy").fit(X, y)
    balanced = MLPClassifier(**params, class_weight="balanced").fit(X, y)
    recall = [(est.predict(X)[y == 1] == 1).mean() for est in (plain, balanced)]
    assert recall[1] > recall[0]
