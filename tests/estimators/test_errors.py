"""Bad input raises one error that names it, in `fit`, with scikit-learn's message if it has one."""

import copy
import re
import signal
import subprocess
import sys
import time
import warnings
from inspect import signature

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

import xpmlp
from xpmlp import MLPClassifier, MLPRegressor
from xpmlp.estimators.parameters import HINTS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SHORT = {"max_iter": 3, "random_state": 0}

SHARED = [  # parameters that both have: the same value raises the same error
    ("alpha", -1), ("alpha", "0"), ("batch_size", 0), ("batch_size", "all"), ("batch_size", 2.5),
    ("learning_rate", "optimal"), ("learning_rate_init", 0), ("learning_rate_init", -0.1),
    ("power_t", -1), ("max_iter", 0), ("max_iter", 1.5), ("shuffle", "yes"), ("shuffle", 1),
    ("random_state", "0"), ("random_state", -1), ("tol", -1e-3), ("warm_start", 2),
    ("momentum", 1.1), ("momentum", -0.1), ("nesterovs_momentum", None), ("early_stopping", "no"),
    ("validation_fraction", 1.0), ("validation_fraction", -0.1), ("beta_1", 1.0), ("beta_2", -1),
    ("epsilon", 0), ("n_iter_no_change", 0), ("n_iter_no_change", 2.5), ("max_fun", 0),
]  # fmt: skip
INVALID = [
    ("activation", "relou", "'activation' parameter of MLPClassifier must be.*Got 'relou'"),
    ("activation", 3, "'activation' parameter.*Got 3"),
    ("activation", ("relu", "tanh"), "activation must be one for all.*1 hidden layers.*got 2"),
    ("activation", ("relou",), "activation 'relou' is unknown; did you mean 'relu'"),
    ("activation", "leaky_relu:7", "leak must be in"),
    ("solver", "adamm", "'solver' parameter.*Got 'adamm'"),
    ("dropout", 1.0, r"'dropout' parameter.*\[0.0, 1.0\).*Got 1.0"),
    ("dropout", (0.1, 0.2), "dropout must be one for all or one for each of the 1 hidden"),
    ("dropout", (1.5,), r"dropout must be in \[0, 1\).*1.5"),
    ("schedule", "cosin", "schedule 'cosin' is unknown; did you mean 'cosine'"),
    ("schedule", 0.5, "'schedule' parameter.*Got 0.5"),
    ("weight_decay", -1, "'weight_decay' parameter.*Got -1"),
    ("clip", 0, "'clip' parameter.*Got 0"),
    ("callbacks", [3], "callbacks must be functions of a report; got 3"),
    ("continuation", "maybe", "'continuation' parameter.*Got 'maybe'"),
    ("device", "tpu", "device 'tpu' is unknown.*Known: auto, cpu, gpu"),
    ("dtype", "float16", "'dtype' parameter.*Got 'float16'"),
    ("precision", "tf32", "precision 'tf32' needs a GPU"),
    ("precision", "half", "'precision' parameter.*Got 'half'"),
    ("n_threads", 0, "'n_threads' parameter.*Got 0"),
    ("n_threads", 2**31, "'n_threads' parameter.*Got 2147483648"),
    ("output", "pandas", "'output' parameter.*Got 'pandas'"),
    ("verbose", "loud", "'verbose' parameter.*Got 'loud'"),
    ("hidden_layer_sizes", (0,), r"hidden_layer_sizes must be > 0, got \[0\]"),
    ("hidden_layer_sizes", (5, -1), r"hidden_layer_sizes must be > 0, got \[5, -1\]"),
    ("hidden_layer_sizes", (2.5,), "hidden_layer_sizes must hold integers; got 2.5"),
    ("hidden_layer_sizes", (True,), "hidden_layer_sizes must hold integers; got True"),
    ("hidden_layer_sizes", -3, "'hidden_layer_sizes' parameter.*Got -3"),
    ("class_weight", {0: -1.0}, "class_weight must hold numbers of at least 0; got -1.0 for 0"),
    ("class_weight", {0: np.nan}, "class_weight must hold numbers of at least 0; got nan for 0"),
    ("class_weight", {0: "a"}, "class_weight must hold numbers of at least 0; got 'a' for 0"),
    ("class_weight", [1], "class_weight must be a dict.*a list is for several labels.*got"),
    ("activation", np.array(["relou"]), "activation 'relou' is unknown"),
    ("class_weight", "even", "'class_weight' parameter.*Got 'even'"),
    ("scoring", "acuracy", "acuracy"),
]


@pytest.mark.parametrize(("name", "value"), SHARED, ids=str)
def test_a_bad_parameter_raises_scikit_learns_error(name, value, data):
    X, y = data("iris")
    messages = []
    for module in (neural_network, xpmlp):
        with pytest.raises(ValueError, match=name) as caught:
            module.MLPClassifier(**{name: value}).fit(X, y)
        messages.append(sorted(re.findall(r"\w+|\S", str(caught.value))))  # a set has no order
    assert messages[0] == messages[1]


@pytest.mark.parametrize(("name", "value", "message"), INVALID, ids=lambda value: str(value)[:30])
def test_a_bad_parameter_is_named_with_its_value(name, value, message, data):
    X, y = data("iris")
    est = MLPClassifier(**{"early_stopping": True, "max_iter": 2, name: value})
    with pytest.raises(ValueError, match=message):
        est.fit(X, y)
    assert not hasattr(est, "coefs_")


def test_a_missing_gpu_raises(data, place_named):
    X, y = data("iris")
    try:
        place_named("cupy")
    except pytest.skip.Exception:
        with pytest.raises(xpmlp.GPUUnavailableError, match="stage"):
            MLPClassifier(device="gpu", **SHORT).fit(X, y)


@pytest.mark.parametrize("name", HINTS)
def test_names_of_other_libraries_are_translated(name):
    kind = MLPClassifier if name in ("loss", "quantiles") else MLPRegressor
    with pytest.raises(TypeError, match=re.escape(f"{name!r}; here it is {HINTS[name]}")):
        kind(**{name: 1})


def test_hints_name_parameters():
    known = signature(MLPClassifier).parameters
    words = {hint for hint in HINTS.values() if hint.isidentifier()}
    assert words <= {*known}
    assert not {*HINTS} & {*known} - {"class_weight"}


def test_a_misspelt_parameter_is_corrected():
    with pytest.raises(TypeError, match="did you mean 'hidden_layer_sizes'"):
        MLPClassifier(hiden_layer_sizes=(3,))


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_learning_rate_as_a_number_names_learning_rate_init(kind):
    with pytest.raises(InvalidParameterError, match=r"got 0.01: the number is learning_rate_init"):
        kind(learning_rate=0.01, **SHORT).fit([[0.0], [1.0]], [0, 1])


BAD_ROWS = [
    (np.array([[1.0, np.nan], [1, 2]]), "Input X contains NaN"),
    (np.array([[1.0, np.inf], [1, 2]]), "Input X contains infinity"),
    (np.array([1.0, 2.0]), "Expected 2D array, got 1D array"),
    (np.ones((2, 2, 2)), "Found array with dim 3"),
    (np.ones((0, 2)), "Found array with 0 sample"),
    (np.ones((2, 0)), r"Found array with 0 feature"),
    ([["a", "b"], ["c", "d"]], "X must hold real numbers; got dtype <U1"),
    (np.array([[1 + 1j, 2], [3, 4]]), "Complex data not supported"),
    (np.ma.masked_array(np.ones((2, 2)), [[0, 1], [0, 0]]), "X has 1 masked value"),
    ([[1.0], [1.0, 2.0]], "X must be a rectangular array of numbers"),
    (None, "X must be given; got None"),
    (np.ones((3, 2)), "inconsistent numbers of samples"),
]


@pytest.mark.parametrize(
    ("X", "message"), BAD_ROWS, ids=lambda value: value[:20] if isinstance(value, str) else ""
)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_bad_rows_are_named(kind, X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kind(**SHORT).fit(X, [0, 1])


BAD_TARGETS = [
    ([0.5, 1.5, 2.5], "Unknown label type: continuous", MLPClassifier),
    ([0, 1, None], "y", MLPClassifier),
    ([0, np.nan, 1], "y has 1 missing label, the first nan at row 1", MLPClassifier),
    (None, "requires y to be passed", MLPClassifier),
    ([[0, 1], [1, 2], [2, 0]], "ultioutput", MLPClassifier),
    ([0, np.inf, 1], "Input y contains infinity", MLPRegressor),
    (["a", "b", "c"], "y must hold real numbers; got dtype <U1", MLPRegressor),
    (None, "requires y to be passed", MLPRegressor),
]


@pytest.mark.parametrize(("y", "message", "kind"), BAD_TARGETS, ids=lambda value: str(value)[:20])
def test_bad_targets_are_named(y, message, kind):
    with pytest.raises((ValueError, TypeError), match=message):
        kind(**SHORT).fit(np.ones((3, 2)), y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0] * 75, "Negative values in data passed to `sample_weight`"),
        ([0.0] * 150, "ample.weight.*zero|ero.*ample.weight"),
        ([1.0] * 149, r"sample_weight.shape == \(149,\)"),
        ([np.nan] * 150, "Input sample_weight contains NaN"),
        ([[1.0, 1.0]] * 150, "sample_weight must be|Sample weights must be 1D"),
        ([1e308] * 150, "sample_weight must have its largest in .*; it is 1e.308"),
        ([1e-320] * 150, "sample_weight must have its largest in .*; it is 1e-320|9.99.*e-321"),
        (np.ma.masked_equal([1.0, 2.0] * 75, 2), "sample_weight has 75 masked values"),
        (["1"] * 150, "sample_weight must hold real numbers"),
    ],
)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_bad_weights_are_named(weight, message, kind, data):
    """In `fit` and in `score`."""
    X, y = data("iris")
    with pytest.raises(ValueError, match=message):
        kind(**SHORT).fit(X, y, sample_weight=weight)
    est = kind(**SHORT).fit(X, y)
    with pytest.raises(ValueError, match=message):
        est.score(X, y, sample_weight=weight)


@pytest.mark.parametrize("size", [1e-200, 1e308])
def test_class_weights_that_are_too_small_or_too_large_are_named(size, data):
    X, y = data("iris")
    with pytest.raises(ValueError, match="class_weight and sample_weight must have its largest in"):
        MLPClassifier(**SHORT, class_weight=dict.fromkeys(range(3), size)).fit(X, y)


@pytest.mark.parametrize(
    "classes", [np.ma.masked_equal([0, 1, 2], 2), [0, 1, None], [0, 1, np.nan], [], 3],
    ids=["masked", "None", "NaN", "none", "a number"],
)  # fmt: skip
def test_bad_classes_are_named(classes, data):
    X, y = data("iris")
    with pytest.raises((ValueError, TypeError), match=r"^classes"):
        MLPClassifier(**SHORT).partial_fit(X, y, classes=classes)


@pytest.mark.parametrize(("kind", "method"), [
    (MLPClassifier, "predict"), (MLPClassifier, "predict_proba"), (MLPClassifier, "score"),
    (MLPRegressor, "predict"), (MLPRegressor, "score"),
])  # fmt: skip
def test_rows_too_large_to_predict_are_named(kind, method, data):
    """Their scores are not finite, and a label would be silently wrong."""
    X, y = data("iris")
    est = kind(**SHORT).fit(X, y)
    est.coefs_ = [100 * weights for weights in est.coefs_]
    large = X.copy()
    large[[7, 30]] = 1.7e308
    arguments = (large, y) if method == "score" else (large,)
    with pytest.raises(ValueError, match="the prediction of row 7 of X is not finite"):
        getattr(est, method)(*arguments)


BAD_FRAMES = {
    "feature names should match.*missing": lambda frame: frame[["a", "b"]],
    "feature names should match.*unseen": lambda frame: frame.rename(columns={"a": "z"}),
    "Input X contains NaN": lambda frame: frame.where(frame > 0),
    "X must be given; got None": lambda frame: None,
    "X has 3 features, but MLPClassifier is expecting 4": lambda frame: frame.to_numpy()[:, :3],
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("message", BAD_FRAMES)
def test_bad_rows_to_predict_are_named(message, optional, data):
    X, y = data("iris")
    frame = optional("pandas").DataFrame(X, columns=list("abcd"))
    est = MLPClassifier(**SHORT).fit(frame, y)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        est.predict(BAD_FRAMES[message](frame))
    with pytest.raises(NotFittedError, match="not fitted"):
        MLPClassifier().predict(frame)


def test_values_beyond_float32_are_named_before_the_cast(data):
    X, y = data("diabetes")
    large = X.copy()
    large[3, 2] = 1e39
    with pytest.raises(ValueError, match="X exceeds float32 at row 3, column 2"):
        MLPRegressor(**SHORT, dtype="float32").fit(large, y)
    with pytest.raises(ValueError, match="y exceeds float32 at row 0"):
        MLPRegressor(**SHORT, dtype="float32").fit(X, np.where(np.arange(len(y)) == 0, 1e39, y))


# State after an error


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("warm", [False, True])
def test_an_error_leaves_the_fitted_estimator_unchanged(method, warm, data, same_weights):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, warm_start=warm).fit(X, y)
    before = copy.deepcopy(est)
    bad = X.copy()
    bad[0, 0] = np.nan
    for rows, labels, weight in (
        (bad, y, None), (X[:, :3], y[1:], None), (X, y[:-1], None),
        (X, np.array(list("abc"))[y], -np.ones(len(y))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            getattr(est, method)(rows, labels, sample_weight=weight)
        assert same_weights(est, before)
        assert np.array_equal(est.predict(X), before.predict(X))


def test_an_error_in_the_first_partial_fit_sets_no_attributes(data):
    X, y = data("iris")
    est = MLPClassifier(**SHORT)
    with pytest.raises(ValueError, match="NaN"):
        est.partial_fit(np.where(X > 1, np.nan, X), y, classes=[0, 1, 2])
    assert vars(est) == vars(MLPClassifier(**SHORT))
    est.partial_fit(X, y + 5, classes=[5, 6, 7])
    assert est.classes_.tolist() == [5, 6, 7]


def test_a_subclass_may_add_parameters(data):
    class Extended(MLPClassifier):
        def __init__(self, extra=1, hidden_layer_sizes=(5,), max_iter=3):
            super().__init__(hidden_layer_sizes=hidden_layer_sizes, max_iter=max_iter)
            self.extra = extra

    X, y = data("iris")
    est = clone(Extended(extra=7)).set_params(max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X, y)
    assert (est.extra, est.n_iter_, est.coefs_[0].shape) == (7, 2, (4, 5))
    assert est.get_params() == {"extra": 7, "hidden_layer_sizes": (5,), "max_iter": 2}


def boom(*_):
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    "settings", [{"scoring": boom}, {"callbacks": [boom]}], ids=["scorer", "callback"]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("warm", [False, True])
def test_an_error_in_a_user_function_leaves_the_estimator_unchanged(
    method, warm, settings, data, same_weights
):
    X, y = data("iris")
    est = MLPClassifier(**SHORT, warm_start=warm).fit(X, y, X_val=X, y_val=y)
    before = copy.deepcopy(est)
    labels = y if warm or method == "partial_fit" else y % 2
    with pytest.raises(RuntimeError, match="boom"):
        getattr(est.set_params(**settings), method)(X, labels, X_val=X, y_val=labels)
    est.set_params(scoring=None, callbacks=())
    assert same_weights(est, before)
    assert est.loss_curve_ == before.loss_curve_
    assert est.history_ == before.history_
    assert est.validation_scores_ == before.validation_scores_
    assert np.array_equal(est.classes_, before.classes_)
    if warm:
        assert same_weights(est.fit(X, y), before.fit(X, y))


@pytest.mark.parametrize(
    "settings",
    [{"learning_rate_init": 0}, {"alpha": -1}, {"batch_size": 0}, {"solver": "adamm"},
     {"momentum": 2}, {"n_threads": -1}, {"output": "pandas"}, {"class_weight": "even"}],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_partial_fit_checks_parameters_set_after_fit(settings, data, same_weights):
    X, y = data("iris")
    est = MLPClassifier(**SHORT).fit(X, y)
    before = copy.deepcopy(est)
    (name,) = settings
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        est.set_params(**settings).partial_fit(X, y)
    assert same_weights(est, before)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_lbfgs_has_no_partial_fit(kind):
    est = kind(solver="lbfgs")
    assert not hasattr(est, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        _ = est.partial_fit
    assert "only available for stochastic" in str(caught.value.__cause__)


def test_nan_weights_after_lbfgs_raise_scikit_learns_error(data):
    X, y = data("diabetes")
    est = MLPRegressor(solver="lbfgs", warm_start=True, **SHORT).fit(X, y)
    est.coefs_[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        est.fit(X, y)


def test_a_single_class_one_row_and_constant_columns_train(data):
    with pytest.warns(UserWarning, match="y has a single class"):
        assert MLPClassifier(**SHORT).fit([[1.0], [2.0]], ["a", "a"]).predict([[5.0]]) == ["a"]
    with pytest.warns(UserWarning, match="X has one row"):
        assert MLPClassifier(**SHORT).fit([[1.0, 2.0]], [3]).predict([[1.0, 2.0]]) == [3]
    with pytest.warns(UserWarning, match="X is constant"):
        est = MLPRegressor(**SHORT).fit(np.ones((5, 2)), np.arange(5))
    assert est.predict(np.ones((1, 2))).shape == (1,)


def test_sparse_rows_are_checked(data):
    X, y = data("iris")
    bad = sp.csr_array(np.where(X > 2, np.nan, X))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        MLPClassifier(**SHORT).fit(bad, y)


# Ctrl-C

PROGRAM = """
import signal, sys, warnings
import numpy as np
from xpmlp import MLPClassifier
signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells start jobs that ignore it
X, y = np.random.default_rng(0).normal(size=(2000, 20)), np.arange(2000) % 3
def watch(report):
    if report.epoch == 3:
        print("going", flush=True)
est = MLPClassifier(max_iter=1000000, tol=0, n_iter_no_change=1000000, callbacks=[watch])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    est.fit(X, y)
print([str(w.message) for w in caught], est.n_iter_ >= 3, est.predict(X).shape)
est.set_params(max_iter=1, callbacks=()).partial_fit(X, y)
print("went on")
"""


def test_ctrl_c_warns_and_returns_a_fitted_estimator():
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "going\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert out.splitlines() == ["['Training interrupted by user.'] True (2000,)", "went on"]
    assert child.returncode == 0


def test_a_divergence_names_the_learning_rate_and_the_step(data):
    X, y = data("diabetes")
    callbacks = [lambda report: report.scale_learning_rate(1e200)]
    est = MLPRegressor(random_state=0, callbacks=callbacks, max_iter=9)
    with pytest.raises(ValueError, match=r"in epoch [23] at step \d+, at learning rate 1e\+\d+"):
        est.fit(X, y)
