"""Validation rows: given or split off, with any scorer, and the best weights restored."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, make_scorer, r2_score

from xpmlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
UNSTABLE = {"random_state": 0, "max_iter": 25, "learning_rate_init": 0.1, "hidden_layer_sizes": 30}


@pytest.fixture
def split(data):
    """A function from a name in DATA to X, y, X_val, y_val."""

    def parts(name):
        X, y = data(name)
        order = np.random.default_rng(1).permutation(len(y))
        train, val = order[::2], order[1::2]
        return X[train], y[train], X[val], y[val]

    return parts


@pytest.mark.parametrize("name", ["iris", "cancer", "labels"])
def test_the_best_weights_on_given_rows_are_restored(name, split):
    X, y, X_val, y_val = split(name)
    scores = []
    est = MLPClassifier(**UNSTABLE, callbacks=[lambda report: scores.append(report.val_score)])
    est.fit(X, y, X_val=X_val, y_val=y_val)
    assert est.validation_scores_ == scores
    assert len(scores) == est.n_iter_ == len(est.validation_loss_curve_)
    assert est.score(X_val, y_val) == max(scores) == est.best_validation_score_
    assert est.best_loss_ == min(est.loss_curve_)  # it is the training loss that ends training


LABELS = {
    "two strings": np.array(["n", "p"]),
    "three strings": np.array(["a", "b", "c"]),
    "objects": np.array(["n", "p"], dtype=object),
    "numbers": np.array([3, 7]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_callbacks_see_labels_and_probabilities(labels):
    X, y = np.linspace(-1, 1, 30)[:, None], labels[np.arange(30) % len(labels)]
    reports = []

    def look(report):
        rows = report.predictions()
        assert rows.y.tolist() == y[:9].tolist()
        assert rows.prediction.tolist() == est.predict(X[:9]).tolist()
        np.testing.assert_allclose(rows.proba, est.predict_proba(X[:9]), rtol=1e-12)
        assert report.model().classes_.tolist() == labels.tolist()
        reports.append(report)

    est = MLPClassifier(max_iter=2, random_state=0, callbacks=[look])
    est.fit(X, y, X_val=X[:9], y_val=y[:9])
    assert len(reports) == 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("diabetes", {}),
        ("diabetes", {"loss": "gaussian"}),
        ("diabetes", {"quantiles": (0.1, 0.5)}),
        ("three targets", {}),
    ],
)
def test_callbacks_see_numbers_as_y_and_predict_have_them(name, parameters, split):
    X, y, X_val, y_val = split(name)
    reports = []

    def look(report):
        rows = report.predictions()
        assert rows.proba is None
        assert np.array_equal(rows.y, y_val)
        np.testing.assert_allclose(rows.prediction, est.predict(X_val), rtol=1e-12)
        reports.append(report)

    est = MLPRegressor(max_iter=2, random_state=0, callbacks=[look], **parameters)
    est.fit(X, y, X_val=X_val, y_val=y_val)
    assert len(reports) == 2


def test_the_best_weights_of_a_regressor(split):
    X, y, X_val, y_val = split("diabetes")
    est = MLPRegressor(**UNSTABLE).fit(X, y, X_val=X_val, y_val=y_val)
    assert est.score(X_val, y_val) == pytest.approx(max(est.validation_scores_), rel=1e-12)
    assert np.argmax(est.validation_scores_) < est.n_iter_ - 1


def test_early_stopping_on_given_rows_trains_on_all_others(split):
    X, y, X_val, y_val = split("iris")
    est = MLPClassifier(**UNSTABLE, early_stopping=True, n_iter_no_change=2)
    est.fit(X, y, X_val=X_val, y_val=y_val)
    assert est.t_ == est.n_iter_ * len(y)
    assert est.best_loss_ is None
    assert est.n_iter_ < 25


def test_partial_fit_with_given_rows(split, same_weights):
    X, y, X_val, y_val = split("iris")
    whole = MLPClassifier(**UNSTABLE, early_stopping=True, n_iter_no_change=100)
    whole.set_params(max_iter=6).fit(X, y, X_val=X_val, y_val=y_val)
    parts = MLPClassifier(**UNSTABLE, early_stopping=True, n_iter_no_change=100)
    for _ in range(6):
        parts.partial_fit(X, y, classes=[0, 1, 2], X_val=X_val, y_val=y_val)
    assert same_weights(parts, whole)
    assert parts.validation_scores_ == whole.validation_scores_
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        parts.partial_fit(X, y)


def test_validation_rows_may_have_weights(split):
    X, y, X_val, y_val = split("iris")
    weight = np.random.default_rng(0).uniform(0, 1, len(y_val))
    est = MLPClassifier(**UNSTABLE).fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    expected = est.score(X_val, y_val, sample_weight=weight)
    assert est.best_validation_score_ == pytest.approx(expected, rel=1e-12)
    weighted = MLPClassifier(**UNSTABLE).fit(
        X, y, X_val=X_val, y_val=y_val, sample_weight_val=(y_val == 0).astype(float)
    )
    selected = MLPClassifier(**UNSTABLE).fit(X, y, X_val=X_val[y_val == 0], y_val=y_val[y_val == 0])
    np.testing.assert_allclose(weighted.validation_scores_, selected.validation_scores_, rtol=1e-12)
    np.testing.assert_allclose(
        weighted.validation_loss_curve_, selected.validation_loss_curve_, rtol=1e-9
    )


def test_validation_loss_matches_log_loss(split):
    X, y, X_val, y_val = split("iris")
    est = MLPClassifier(random_state=0, max_iter=3).fit(X, y, X_val=X_val, y_val=y_val)
    assert np.argmax(est.validation_scores_) == 2, "the last weights are the restored ones"
    expected = log_loss(y_val, est.predict_proba(X_val))
    assert est.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)


# scoring=


@pytest.mark.parametrize("scoring", ["neg_log_loss", "balanced_accuracy", "roc_auc_ovr"])
@pytest.mark.parametrize("kind", ["numpy", "pandas"])
def test_early_stopping_by_any_scorer(scoring, kind, split, optional):
    X, y, X_val, y_val = split("iris")
    if kind == "pandas":
        frame = optional("pandas").DataFrame
        X, X_val = frame(X, columns=list("abcd")), frame(X_val, columns=list("abcd"))
    est = MLPClassifier(**UNSTABLE, scoring=scoring, early_stopping=True)
    est.fit(X, y, X_val=X_val, y_val=y_val)
    from sklearn.metrics import get_scorer

    expected = get_scorer(scoring)(est, X_val, y_val)
    assert est.best_validation_score_ == pytest.approx(expected, rel=1e-12)
    assert est.best_validation_score_ == max(est.validation_scores_)


def test_a_custom_scorer_gets_the_labels_and_the_weights(split):
    X, y, X_val, y_val = split("iris")
    names = np.array(["x", "y", "z"])
    calls = []

    def scorer(est, rows, y_true, sample_weight):
        calls.append((rows.shape, set(y_true), sample_weight.sum()))
        return (est.predict(rows) == y_true).mean()

    weight = np.full(len(y_val), 2.0)
    est = MLPClassifier(**UNSTABLE, scoring=scorer)
    est.fit(X, names[y], X_val=X_val, y_val=names[y_val], sample_weight_val=weight)
    assert set(calls[0][1]) == {"x", "y", "z"}
    assert calls[0][2] == 2 * len(y_val)
    assert len(calls) == est.n_iter_


def test_a_regressor_scored_by_an_error(split):
    X, y, X_val, y_val = split("diabetes")
    scorer = make_scorer(lambda y_true, y_pred: -np.abs(y_true - y_pred).max())
    est = MLPRegressor(**UNSTABLE, scoring=scorer).fit(X, y, X_val=X_val, y_val=y_val)
    assert est.best_validation_score_ == pytest.approx(scorer(est, X_val, y_val), rel=1e-12)
    by_r2 = MLPRegressor(**UNSTABLE).fit(X, y, X_val=X_val, y_val=y_val)
    assert by_r2.best_validation_score_ == pytest.approx(r2_score(y_val, by_r2.predict(X_val)))


def test_scoring_by_accuracy_equals_the_default(data):
    X, y = data("cancer")
    default = MLPClassifier(**UNSTABLE, early_stopping=True).fit(X, y)
    scored = MLPClassifier(**UNSTABLE, early_stopping=True, scoring="accuracy").fit(X, y)
    np.testing.assert_allclose(scored.validation_scores_, default.validation_scores_, rtol=1e-12)


# Divergence


def test_a_diverging_fit_keeps_the_best_weights(data):
    X, y = data("diabetes")
    params = {
        "solver": "sgd",
        "activation": "identity",
        "learning_rate_init": 1.0,
        "random_state": 0,
    }
    est = MLPRegressor(**params, early_stopping=True, max_iter=20)
    with pytest.warns(match="Training diverged in epoch"):
        est.fit(X, y)
    assert np.isnan(est.validation_scores_[-1])
    assert np.isfinite(est.predict(X)).all()
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        MLPRegressor(**params, max_iter=20).fit(X, y)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X_val": [[1.0] * 4]}, "y_val is missing"),
        ({"y_val": [1]}, "X_val is missing"),
        ({"X_val": [[1.0] * 3], "y_val": [1]}, "X_val has 3 features.*expecting 4"),
        ({"X_val": [[np.nan] * 4], "y_val": [1]}, "Input X_val contains NaN"),
        ({"X_val": [[1.0] * 4], "y_val": [np.nan]}, "y_val has 1 missing label, the first nan"),
        ({"X_val": [[1.0] * 4], "y_val": [[0, 1]]}, "y_val"),
        ({"X_val": [1.0] * 4, "y_val": [1]}, "X_val.*Expected 2D array"),
        ({"X_val": np.ones((0, 4)), "y_val": []}, "X_val.*0 sample"),
        ({"sample_weight_val": [1.0]}, "sample_weight_val is given without X_val"),
        ({"X_val": [[1.0] * 4] * 2, "y_val": [1]}, "X_val.*inconsistent numbers of samples"),
        ({"X_val": [[1.0] * 4], "y_val": [0.5]}, "y_val: Unknown label type: continuous"),
        ({"X_val": [[1.0] * 4], "y_val": [7]}, "`y_val` has classes not in"),
        (
            {"X_val": [[1.0] * 4], "y_val": [1], "sample_weight_val": [-1.0]},
            "Negative.*sample_weight_val",
        ),
        (
            {"X_val": [[1.0] * 4], "y_val": [1], "sample_weight_val": [0.0]},
            "sample_weight_val|zero",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_bad_validation_rows_are_named(arguments, message, data):
    X, y = data("iris")
    with pytest.raises(ValueError, match=message):
        MLPClassifier().fit(X, y, **arguments)


def test_validation_targets_need_the_columns_of_y(data):
    X, y = data("diabetes")
    both = np.stack([y, y], axis=1)
    with pytest.raises(ValueError, match="y_val has 2 columns, not 1 as in training"):
        MLPRegressor().fit(X, y, X_val=X, y_val=both)
    with pytest.raises(ValueError, match="y_val has 1 columns, not 2 as in training"):
        MLPRegressor().fit(X, both, X_val=X, y_val=y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_early_stopping_keeps_the_feature_names_of_a_frame(kind, optional):
    pandas = optional("pandas")
    X = pandas.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    est = kind(early_stopping=True, max_iter=3).fit(X, pandas.Series([0, 1] * 15))  # no warning
    assert est.feature_names_in_.tolist() == ["a", "b"]
