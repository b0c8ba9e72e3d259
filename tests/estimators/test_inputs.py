"""Rows of any kind: the same predictions, in the caller's namespace, dtype and device."""

import copy
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from xpmlp import MLPClassifier, MLPRegressor
from xpmlp.devices.namespace import place_of, to_host, to_place
from xpmlp.estimators.inputs import convert_input

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CLOSE = 1e-9  # relative: another library's float64 products, over some epochs
SHORT = {"random_state": 0, "max_iter": 15}
NAMES = ["length", "width", "petal length", "petal width"]


class Exported:
    """An array with DLPack and no other protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def nullable(optional, X):
    return optional("pandas").DataFrame(X, columns=NAMES).convert_dtypes()


KINDS = {
    "lists": lambda optional, X: X.tolist(),
    "pandas": lambda optional, X: optional("pandas").DataFrame(X, columns=NAMES),
    "pandas, nullable": nullable,
    "polars": lambda optional, X: optional("polars").DataFrame(X, schema=NAMES),
    "pyarrow": lambda optional, X: optional("pyarrow").table(dict(zip(NAMES, X.T, strict=True))),
    "csr": lambda optional, X: sp.csr_array(X),
    "csc": lambda optional, X: sp.csc_matrix(X),
    "coo": lambda optional, X: sp.coo_array(X),
    "DLPack": lambda optional, X: Exported(X),
    "Fortran": lambda optional, X: np.asfortranarray(X),
    "strided": lambda optional, X: np.repeat(X, 2, axis=0)[::2],
    "big-endian": lambda optional, X: X.astype(">f8"),
    "read-only": lambda optional, X: np.frombuffer(X.tobytes()).reshape(X.shape),
    "objects": lambda optional, X: X.astype(object),
}


@pytest.fixture
def iris(data):
    """Iris, not scaled: float64 values that every kind of table stores exactly."""
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rows_equals_numpy_bit_for_bit(kind, iris, optional, same_weights):
    X, y = iris
    rows = KINDS[kind](optional, X)
    expected, est = MLPClassifier(**SHORT).fit(X, y), MLPClassifier(**SHORT).fit(rows, y)
    assert same_weights(est, expected)
    actual = est.predict_proba(rows)
    assert type(actual) is np.ndarray
    assert actual.dtype == np.float64
    assert np.array_equal(actual, expected.predict_proba(X))
    named = kind.startswith("pandas") or kind in ("polars", "pyarrow")
    assert list(getattr(est, "feature_names_in_", [])) == (NAMES if named else [])


LABELS = {
    "strings": lambda optional, y: np.array(["x", "y", "z"])[y],
    "objects": lambda optional, y: np.array(["x", "y", "z"], dtype=object)[y],
    "booleans": lambda optional, y: y > 0,
    "floats": lambda optional, y: y.astype(float),
    "pandas": lambda optional, y: optional("pandas").Series(np.array(["x", "y", "z"])[y]),
    "categories": lambda optional, y: optional("pandas").Categorical(np.array(list("abc"))[y]),
    "polars": lambda optional, y: optional("polars").Series(y),
    "pyarrow": lambda optional, y: optional("pyarrow").chunked_array([y]),
    "list": lambda optional, y: y.tolist(),
    "torch": lambda optional, y: optional("torch").tensor(y),
}


@pytest.mark.parametrize("kind", LABELS)
def test_every_kind_of_labels(kind, iris, optional):
    X, y = iris
    labels = LABELS[kind](optional, y)
    est = MLPClassifier(random_state=0, max_iter=400, learning_rate_init=0.01).fit(X, labels)
    predicted = est.predict(X)
    assert set(predicted) <= set(est.classes_)
    assert est.score(X, labels) > 0.9


def test_arrays_are_trained_on_in_their_namespace_and_device(place, iris):
    X, y = iris
    expected = MLPClassifier(**SHORT).fit(X, y)
    est = MLPClassifier(**SHORT).fit(to_place(place, X), to_place(place, y))
    assert place_of(est.coefs_[0]).name == place_of(to_place(place, X)).name
    for method in ("predict", "predict_proba", "predict_log_proba"):
        actual = getattr(est, method)(to_place(place, X))
        assert type(actual) is type(to_place(place, X))
        assert place_of(actual).name == place_of(to_place(place, X)).name
        np.testing.assert_allclose(to_host(actual), getattr(expected, method)(X), rtol=CLOSE)
    assert est.score(to_place(place, X), to_place(place, y)) == expected.score(X, y)


def test_a_regressor_in_every_namespace(place, data):
    X, y = data("three targets")
    expected = MLPRegressor(**SHORT, early_stopping=True).fit(X, y)
    est = MLPRegressor(**SHORT, early_stopping=True).fit(to_place(place, X), to_place(place, y))
    actual = est.predict(to_place(place, X))
    np.testing.assert_allclose(to_host(actual), expected.predict(X), rtol=1e-6, atol=1e-9)
    assert est.score(to_place(place, X), to_place(place, y)) == pytest.approx(expected.score(X, y))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_data_on_another_device_than_the_model_is_moved(place, solver, iris):
    X, y = iris
    rows, labels = to_place(place, X), to_place(place, y)
    on_host = MLPClassifier(**SHORT, solver=solver).fit(X, y)
    on_device = MLPClassifier(**SHORT, solver=solver).fit(rows, labels)
    assert type(on_host.predict(rows)) is type(rows)
    assert type(on_device.predict(X)) is np.ndarray
    if solver == "adam":
        on_host.partial_fit(rows, labels)
        on_device.partial_fit(X, y)
    assert type(on_host.coefs_[0]) is np.ndarray
    assert type(on_device.coefs_[0]) is type(rows)


def test_output_can_be_numpy(place, iris):
    X, y = iris
    est = MLPClassifier(**SHORT, output="numpy").fit(to_place(place, X), y)
    assert type(est.predict(to_place(place, X))) is np.ndarray
    assert type(est.predict_proba(to_place(place, X))) is np.ndarray


def test_string_labels_are_predicted_in_numpy(place, iris):
    X, y = iris
    names = np.array(["x", "y", "z"])[y]
    predicted = MLPClassifier(**SHORT).fit(to_place(place, X), names).predict(to_place(place, X))
    assert predicted.dtype == names.dtype


@pytest.mark.parametrize("fit_dtype", ["float32", "float64"])
@pytest.mark.parametrize("predict_dtype", ["float32", "float64"])
def test_predictions_have_the_dtype_of_the_rows(fit_dtype, predict_dtype, data):
    X, y = data("diabetes")
    est = MLPRegressor(**SHORT).fit(X.astype(fit_dtype), y)
    assert est.coefs_[0].dtype == fit_dtype
    assert est.predict(X.astype(predict_dtype)).dtype == predict_dtype


def test_float32_rows_give_float32_state_and_predictions(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, dropout=0.2, early_stopping=True).fit(X.astype("float32"), y)
    arrays = [*est.coefs_, *est.intercepts_, *est._optimizer.slots, est._optimizer.last]
    assert {part.dtype for part in arrays} == {np.dtype("float32")}
    assert est.predict_proba(X.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("kind", ["pandas", "pandas, nullable", "polars", "pyarrow"])
def test_a_frame_of_float32_trains_in_float32(kind, data, optional):
    X, y = data("iris")
    frame = KINDS[kind](optional, X.astype("float32"))
    est = MLPClassifier(**SHORT).fit(frame, y)
    assert est.coefs_[0].dtype == np.float32
    assert est.predict_proba(frame).dtype == np.float32


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "uint16", "float16"])
def test_integers_booleans_and_float16_are_accepted(dtype, data):
    X, y = data("iris")
    X = np.abs(np.round(X)).astype(dtype)
    expected = MLPClassifier(**SHORT).fit(X.astype(float), y)
    est = MLPClassifier(**SHORT).fit(X, y)
    np.testing.assert_allclose(
        est.predict_proba(X), expected.predict_proba(X.astype(float)), rtol=1e-12
    )


def test_integers_are_not_copied_to_predict():
    rows = np.ones((200_000, 150), dtype=np.int32)
    rows[0] = 2
    est = MLPClassifier(**SHORT, hidden_layer_sizes=3).fit(rows[:9], np.arange(9) % 3)
    tracemalloc.start()
    est.predict(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.size * 8 / 4  # a copy in float64 would take four times as much


def test_dtype_can_be_chosen(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, dtype="float32").fit(X, y)
    assert est.coefs_[0].dtype == np.float32
    assert est.partial_fit(X, y).coefs_[0].dtype == np.float32


def test_tensors_that_require_gradients_are_accepted(optional, data):
    torch = optional("torch")
    X, y = data("diabetes")
    rows = torch.tensor(X, requires_grad=True)
    predicted = MLPRegressor(**SHORT).fit(rows, torch.tensor(y)).predict(rows)
    assert not predicted.requires_grad


def test_half_precision_rows_train_in_float32(optional, data):
    torch = optional("torch")
    X, y = data("diabetes")
    est = MLPRegressor(**SHORT).fit(torch.tensor(X).half(), y)
    assert est.coefs_[0].dtype == torch.float32


# Frames and matrices on a GPU


def test_cudf_frames_and_cupy_sparse_matrices_are_accepted(data):
    X, _ = data("iris")
    frame = type("DataFrame", (SimpleNamespace,), {"__module__": "cudf.core.dataframe"})
    matrix = type("csr_matrix", (SimpleNamespace,), {"__module__": "cupyx.scipy.sparse"})
    assert convert_input(frame(to_cupy=lambda: X)) is X
    assert convert_input(matrix(get=lambda: X)) is X


# Sparse rows


def test_sparse_labels_are_predicted_sparse(data):
    X, y = data("labels")
    est = MLPClassifier(**SHORT).fit(X, sp.csr_matrix(y))
    assert sp.issparse(est.predict(X))
    dense = MLPClassifier(**SHORT).fit(X, y)
    assert np.array_equal(est.predict(X).toarray(), dense.predict(X))
    assert est.score(X, sp.csr_matrix(y)) == dense.score(X, y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_sparse_rows_are_never_all_dense_at_once(kind, options, rng, quietly):
    X = sp.random_array((6000, 2000), density=0.001, rng=rng, format="csr")
    y = (X[:, [0]].toarray()[:, 0] > 0) | (np.arange(6000) % 3 == 0)
    est = kind(hidden_layer_sizes=4, max_iter=2, batch_size=50, **options)
    tracemalloc.start()
    quietly(est.fit, X, y)
    est.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 2000 * 8 / 2


def test_sparse_held_out_rows(data):
    X, y = data("digits")
    dense = MLPClassifier(**SHORT).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    sparse = MLPClassifier(**SHORT).fit(
        sp.csr_array(X[:200]), y[:200], X_val=sp.csc_array(X[200:]), y_val=y[200:]
    )
    assert sparse.validation_scores_ == dense.validation_scores_


# Data of the user are not modified


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_fit_does_not_modify_data_and_parameters(kind, data):
    X, y = data("iris")
    weight, before = np.linspace(0, 1, len(y)), None
    before = [X.copy(), y.copy(), weight.copy()]
    est = kind(**SHORT, dropout=0.5, early_stopping=True)
    parameters = copy.deepcopy(est.get_params())
    est.fit(X, y, sample_weight=weight).predict(X)
    assert all(map(np.array_equal, before, [X, y, weight]))
    assert est.get_params() == parameters


def test_training_does_not_modify_earlier_predictions(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT).fit(X, y)
    predicted = est.predict_proba(X)
    before = predicted.copy()
    for _ in range(3):
        est.partial_fit(X, y)
    assert np.array_equal(predicted, before)
