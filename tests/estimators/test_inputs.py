"""Whatever holds rows: the same predictions, in the caller's namespace, dtype and device."""

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
FITTED = {"random_state": 0, "max_iter": 15}
NAMES = ["length", "width", "petal length", "petal width"]


class Exported:
    """An array that speaks DLPack and nothing else."""

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
    """Iris in its own unit: a float64 that every kind of table holds exactly."""
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rows_gives_numpys_bits(kind, iris, optional, same):
    X, y = iris
    given = KINDS[kind](optional, X)
    plain, est = MLPClassifier(**FITTED).fit(X, y), MLPClassifier(**FITTED).fit(given, y)
    assert same(est, plain)
    found = est.predict_proba(given)
    assert type(found) is np.ndarray
    assert found.dtype == np.float64
    assert np.array_equal(found, plain.predict_proba(X))
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
def test_every_kind_of_labels_comes_back(kind, iris, optional):
    X, y = iris
    labels = LABELS[kind](optional, y)
    est = MLPClassifier(random_state=0, max_iter=400, learning_rate_init=0.01).fit(X, labels)
    found = est.predict(X)
    assert set(found) <= set(est.classes_)
    assert est.score(X, labels) > 0.9


def test_arrays_of_every_namespace_are_trained_on_where_they_lie(place, iris):
    X, y = iris
    expected = MLPClassifier(**FITTED).fit(X, y)
    est = MLPClassifier(**FITTED).fit(to_place(place, X), to_place(place, y))
    assert place_of(est.coefs_[0]).name == place_of(to_place(place, X)).name
    for method in ("predict", "predict_proba", "predict_log_proba"):
        found = getattr(est, method)(to_place(place, X))
        assert type(found) is type(to_place(place, X))
        assert place_of(found).name == place_of(to_place(place, X)).name
        np.testing.assert_allclose(to_host(found), getattr(expected, method)(X), rtol=CLOSE)
    assert est.score(to_place(place, X), to_place(place, y)) == expected.score(X, y)


def test_a_regressor_of_every_namespace(place, data):
    X, y = data("three targets")
    expected = MLPRegressor(**FITTED, early_stopping=True).fit(X, y)
    est = MLPRegressor(**FITTED, early_stopping=True).fit(to_place(place, X), to_place(place, y))
    found = est.predict(to_place(place, X))
    np.testing.assert_allclose(to_host(found), expected.predict(X), rtol=1e-6, atol=1e-9)
    assert est.score(to_place(place, X), to_place(place, y)) == pytest.approx(expected.score(X, y))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_data_elsewhere_than_the_model_moves_silently(place, solver, iris):
    X, y = iris
    there, labels = to_place(place, X), to_place(place, y)
    home = MLPClassifier(**FITTED, solver=solver).fit(X, y)
    away = MLPClassifier(**FITTED, solver=solver).fit(there, labels)
    assert type(home.predict(there)) is type(there)
    assert type(away.predict(X)) is np.ndarray
    if solver == "adam":
        home.partial_fit(there, labels)
        away.partial_fit(X, y)
    assert type(home.coefs_[0]) is np.ndarray
    assert type(away.coefs_[0]) is type(there)


def test_output_can_be_numpys(place, iris):
    X, y = iris
    est = MLPClassifier(**FITTED, output="numpy").fit(to_place(place, X), y)
    assert type(est.predict(to_place(place, X))) is np.ndarray
    assert type(est.predict_proba(to_place(place, X))) is np.ndarray


def test_labels_that_are_no_numbers_come_back_in_numpy(place, iris):
    X, y = iris
    names = np.array(["x", "y", "z"])[y]
    found = MLPClassifier(**FITTED).fit(to_place(place, X), names).predict(to_place(place, X))
    assert found.dtype == names.dtype


@pytest.mark.parametrize("trained", ["float32", "float64"])
@pytest.mark.parametrize("asked", ["float32", "float64"])
def test_answers_have_the_dtype_of_the_rows(trained, asked, data):
    X, y = data("diabetes")
    est = MLPRegressor(**FITTED).fit(X.astype(trained), y)
    assert est.coefs_[0].dtype == trained
    assert est.predict(X.astype(asked)).dtype == asked


def test_float32_memory_and_float32_answers_throughout(data):
    X, y = data("iris")
    est = MLPClassifier(**FITTED, dropout=0.2, early_stopping=True).fit(X.astype("float32"), y)
    arrays = [*est.coefs_, *est.intercepts_, *est._optimizer.slots, est._optimizer.last]
    assert {part.dtype for part in arrays} == {np.dtype("float32")}
    assert est.predict_proba(X.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("kind", ["pandas", "pandas, nullable", "polars", "pyarrow"])
def test_a_frame_of_float32_trains_in_float32(kind, data, optional):
    X, y = data("iris")
    frame = KINDS[kind](optional, X.astype("float32"))
    est = MLPClassifier(**FITTED).fit(frame, y)
    assert est.coefs_[0].dtype == np.float32
    assert est.predict_proba(frame).dtype == np.float32


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "uint16", "float16"])
def test_whole_and_short_numbers_are_taken(dtype, data):
    X, y = data("iris")
    X = np.abs(np.round(X)).astype(dtype)
    plain = MLPClassifier(**FITTED).fit(X.astype(float), y)
    est = MLPClassifier(**FITTED).fit(X, y)
    np.testing.assert_allclose(
        est.predict_proba(X), plain.predict_proba(X.astype(float)), rtol=1e-12
    )


def test_whole_numbers_are_not_copied_to_predict():
    many = np.ones((200_000, 150), dtype=np.int32)
    many[0] = 2
    est = MLPClassifier(**FITTED, hidden_layer_sizes=3).fit(many[:9], np.arange(9) % 3)
    tracemalloc.start()
    est.predict(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < many.size * 8 / 4  # a copy in float64 would take four times as much


def test_the_dtype_can_be_asked_for(data):
    X, y = data("iris")
    est = MLPClassifier(**FITTED, dtype="float32").fit(X, y)
    assert est.coefs_[0].dtype == np.float32
    assert est.partial_fit(X, y).coefs_[0].dtype == np.float32


def test_data_that_tracks_gradients_is_no_hindrance(optional, data):
    torch = optional("torch")
    X, y = data("diabetes")
    there = torch.tensor(X, requires_grad=True)
    found = MLPRegressor(**FITTED).fit(there, torch.tensor(y)).predict(there)
    assert not found.requires_grad


def test_half_precision_is_trained_in_float32(optional, data):
    torch = optional("torch")
    X, y = data("diabetes")
    est = MLPRegressor(**FITTED).fit(torch.tensor(X).half(), y)
    assert est.coefs_[0].dtype == torch.float32


# Frames and matrices that only a GPU has


def test_a_frame_of_cudf_and_a_sparse_matrix_of_cupy_are_taken(data):
    X, _ = data("iris")
    frame = type("DataFrame", (SimpleNamespace,), {"__module__": "cudf.core.dataframe"})
    matrix = type("csr_matrix", (SimpleNamespace,), {"__module__": "cupyx.scipy.sparse"})
    assert convert_input(frame(to_cupy=lambda: X)) is X
    assert convert_input(matrix(get=lambda: X)) is X


# Sparse rows


def test_sparse_labels_come_back_sparse(data):
    X, y = data("labels")
    est = MLPClassifier(**FITTED).fit(X, sp.csr_matrix(y))
    assert sp.issparse(est.predict(X))
    dense = MLPClassifier(**FITTED).fit(X, y)
    assert np.array_equal(est.predict(X).toarray(), dense.predict(X))
    assert est.score(X, sp.csr_matrix(y)) == dense.score(X, y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("more", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_sparse_rows_never_become_dense_together(kind, more, rng, quietly):
    X = sp.random_array((6000, 2000), density=0.001, rng=rng, format="csr")
    y = (X[:, [0]].toarray()[:, 0] > 0) | (np.arange(6000) % 3 == 0)
    est = kind(hidden_layer_sizes=4, max_iter=2, batch_size=50, **more)
    tracemalloc.start()
    quietly(est.fit, X, y)
    est.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 2000 * 8 / 2


def test_sparse_held_out_rows(data):
    X, y = data("digits")
    dense = MLPClassifier(**FITTED).fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    sparse = MLPClassifier(**FITTED).fit(
        sp.csr_array(X[:200]), y[:200], X_val=sp.csc_array(X[200:]), y_val=y[200:]
    )
    assert sparse.validation_scores_ == dense.validation_scores_


# Nothing of the user's changes


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_data_and_parameters_stay_as_they_were(kind, data):
    X, y = data("iris")
    weight, before = np.linspace(0, 1, len(y)), None
    before = [X.copy(), y.copy(), weight.copy()]
    est = kind(**FITTED, dropout=0.5, early_stopping=True)
    parameters = copy.deepcopy(est.get_params())
    est.fit(X, y, sample_weight=weight).predict(X)
    assert all(map(np.array_equal, before, [X, y, weight]))
    assert est.get_params() == parameters


def test_what_predict_returned_stays_as_it_was(data):
    X, y = data("iris")
    est = MLPClassifier(**FITTED).fit(X, y)
    found = est.predict_proba(X)
    kept = found.copy()
    for _ in range(3):
        est.partial_fit(X, y)
    assert np.array_equal(found, kept)
