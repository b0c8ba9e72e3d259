"""Fitted estimators as ONNX: `predict` and `predict_proba` by their outputs."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import xpmlp
from xpmlp import MLPClassifier, MLPRegressor
from xpmlp.storage.onnx import graph_of, serialize

pytest.importorskip("onnx")

RELATIVE = 1e-6  # of the largest output: sums in another order differ where terms cancel
SETTINGS = {"max_iter": 3, "hidden_layer_sizes": (8,), "random_state": 0}


@pytest.fixture
def answers(run_onnx):
    return lambda est, X: run_onnx(serialize(graph_of(est)), {"X": X})


def close(found, ours):
    assert found.shape == ours.shape
    np.testing.assert_allclose(found, ours, rtol=0, atol=RELATIVE * np.abs(ours).max())


def labels(name, y):
    if name == "texts":
        return np.array(["setosa", "versicolor", "virginica"])[y]
    if name == "objects":
        return np.array(["a", "b", "c"], dtype=object)[y]
    if name == "two":
        return y > 0
    return np.zeros_like(y) + 4 if name == "one" else y


@pytest.mark.parametrize("name", ["numbers", "texts", "objects", "two", "one"])
def test_a_classifier(name, data, quietly, answers):
    X, y = data("iris")
    X, y = X.astype(np.float32), labels(name, y)
    est = MLPClassifier(**SETTINGS)
    quietly(est.fit, X, y)
    found = answers(est, X)
    assert list(found) == ["label", "probabilities"]
    assert found["label"].tolist() == est.predict(X).tolist()
    close(found["probabilities"], est.predict_proba(X))


def test_several_labels_for_each_row(data, quietly, answers):
    X, y = data("labels")
    X, est = X.astype(np.float32), MLPClassifier(**SETTINGS)
    quietly(est.fit, X, y)
    found = answers(est, X)
    assert found["label"].dtype == np.int64
    assert found["label"].tolist() == est.predict(X).tolist()
    assert 0 < found["label"].mean() < 1
    close(found["probabilities"], est.predict_proba(X))


REGRESSORS = {
    "as it comes": {},
    "logistic": {"activation": "logistic", "hidden_layer_sizes": (8, 4)},
    "an activation of one's own": {"activation": lambda xp, z: (xp.sin(z), xp.cos(z))},
    "quantiles": {"quantiles": (0.1, 0.5, 0.9)},
    "counts": {"loss": "poisson"},
}


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor(kind, data, quietly, answers):
    X, y = data("counts")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS | REGRESSORS[kind])
    quietly(est.fit, X, y)
    close(answers(est, X)["prediction"], est.predict(X))


def test_several_targets(data, quietly, answers):
    X, y = data("three targets")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS)
    quietly(est.fit, X, y)
    close(answers(est, X)["prediction"], est.predict(X))


def test_what_was_assigned_is_exported(data, quietly, answers):
    X, y = data("diabetes")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS)
    quietly(est.fit, X, y)
    est.coefs_[0] *= 2
    est.intercepts_[1] = est.intercepts_[1] + 1
    close(answers(est, X)["prediction"], est.predict(X))


def test_scikit_learns_own_by_way_of_ours(data, pair, quietly, answers, tmp_path):
    X, y = data("iris")
    X, (theirs, _) = X.astype(np.float32), pair("iris", **SETTINGS)
    quietly(theirs.fit, X, y)
    close(answers(xpmlp.from_sklearn(theirs), X)["probabilities"], theirs.predict_proba(X))
    with pytest.raises(TypeError, match=r"scikit-learn's by xpmlp\.from_sklearn"):
        xpmlp.to_onnx(theirs, tmp_path / "model.onnx")


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        xpmlp.to_onnx(MLPRegressor(), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="got"):
        xpmlp.to_onnx(MLPRegressor, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
