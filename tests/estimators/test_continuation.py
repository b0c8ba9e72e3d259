"""Training continues as if uninterrupted, bit for bit, whatever happens between two epochs."""

import copy
import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from xpmlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
EPOCHS = 5

SETTINGS = {
    "adam": {},
    "sgd": {"solver": "sgd"},
    "adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "tol": 0.2, "n_iter_no_change": 1,
    },
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "adamw": {"solver": "adamw", "weight_decay": 0.1, "clip": 0.5},
    "rmsprop": {"solver": "rmsprop"},
    "dropout": {"dropout": 0.3, "hidden_layer_sizes": (20, 10)},
    "dropouts": {
        "dropout": (0.0, 0.5), "hidden_layer_sizes": (20, 10), "activation": ("elu", "tanh"),
    },
    "schedule": {"schedule": "step:2,0.5"},
    "unshuffled": {"shuffle": False},
    "float32": {"dtype": "float32", "dropout": 0.1},
    "balanced": {"class_weight": "balanced"},
}  # fmt: skip


def rows(est, data):
    return data("iris" if isinstance(est, MLPClassifier) else "diabetes")


def create(kind, settings):
    params = {
        name: value
        for name, value in settings.items()
        if name != "class_weight" or kind is MLPClassifier
    }
    return kind(random_state=4, batch_size=40, **params)


@pytest.fixture(params=[MLPClassifier, MLPRegressor])
def kind(request):
    return request.param


@pytest.fixture(params=SETTINGS)
def settings(request):
    return SETTINGS[request.param]


def round_trip(medium, est, tmp_path):
    """The estimator itself, or restored from a pickle, a copy or a file."""
    if medium == "pickle":
        return pickle.loads(pickle.dumps(est))
    if medium == "copy":
        return copy.deepcopy(est)
    if medium == "file":
        est.save(tmp_path / "model")
        return type(est).load(tmp_path / "model")
    return est


@pytest.mark.parametrize("medium", ["nothing", "pickle", "copy", "file"])
def test_partial_fits_and_warm_starts_are_one_fit(
    kind, settings, medium, data, same_weights, tmp_path
):
    X, y = rows(create(kind, {}), data)
    whole = create(kind, settings | {"max_iter": EPOCHS}).fit(X, y)
    parts = create(kind, settings | {"max_iter": EPOCHS})
    warm = create(kind, settings | {"max_iter": 1, "warm_start": True})
    for _ in range(EPOCHS):
        labels = {"classes": np.unique(y)} if kind is MLPClassifier else {}
        parts = round_trip(medium, parts.partial_fit(X, y, **labels), tmp_path)
        warm = round_trip(medium, warm.fit(X, y), tmp_path)
    for est in (parts, warm):
        assert same_weights(est, whole)
        assert est.loss_curve_ == whole.loss_curve_
        assert est.t_ == whole.t_
        assert est._optimizer.learning_rate == whole._optimizer.learning_rate
        assert [len(curve) for curve in est.history_.values()] == [EPOCHS] * len(est.history_)


@pytest.mark.parametrize("medium", ["nothing", "pickle", "file"])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"solver": "sgd"}])
def test_early_stopping_continues_from_the_last_weights_not_the_best(
    kind, medium, options, data, same_weights, tmp_path
):
    X, y = rows(create(kind, {}), data)
    # the learning rate is so high that the best epoch is not the last
    params = {"early_stopping": True, "learning_rate_init": 0.3, "hidden_layer_sizes": 30}
    scores = create(kind, params | options | {"max_iter": 20}).fit(X, y).validation_scores_
    epochs = next(n for n in range(4, 21) if np.argmax(scores[:n]) + 1 < n)
    whole = create(kind, params | options | {"max_iter": epochs}).fit(X, y)
    warm = create(kind, params | options | {"max_iter": 1, "warm_start": True})
    for _ in range(epochs):
        warm = round_trip(medium, warm.fit(X, y), tmp_path)
    assert same_weights(warm, whole)
    assert warm.validation_scores_ == whole.validation_scores_
    assert warm.best_validation_score_ == whole.best_validation_score_
    best = int(np.argmax(whole.validation_scores_)) + 1
    assert whole.history_["best_epoch"][-1] == best < epochs


@pytest.mark.parametrize(
    "random_state", [None, np.random.RandomState(3)], ids=["global", "instance"]
)
def test_continuation_with_a_random_state_that_is_not_an_integer(random_state, data, same_weights):
    X, y = data("iris")
    fitted = []
    for epochs, warm in ((4, False), (1, True)):
        np.random.seed(5)
        start = copy.deepcopy(random_state)
        est = MLPClassifier(random_state=start, max_iter=epochs, warm_start=warm, dropout=0.2)
        for _ in range(4 // epochs):
            est.fit(X, y)
        fitted.append(est)
    assert same_weights(*fitted)


def test_continuation_with_sparse_rows(data, same_weights):
    X, y = data("digits")
    whole = MLPClassifier(random_state=0, max_iter=3, dropout=0.2).fit(csr_array(X), y)
    parts = MLPClassifier(random_state=0, dropout=0.2)
    for _ in range(3):
        parts.partial_fit(csr_array(X), y, classes=np.unique(y))
    assert same_weights(whole, parts)


def test_every_epoch_has_its_own_order(data):
    """scikit-learn's partial_fit has the same order every time: scikit-learn issue 12505."""
    X, y = data("diabetes")
    targets = []

    def recording_loss(xp, score, target):
        targets.append(target[:, 0].copy())
        e = score - target
        return xp.sum(e * e, axis=-1), 2 * e

    est = MLPRegressor(loss=recording_loss, random_state=0, batch_size=len(y))
    est.partial_fit(X, y)
    first = targets[-1]
    est.partial_fit(X, y)
    assert not np.array_equal(first, targets[-1])
    assert np.array_equal(np.sort(first), np.sort(targets[-1]))


def test_plans_are_kept_between_partial_fits_but_not_pickled(data):
    X, y = data("iris")
    est = MLPClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    engine = est._optimizer.engine
    assert est.partial_fit(X, y)._optimizer.engine is engine
    assert pickle.loads(pickle.dumps(est))._optimizer.engine is None
    assert copy.deepcopy(est)._optimizer.engine is None
    assert est.fit(X, y)._optimizer.engine is None


# Weights changed by the user


def test_predict_uses_edited_and_assigned_weights(kind, data):
    X, y = rows(create(kind, {}), data)
    est = create(kind, {"max_iter": 3}).fit(X, y)
    predict = est.predict_proba if kind is MLPClassifier else est.predict
    before = predict(X)
    est.coefs_[0][...] = 0
    edited = predict(X)
    assert not np.allclose(edited, before)
    assert np.allclose(edited, edited[0])  # independent of X
    est.intercepts_[-1] = est.intercepts_[-1] + np.arange(len(est.intercepts_[-1])) + 1.0
    assert not np.allclose(predict(X), edited)
    est.coefs_ = [np.zeros_like(part) for part in est.coefs_]
    est.intercepts_ = [np.zeros(part.shape).tolist() for part in est.intercepts_]
    assert np.allclose(predict(X), predict(X)[0])


@pytest.mark.parametrize("early_stopping", [False, True])
def test_training_continues_from_edited_and_assigned_weights(
    kind, early_stopping, data, same_weights
):
    X, y = rows(create(kind, {}), data)
    settings = {"max_iter": 2, "warm_start": True, "early_stopping": early_stopping}
    edited = create(kind, settings).fit(X, y)
    assigned = copy.deepcopy(edited)
    edited.coefs_[0][...] *= 0.5
    assigned.coefs_ = [0.5 * assigned.coefs_[0], *assigned.coefs_[1:]]
    untouched = copy.deepcopy(edited).fit(X, y)
    assert same_weights(edited.fit(X, y), assigned.fit(X, y))
    assert same_weights(edited, untouched)


def test_a_learning_rate_set_between_two_fits_is_used(data, same_weights):
    X, y = data("iris")
    est = MLPClassifier(random_state=0, max_iter=2, warm_start=True).fit(X, y)
    before = copy.deepcopy(est)
    est.set_params(learning_rate_init=1e-300, alpha=0.0).fit(X, y)
    assert same_weights(est, before)


def test_another_solver_starts_with_new_slots(data):
    X, y = data("iris")
    est = MLPClassifier(random_state=0, max_iter=2, warm_start=True).fit(X, y)
    est.set_params(solver="sgd").fit(X, y)
    assert len(est._optimizer.slots) == 1
    est.set_params(solver="lbfgs").fit(X, y)
    assert not hasattr(est, "partial_fit")
    est.set_params(solver="adam").partial_fit(X, y)


def test_hidden_layers_of_another_size_cannot_continue(data):
    X, y = data("iris")
    est = MLPClassifier(hidden_layer_sizes=5, max_iter=2, warm_start=True).fit(X, y)
    before = copy.deepcopy(est.coefs_)
    with pytest.raises(ValueError, match=r"coefs_\[0\] has shape \(4, 5\).*\(4, 6\)"):
        est.set_params(hidden_layer_sizes=6).fit(X, y)
    assert all(map(np.array_equal, before, est.coefs_))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "warmup:2 * cosine"])
def test_partial_fits_follow_a_schedule_over_max_iter(schedule, data, same_weights):
    X, y = data("iris")
    whole = MLPClassifier(random_state=0, max_iter=6, schedule=schedule).fit(X, y)
    parts = MLPClassifier(random_state=0, max_iter=6, schedule=schedule)
    for _ in range(6):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    assert parts.history_["learning_rate"] == whole.history_["learning_rate"]
    assert same_weights(parts, whole)
    assert parts.partial_fit(X, y).history_["learning_rate"][-1] == pytest.approx(0, abs=1e-4)


def test_prediction_ignores_parameters_set_after_fit(data):
    X, y = data("diabetes")
    est = MLPRegressor(random_state=0, max_iter=3).fit(X, y)
    before = est.predict(X)
    est.set_params(loss="poisson", dropout=(0.1, 0.2), hidden_layer_sizes=7)
    assert np.array_equal(est.predict(X), before)


# Continuation as in scikit-learn


def test_continuation_as_in_scikit_learn(data):
    """Its warm start resets the optimizer: scikit-learn issue 6091."""
    from sklearn import neural_network

    X, y = data("iris")
    params = {"warm_start": True, "max_iter": 3, "random_state": 0, "shuffle": False}
    expected = neural_network.MLPClassifier(**params)
    compatible = MLPClassifier(**params, continuation="scikit-learn")
    exact = MLPClassifier(**params)
    for est in (expected, compatible, exact):
        est.fit(X, y).fit(X, y)
    np.testing.assert_allclose(compatible.loss_curve_, expected.loss_curve_, rtol=1e-9)
    assert not np.allclose(exact.loss_curve_, expected.loss_curve_, rtol=1e-9)


def test_continuation_as_in_scikit_learn_with_early_stopping(data):
    from sklearn import neural_network

    X, y = data("cancer")
    params = {"warm_start": True, "max_iter": 4, "random_state": 0, "shuffle": False}
    params |= {"early_stopping": True, "learning_rate_init": 0.01}
    expected = neural_network.MLPClassifier(**params)
    compatible = MLPClassifier(**params, continuation="scikit-learn")
    for est in (expected, compatible):
        est.fit(X, y).fit(X, y)
    np.testing.assert_allclose(compatible.loss_curve_[:5], expected.loss_curve_[:5], rtol=1e-9)
    assert compatible.validation_scores_[:5] == pytest.approx(expected.validation_scores_[:5])


def test_a_warm_start_warns_after_its_own_epochs(data):
    X, y = data("iris")
    est = MLPClassifier(warm_start=True, max_iter=2)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\)"):
            est.fit(X, y)
        assert est.n_iter_ == 2
    assert len(est.loss_curve_) == 4


def test_steps_are_recorded_if_the_fit_has_many(data, quietly):
    """Neither the epochs of earlier fits nor their executor matter."""
    X, y = data("iris")
    est = MLPClassifier(hidden_layer_sizes=(5,), batch_size=15, warm_start=True, random_state=0)

    def executors(epochs):
        return set(est.history_["executor"][-epochs:])

    for _ in range(9):  # of ten steps each
        quietly(est.set_params(max_iter=1).fit, X, y)
        assert executors(1) == {"eager"}
    est.partial_fit(X, y)
    assert executors(1) == {"eager"}
    quietly(est.set_params(max_iter=20).fit, X, y)
    assert executors(20) == {"replayed"}
    est.partial_fit(X, y)
    assert executors(1) == {"eager"}
