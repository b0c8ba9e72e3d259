"""The surfaces that take arrays: the functional core, the estimators, and scikit-learn's MLP.

Each replaces good arguments by those of a case, makes the call and returns the outcome.
"""

import contextlib
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

import xpmlp
from fuzz.inputs import files
from fuzz.inputs.arrays import LABELS, X, Y
from fuzz.inputs.case import Case, Expected, Outcome, Surface, judge
from xpmlp.devices.namespace import to_host

SKLEARN = "scikit-learn"
RENAMED = {  # scikit-learn's names of the core's arguments
    "learning_rate": "learning_rate_init",
    "epochs": "max_iter",
    "seed": "random_state",
    "hidden": "hidden_layer_sizes",
    "optimizer": "solver",
    "l2": "alpha",
    "patience": "n_iter_no_change",
    "min_delta": "tol",
}
DATA = ("values", "layouts", "sparse")  # rows of the table about what is in the arrays
OF_FIT = ("X_val", "y_val", "sample_weight", "sample_weight_val")
GOOD = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "seed": 0, "hidden": (4,)}


class AbsentError(Exception):
    """scikit-learn has no such argument."""


class Watch:
    """A callback that records whether it was called, and the weights at the end."""

    called = False
    weights: tuple[np.ndarray, ...] = ()

    def __call__(self, report: Any) -> None:
        self.called = True


@contextlib.contextmanager
def record_warnings(messages: list[str]) -> Iterator[None]:
    """Record warnings, except those that a short training always gives."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataConversionWarning)
        warnings.filterwarnings("ignore", message="X (has|does not have valid) feature names")
        yield
    messages += [str(warning.message) for warning in warned]


def names_of(name: str, surface: Surface) -> tuple[str, ...]:
    """The names of an argument in a surface's errors."""
    if surface == "core":
        names = {"hidden": ("size", "sizes"), "learning_rate": ("learning_rate", "learning rate")}
        return names.get(name, (name,))
    return (name, name.replace("learning_rate", "learning rate"), RENAMED.get(name, name))


def finite(array: Any) -> bool:
    return bool(np.isfinite(array).all()) if array.dtype.kind == "f" else True


def train(arguments: dict[str, Any], task: str) -> Any:
    """The model that `xpmlp.train` returns for these arguments."""
    arguments = dict(arguments)
    outputs = arguments["y"].shape[1] if getattr(arguments["y"], "ndim", 1) == 2 else 1
    spec = xpmlp.Spec.parse(
        [X.shape[1], *arguments.pop("hidden"), outputs],
        activation=arguments.pop("activation", "relu"),
        dropout=arguments.pop("dropout", 0.0),
    )
    loss = {"loss": "binary_cross_entropy"} if task == "labels" else {}
    return xpmlp.train(spec, arguments.pop("X"), arguments.pop("y"), **loss | arguments)


def calls(case: Case, surface: Surface) -> tuple[str, ...]:
    """The calls of a surface that take a case's arguments; estimators have extra calls for data."""
    if surface == "core" or case.row not in DATA:
        return case.calls
    extra = ("partial_fit",) if "fit" in case.calls else ()
    extra += ("score",) if case.id.startswith(("X:", "y:", "sample_weight:")) else ()
    return case.calls + extra


def core(call: str, task: str, arguments: dict[str, Any], watch: Watch) -> list[np.ndarray]:
    """The weights of `train`, or their predictions."""
    if call == "fit":
        return [to_host(train({"callbacks": [watch]} | arguments, task).flat)]
    settings = {name: value for name, value in arguments.items() if name != "X"}
    model = train({"X": X} | settings, task)
    return [np.asarray(to_host(model.predict(arguments["X"])))]


def estimator(
    module: ModuleType, call: str, task: str, arguments: dict[str, Any], watch: Watch
) -> list[np.ndarray]:
    """The weights of an estimator of the module, or their predictions."""
    kind = getattr(module, "MLPClassifier" if task == "labels" else "MLPRegressor")
    at_fit = {name: arguments.pop(name) for name in OF_FIT if name in arguments}
    rows, y = arguments.pop("X"), arguments.pop("y")
    settings = {RENAMED.get(name, name): value for name, value in arguments.items()}
    valid = kind().get_params()
    if not settings.keys() <= valid.keys() or (module is not xpmlp and at_fit.keys() - {OF_FIT[2]}):
        raise AbsentError
    if call == "predict":
        return [np.asarray(to_host(kind(**settings).fit(X, y).predict(rows)))]
    if call == "score":
        est = kind(**settings).fit(X, LABELS if task == "labels" else Y)
        return [np.asarray(est.score(rows, y, sample_weight=at_fit.get("sample_weight")))]
    if module is xpmlp:
        settings = {"callbacks": [watch]} | settings
    est = kind(**settings)
    if call == "partial_fit" and task == "labels":
        at_fit["classes"] = [0, 1]
    try:
        getattr(est, call)(rows, y, **at_fit)
    finally:
        watch.weights = tuple(map(to_host, vars(est).get("coefs_", ())))
    return [to_host(part) for part in (*est.coefs_, *est.intercepts_)]


def outcome(surface: Surface, case: Case, call: str, replaced: dict[str, Any]) -> Outcome:
    """The outcome of a call with these arguments."""
    if case.row == "files":
        if surface == SKLEARN:
            raise AbsentError
        return files.outcome(surface, call, replaced)
    watch, warned = Watch(), []
    arguments = GOOD | {"X": X, "y": LABELS if case.task == "labels" else Y} | replaced
    module = {"estimators": xpmlp, SKLEARN: neural_network}.get(surface)
    try:
        with record_warnings(warned):
            if module is None:
                parts = core(call, case.task, arguments, watch)
            else:
                parts = estimator(module, call, case.task, arguments, watch)
    except AbsentError:
        raise
    except BaseException as error:
        model = getattr(error, "model", None)
        weights = [to_host(model.flat)] if model is not None else watch.weights
        return Outcome(error, finite=all(map(finite, weights)), worked=watch.called)
    result = b"".join(str(part.dtype).encode() + part.tobytes() for part in parts)
    return Outcome(None, result, all(map(finite, parts)), tuple(warned), watch.called)


def run(case: Case, surface: Surface, call: str) -> tuple[str, str]:
    """The verdict on a case, and the reason why it is not as expected."""
    judged_as = "estimators" if surface == SKLEARN else surface
    expected: Expected = case.expected_for(judged_as)
    names = names_of(getattr(expected, "name", case.id.partition(":")[0]), judged_as)
    actual = outcome(surface, case, call, case.make())
    return judge(actual, expected, names, lambda plain: outcome(surface, case, call, dict(plain)))
