"""Estimators in pipelines, searches, calibration, metadata routing, displays and threads."""

import threading

import numpy as np
import pytest
from sklearn import clone, config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import BaggingClassifier, StackingRegressor, VotingClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score, learning_curve
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils._metadata_requests import MetadataRequest

from xpmlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SHORT = {"max_iter": 40, "random_state": 0, "learning_rate_init": 0.01}


def test_clone_has_the_parameters_and_no_fitted_attributes(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, dropout=(0.1,), callbacks=[print], activation=("elu",))
    copied = clone(est.set_params(callbacks=()).fit(X, y))
    assert copied.get_params() == est.get_params()
    assert not [name for name in vars(copied) if name.endswith("_")]


@pytest.mark.slow
def test_grid_search_in_two_processes(data):
    X, y = data("iris")
    grid = {
        "hidden_layer_sizes": [(5,), (10,)],
        "dropout": [0.0, 0.2],
        "activation": ["gelu", "relu"],
    }
    search = GridSearchCV(MLPClassifier(**SHORT), grid, n_jobs=2, cv=3).fit(X, y)
    sequential = GridSearchCV(MLPClassifier(**SHORT), grid, cv=3).fit(X, y)
    assert search.best_score_ == sequential.best_score_ > 0.8
    assert search.best_params_ == sequential.best_params_


@pytest.mark.parametrize("routed", [False, True])
def test_validation_rows_are_transformed_by_a_pipeline_if_routed(routed, data):
    X, y = data("iris")
    X = X * 100 + 7
    params = {"max_iter": 10, "random_state": 0}
    with config_context(enable_metadata_routing=True):
        mlp = MLPClassifier(**params).set_fit_request(X_val=True, y_val=True)
        transformed = ["X_val"] if routed else None
        pipe = Pipeline([("scale", StandardScaler()), ("mlp", mlp)], transform_input=transformed)
        pipe.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    actual = pipe.named_steps["mlp"].validation_loss_curve_
    scaler = StandardScaler().fit(X[::2])
    X_val = scaler.transform(X[1::2]) if routed else X[1::2]
    est = MLPClassifier(**params).fit(scaler.transform(X[::2]), y[::2], X_val=X_val, y_val=y[1::2])
    assert actual == est.validation_loss_curve_


def test_metadata_requests():
    request = MLPClassifier()._get_metadata_request()
    assert isinstance(request, MetadataRequest)
    assert set(request.fit.requests) == {"sample_weight", "X_val", "y_val", "sample_weight_val"}
    assert set(request.score.requests) == {"sample_weight"}
    assert "classes" in request.partial_fit.requests


def test_column_transformer_of_a_frame(optional, rng):
    pandas = optional("pandas")
    frame = pandas.DataFrame({"kind": ["a", "b"] * 50, "size": rng.normal(size=100)})
    y = frame["size"] + (frame["kind"] == "a")
    columns = ColumnTransformer(
        [
            ("kind", OneHotEncoder(sparse_output=False), ["kind"]),
            ("size", StandardScaler(), make_column_selector(dtype_include=float)),
        ]
    ).set_output(transform="pandas")
    pipe = make_pipeline(columns, MLPRegressor(**SHORT)).fit(frame, y)
    assert pipe.score(frame, y) > 0.9
    assert list(pipe[-1].feature_names_in_) == ["kind__kind_a", "kind__kind_b", "size__size"]
    with pytest.raises(ValueError, match="feature names should match"):
        pipe[-1].predict(columns.transform(frame).rename(columns={"size__size": "other"}))


def test_cross_validation_and_learning_curve(data):
    X, y = data("iris")
    assert cross_val_score(MLPClassifier(**SHORT), X, y, cv=3).min() > 0.9
    sizes, _, scores = learning_curve(
        MLPClassifier(**SHORT), X, y, cv=3, shuffle=True, random_state=0, train_sizes=[0.5, 1.0]
    )
    assert scores.shape == (2, 3)
    assert len(sizes) == 2


def test_calibration_importance_and_ensembles(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT)
    assert CalibratedClassifierCV(est, cv=3).fit(X, y).score(X, y) > 0.9
    importances = permutation_importance(est.fit(X, y), X, y, random_state=0).importances_mean
    assert importances.argmax() in (2, 3)  # the sizes of the petals separate the classes
    assert BaggingClassifier(est, n_estimators=2, random_state=0).fit(X, y).score(X, y) > 0.9
    voting = VotingClassifier(
        [("a", est), ("b", MLPClassifier(**SHORT, dropout=0.1))], voting="soft"
    )
    assert voting.fit(X, y).score(X, y) > 0.9


def test_stacking_and_multi_output_regressors(data):
    X, y = data("diabetes")
    est = MLPRegressor(**SHORT)
    assert StackingRegressor([("mlp", est)], est).fit(X, y).predict(X).shape == y.shape
    X, Y = data("three targets")
    assert MultiOutputRegressor(est).fit(X, Y).predict(X).shape == Y.shape


def test_repr_and_html_of_an_estimator(data):
    est = MLPClassifier(dropout=0.1, activation=("tanh",))
    assert repr(est) == "MLPClassifier(activation=('tanh',), dropout=0.1)"
    for estimator in (est, est.fit(*data("iris"))):
        page = estimator_html_repr(estimator)
        assert "MLPClassifier" in page
        assert "dropout" in page


def test_threads_may_predict_at_once(data):
    X, y = data("digits")
    est = MLPClassifier(**SHORT).fit(X, y)
    expected, wrong = est.predict_proba(X), []

    def predict():
        wrong.extend(not np.array_equal(est.predict_proba(X), expected) for _ in range(20))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 80


def test_partial_fit_is_absent_for_lbfgs():
    for kind in (MLPClassifier, MLPRegressor):
        assert not hasattr(kind(solver="lbfgs"), "partial_fit")
        assert hasattr(kind(), "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit"):
            _ = kind(solver="lbfgs").partial_fit
