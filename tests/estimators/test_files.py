"""Model files of estimators, conversion from scikit-learn, and pickles of host arrays."""

import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import joblib
import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import NotFittedError

import xpmlp
from xpmlp import MLPClassifier, MLPRegressor, from_sklearn
from xpmlp.devices.namespace import to_place

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SHORT = {"max_iter": 4, "random_state": 0}

LABELS = {
    "numbers": lambda y: y,
    "strings": lambda y: np.array(["no", "yes", "perhaps"])[y],
    "objects": lambda y: np.array(["no", "yes", "perhaps"], dtype=object)[y],
    "booleans": lambda y: y > 0,
    "floats": lambda y: y * 2.0,
    "uint8": lambda y: y.astype(np.uint8),
    "dates": lambda y: y.astype("datetime64[D]"),
    "durations": lambda y: y.astype("timedelta64[s]"),
}
SETTINGS = {
    "default": {},
    "tuples": {
        "hidden_layer_sizes": (5, 4),
        "activation": ("elu:0.5", "tanh"),
        "dropout": (0.1, 0),
    },
    "infinite": {"n_iter_no_change": np.inf, "solver": "sgd", "learning_rate": "adaptive"},
    "early stopping": {"early_stopping": True, "scoring": "neg_log_loss"},
    "weights": {"class_weight": {0: 1.0, 1: 2.0, 2: 3.0}},
    "array": {"hidden_layer_sizes": np.array([5, 3])},
    "range": {"hidden_layer_sizes": range(2, 4)},
    "lbfgs": {"solver": "lbfgs"},
    "float32": {"dtype": "float32", "solver": "adamw"},
    "no hidden layer": {"hidden_layer_sizes": ()},
}


def public(est):
    """The fitted attributes."""
    return {name: value for name, value in vars(est).items() if name.endswith("_")}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_estimator_round_trip(name, settings, data, same_weights, tmp_path):
    X, y = data(name)
    kind = MLPClassifier if name == "iris" else MLPRegressor
    params = {
        k: v
        for k, v in SETTINGS[settings].items()
        if name == "iris" or k not in ("class_weight", "scoring")
    }
    est = kind(**SHORT | params).fit(X, y)
    est.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert same_weights(loaded, est)
    expected, actual = est.get_params(), loaded.get_params()
    sizes = [np.ravel(p.pop("hidden_layer_sizes")).tolist() for p in (expected, actual)]
    assert sizes[0] == sizes[1]
    assert actual == expected
    assert public(loaded).keys() == public(est).keys()
    for attribute, value in public(est).items():
        if attribute not in ("coefs_", "intercepts_"):
            np.testing.assert_equal(getattr(loaded, attribute), value, attribute)
    assert np.array_equal(loaded.predict(X), est.predict(X))
    assert loaded.score(X, y) == est.score(X, y)


@pytest.mark.parametrize("labels", LABELS)
def test_labels_round_trip(labels, data, tmp_path):
    X, y = data("iris")
    y = LABELS[labels](y)
    est = MLPClassifier(**SHORT).fit(X, y)
    est.save(tmp_path / "model")
    loaded = MLPClassifier.load(tmp_path / "model")
    assert loaded.classes_.dtype == est.classes_.dtype
    assert np.array_equal(loaded.predict(X), est.predict(X))
    loaded.partial_fit(X, y)


def test_several_labels_one_class_and_column_names_round_trip(optional, data, tmp_path):
    X, Y = make_multilabel_classification(50, random_state=0)
    frame = optional("pandas").DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    for labels in (Y, np.zeros(50, dtype=int)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "y has a single class")
            est = MLPClassifier(**SHORT).fit(frame, labels)
        est.save(tmp_path / "model")
        loaded = MLPClassifier.load(tmp_path / "model")
        assert np.array_equal(loaded.predict(frame), est.predict(frame))
        assert list(loaded.feature_names_in_) == list(frame.columns)
        assert np.array_equal(loaded.predict_proba(frame), est.predict_proba(frame))


def test_the_network_loads_without_sklearn_and_scipy(data, tmp_path):
    X, y = data("iris")
    est = MLPClassifier(**SHORT).fit(X, np.array(["a", "b", "c"])[y])
    est.save(tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy, xpmlp\n"
        "model = xpmlp.load(sys.argv[1]); X = numpy.load(sys.argv[2])\n"
        "print(model.predict(X).tolist(), [m for m in ('sklearn', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model", tmp_path / "X.npy"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == f"{est.predict(X).tolist()} []"


def test_xpmlp_save_writes_the_network(data, tmp_path):
    X, y = data("diabetes")
    est = MLPRegressor(**SHORT).fit(X, y)
    xpmlp.save(est, tmp_path / "model")
    np.testing.assert_allclose(
        xpmlp.load(tmp_path / "model").predict(X), est.predict(X), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"random_state": np.random.RandomState(0)}, "random_state"),
        ({"solver": lambda xp, h, t, theta, g: (theta - h.learning_rate * g,)}, "solver"),
        ({"schedule": lambda xp, now: 1.0}, "schedule"),
        ({"scoring": lambda est, X, y: 0.0}, "scoring"),
        ({"activation": lambda xp, z: (xp.sin(z), xp.cos(z))}, "activation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_that_cannot_be_saved_are_named(settings, name, data, tmp_path):
    X, y = data("iris")
    est = MLPClassifier(**SHORT | settings).fit(X, y)
    with pytest.raises(ValueError, match=name):
        est.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_callbacks_are_not_saved(data, tmp_path):
    X, y = data("iris")
    MLPClassifier(**SHORT, callbacks=[lambda report: None]).fit(X, y).save(tmp_path / "model")
    assert MLPClassifier.load(tmp_path / "model").callbacks == ()


def test_a_file_of_another_class_is_refused(data, tmp_path):
    X, y = data("iris")
    path = tmp_path / "model"
    MLPClassifier(**SHORT).fit(X, y).save(path)
    with pytest.raises(ValueError, match="model holds a MLPClassifier, not a MLPRegressor"):
        MLPRegressor.load(path)
    xpmlp.train("4-3", X, y, loss="cross_entropy", epochs=1).save(path)
    with pytest.raises(ValueError, match="model holds a network alone"):
        MLPClassifier.load(path)
    with pytest.raises(NotFittedError):
        MLPClassifier().save(path)


def nested(levels):
    value = []
    for _ in range(levels):
        value = {"tuple": [value]}
    return value


# keys with equal hashes: each is compared with all the others
ONE_HASH = {"dict": [[i * (2**61 - 1), 1.0] for i in range(3000)]}


@pytest.mark.parametrize(
    "change",
    [
        lambda section: section.update(parameters={"alpha": -1.0}),
        lambda section: section.update(parameters={"aplha": 1.0}),
        lambda section: section["fitted"].update(coefs_=[]),
        lambda section: section["fitted"].update(loss_={"pickle": "x"}),
        lambda section: section.pop("fitted"),
        lambda section: section["labels"].update(dtype="O8x"),
        lambda section: section["labels"].update(values=[1]),
        lambda section: section["resume_state"].pop("seed"),
        lambda section: section["resume_state"].update(split=[]),
        lambda section: section.update(names=5),
        lambda section: section.update(names=[1, 2, 3, 4]),
        lambda section: section.update(names=["a", "b", "a", "c"]),
        lambda section: section["parameters"].update(activation="tanh"),
        lambda section: section["parameters"].update(activation="relu:0.5"),
        lambda section: section["parameters"].update(callbacks=[1]),
        lambda section: section["parameters"].update(checkpoint="elsewhere"),
        lambda section: section["parameters"].update(resume=True),
        lambda section: section["parameters"].update(alpha=nested(400)),
        lambda section: section["parameters"].update(class_weight={"a": 1, "b": 2}),
        lambda section: section["parameters"].update(class_weight=ONE_HASH),
        lambda section: section["fitted"].update(n_layers_=4),
        lambda section: section["fitted"].update(n_outputs_=1),
        lambda section: section["fitted"].update(out_activation_="logistic"),
        lambda section: section["fitted"].update(loss_curve_=["low"]),
        lambda section: section["fitted"].update(_no_improvement_count="none"),
        lambda section: section["fitted"].update(t_=2**63),
        lambda section: section["fitted"].update(best_validation_score_=0.5),
        lambda section: section["fitted"].update(validation_scores_=[0.5]),
        lambda section: section.pop("labels"),
        lambda section: section["labels"].update(values=[0, 1, 3]),
        lambda section: section["labels"].update(dtype="|u1", values=[0, 1, 300]),
        lambda section: section["labels"].update(type="binary"),
        lambda section: section["labels"].update(sparse=0),
        lambda section: section["labels"].update(dtype="|O", values=[[0], [1], [2]]),
        lambda section: section["resume_state"].update(seed=-1),
        lambda section: section["resume_state"].update(step=2**63),
        lambda section: section["resume_state"].update(best_epoch=2**63),
        lambda section: section["resume_state"].update(solver="newton"),
        lambda section: section["resume_state"].update(learning_rate=0),
        lambda section: section["resume_state"].update(split={"tuple": [10**6, 0, 0.0]}),
        lambda section: section["resume_state"].update(split={"tuple": [-1, 0, 0.0]}),
        lambda section: section["resume_state"].update(split={"tuple": [0, 0, "a"]}),
    ],
)  # fmt: skip
def test_an_invalid_section_is_refused(change, data, tmp_path):
    """The digest is valid, as in a file of another writer."""
    from xpmlp.storage import model_file

    X, y = data("iris")
    model, sections, arrays = MLPClassifier(**SHORT).fit(X, y)._parts()
    sections = json.loads(json.dumps(sections))
    change(sections["estimator"])
    (tmp_path / "model").write_bytes(model_file.encode(model, sections, arrays))
    with pytest.raises(ValueError, match="model is not a whole model file"):
        MLPClassifier.load(tmp_path / "model")


@pytest.mark.parametrize("section", [[1], "MLPClassifier", 5, {}])
def test_a_section_without_an_estimator_is_refused(section, data, tmp_path):
    from xpmlp.storage import model_file

    X, y = data("iris")
    model, _, _ = MLPClassifier(**SHORT).fit(X, y)._parts()
    (tmp_path / "model").write_bytes(model_file.encode(model, {"estimator": section}, {}))
    with pytest.raises(ValueError, match=r"model (holds a None, not|is not a whole)"):
        MLPClassifier.load(tmp_path / "model")


def test_a_population_is_refused(data, tmp_path):
    from xpmlp.storage import model_file

    X, y = data("diabetes")
    est = MLPRegressor(**SHORT, solver="lbfgs").fit(X, y)
    model, sections, arrays = est._parts()
    population = replace(model, flat=model.flat[None, :])
    (tmp_path / "model").write_bytes(model_file.encode(population, sections, arrays))
    with pytest.raises(ValueError, match="do not fit its network"):
        MLPRegressor.load(tmp_path / "model")


@pytest.mark.parametrize("array", ["slots.1", "last", "split"])
def test_a_missing_array_or_one_of_another_dtype_is_refused(array, data, tmp_path):
    from xpmlp.storage import model_file

    X, y = data("iris")
    model, sections, arrays = MLPClassifier(**SHORT, early_stopping=True).fit(X, y)._parts()
    name = f"estimator.{array}"
    if array == "split":
        arrays[name] = arrays[name].astype(np.int32)
    else:
        del arrays[name]
    (tmp_path / "model").write_bytes(model_file.encode(model, sections, arrays))
    with pytest.raises(ValueError, match="model is not a whole model file"):
        MLPClassifier.load(tmp_path / "model")


def test_an_unknown_array_is_ignored(data, tmp_path):
    """A later version may add one."""
    from xpmlp.storage import model_file

    X, y = data("iris")
    model, sections, arrays = MLPClassifier(**SHORT).fit(X, y)._parts()
    arrays["estimator.later"] = np.zeros(3)
    (tmp_path / "model").write_bytes(model_file.encode(model, sections, arrays))
    assert MLPClassifier.load(tmp_path / "model").score(X, y) > 0


def test_arrays_of_another_size_are_refused(data, tmp_path):
    from xpmlp.storage import model_file

    X, y = data("iris")
    model, sections, arrays = MLPClassifier(**SHORT).fit(X, y)._parts()
    arrays["estimator.slots.0"] = arrays["estimator.slots.0"][:-1]
    (tmp_path / "model").write_bytes(model_file.encode(model, sections, arrays))
    with pytest.raises(ValueError, match=r"array 'estimator.slots.0' does not fit"):
        MLPClassifier.load(tmp_path / "model")


# Pickles


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}])
def test_a_pickle_has_only_host_arrays(place, options, data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, **options).fit(to_place(place, X), y)
    loaded = pickle.loads(pickle.dumps(est))
    state = loaded._optimizer
    arrays = [*loaded.coefs_, *loaded.intercepts_, *state.slots, state.last, state.kept]
    assert {type(part) for part in arrays if part is not None} == {np.ndarray}
    assert np.array_equal(loaded.predict(X), est.predict(X))
    loaded.partial_fit(X, y, **({"X_val": X, "y_val": y} if options else {}))


def test_weights_assigned_as_lists_are_pickled(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT).fit(X, y)
    expected = est.predict_proba(X)
    est.coefs_ = [part.tolist() for part in est.coefs_]
    assert np.array_equal(pickle.loads(pickle.dumps(est)).predict_proba(X), expected)


def test_an_unknown_device_is_not_an_error_of_the_file(data, tmp_path):
    X, y = data("iris")
    MLPClassifier(**SHORT).fit(X, y).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^device 'tpu' is unknown"):
        MLPClassifier.load(tmp_path / "model", device="tpu")


def test_joblib_round_trip(data, tmp_path, same_weights):
    X, y = data("diabetes")
    est = MLPRegressor(**SHORT).fit(X, y)
    joblib.dump(est, tmp_path / "est")
    assert same_weights(joblib.load(tmp_path / "est"), est)


# Conversion from scikit-learn

SKLEARN_PARAMS = {
    "adam": {},
    "sgd": {"solver": "sgd", "learning_rate": "invscaling"},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
    "heavy ball": {"solver": "sgd", "nesterovs_momentum": False},
    "layers": {"hidden_layer_sizes": (6, 5), "activation": "logistic"},
}


@pytest.mark.parametrize("settings", SKLEARN_PARAMS)
@pytest.mark.parametrize("name", ["iris", "cancer", "labels", "diabetes", "three targets"])
def test_a_converted_mlp_predicts_and_trains_as_in_scikit_learn(name, settings, data, pair):
    X, y = data(name)
    expected, _ = pair(
        name, **SHORT | {"shuffle": False, "batch_size": 30} | SKLEARN_PARAMS[settings]
    )
    converted = from_sklearn(expected.fit(X, y))
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(expected, method):
            actual, desired = getattr(converted, method)(X), getattr(expected, method)(X)
            np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-12)
    for _ in range(3):
        expected.partial_fit(X, y)
        converted.partial_fit(X, y)
    assert converted.loss_curve_ == pytest.approx(expected.loss_curve_, rel=1e-9)
    np.testing.assert_allclose(converted.coefs_[0], expected.coefs_[0], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["iris", "diabetes", "counts"])
@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_a_converted_mlp_round_trip(name, solver, data, pair, tmp_path):
    X, y = data(name)
    loss = {"loss": "poisson"} if name == "counts" else {}
    expected, ours = pair(name, **SHORT, solver=solver, early_stopping=solver == "adam", **loss)
    from_sklearn(expected.fit(X, y)).save(tmp_path / "model")
    loaded = type(ours).load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict(X), expected.predict(X), rtol=1e-12)
    np.testing.assert_allclose(
        xpmlp.load(tmp_path / "model").predict(X), expected.predict(X), rtol=1e-12
    )


def test_a_converted_mlp_trains_in_every_namespace(place, data):
    X, y = data("iris")
    expected = neural_network.MLPClassifier(**SHORT).fit(X, y)
    before = [part.copy() for part in expected.coefs_]
    converted = from_sklearn(expected)
    converted.partial_fit(to_place(place, X), y)
    assert all(map(np.array_equal, before, expected.coefs_)), "scikit-learn's is unchanged"


def test_from_sklearn_refuses_other_arguments(data):
    with pytest.raises(TypeError, match=r"takes a fitted MLPClassifier or MLPRegressor.*got int"):
        from_sklearn(3)
    with pytest.raises(NotFittedError):
        from_sklearn(neural_network.MLPClassifier())
