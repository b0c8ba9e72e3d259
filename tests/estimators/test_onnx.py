"""Fitted estimators as ONNX: the outputs equal `predict` and `predict_proba`."""

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
def predict_onnx(run_onnx):
    return lambda est, X: run_onnx(serialize(graph_of(est)), {"X": X})


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def labels(name, y):
    if name == "strings":
        return np.array(["setosa", "versicolor", "virginica"])[y]
    if name == "objects":
        return np.array(["a", "b", "c"], dtype=object)[y]
    if name == "two":
        return y > 0
    return np.zeros_like(y) + 4 if name == "one" else y


@pytest.mark.parametrize("name", ["numbers", "strings", "objects", "two", "one"])
def test_a_classifier(name, data, quietly, predict_onnx):
    X, y = data("iris")
    X, y = X.astype(np.float32), labels(name, y)
    est = MLPClassifier(**SETTINGS)
    quietly(est.fit, X, y)
    outputs = predict_onnx(est, X)
    assert list(outputs) == ["label", "probabilities"]
    assert outputs["label"].tolist() == est.predict(X).tolist()
    assert_close(outputs["probabilities"], est.predict_proba(X))


def test_several_labels_for_each_row(data, quietly, predict_onnx):
    X, y = data("labels")
    X, est = X.astype(np.float32), MLPClassifier(**SETTINGS)
    quietly(est.fit, X, y)
    outputs = predict_onnx(est, X)
    assert outputs["label"].dtype == np.int64
    assert outputs["label"].tolist() == est.predict(X).tolist()
    assert 0 < outputs["label"].mean() < 1
    assert_close(outputs["probabilities"], est.predict_proba(X))


REGRESSORS = {
    "default": {},
    "logistic": {"activation": "logistic", "hidden_layer_sizes": (8, 4)},
    "custom activation": {"activation": lambda xp, z: (xp.sin(z), xp.cos(z))},
    "quantiles": {"quantiles": (0.1, 0.5, 0.9)},
    "counts": {"loss": "poisson"},
}


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor(kind, data, quietly, predict_onnx):
    X, y = data("counts")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS | REGRESSORS[kind])
    quietly(est.fit, X, y)
    assert_close(predict_onnx(est, X)["prediction"], est.predict(X))


def test_several_targets(data, quietly, predict_onnx):
    X, y = data("three targets")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS)
    quietly(est.fit, X, y)
    assert_close(predict_onnx(est, X)["prediction"], est.predict(X))


def test_assigned_weights_are_exported(data, quietly, predict_onnx):
    X, y = data("diabetes")
    X, est = X.astype(np.float32), MLPRegressor(**SETTINGS)
    quietly(est.fit, X, y)
    est.coefs_[0] *= 2
    est.intercepts_[1] = est.intercepts_[1] + 1
    assert_close(predict_onnx(est, X)["prediction"], est.predict(X))


def test_a_scikit_learn_estimator_is_exported_after_conversion(
    data, pair, quietly, predict_onnx, tmp_path
):
    X, y = data("iris")
    X, (est, _) = X.astype(np.float32), pair("iris", **SETTINGS)
    quietly(est.fit, X, y)
    assert_close(predict_onnx(xpmlp.from_sklearn(est), X)["probabilities"], est.predict_proba(X))
    with pytest.raises(TypeError, match=r"scikit-learn's by xpmlp\.from_sklearn"):
        xpmlp.to_onnx(est, tmp_path / "model.onnx")


def test_an_unfitted_estimator_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        xpmlp.to_onnx(MLPRegressor(), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="got"):
        xpmlp.to_onnx(MLPRegressor, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
