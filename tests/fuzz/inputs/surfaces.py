"""What takes the arrays: the functional core, the estimators, and scikit-learn's MLP beside them.

Each puts a case's arguments in the place of good ones, makes the call and tells the outcome.
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
from fuzz.inputs.case import Case, Outcome, Surface, Wanted, judge
from xpmlp.devices.namespace import to_host

THEIRS = "scikit-learn"
RENAMED = {  # what scikit-learn calls the core's arguments
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
    """A callback that remembers whether it was called, and the weights at the end."""

    called = False
    weights: tuple[np.ndarray, ...] = ()

    def __call__(self, report: Any) -> None:
        self.called = True


@contextlib.contextmanager
def listening(told: list[str]) -> Iterator[None]:
    """Warnings go to `told`, but for those that a short training always brings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataConversionWarning)
        warnings.filterwarnings("ignore", message="X (has|does not have valid) feature names")
        yield
    told += [str(one.message) for one in caught]


def words(name: str, surface: Surface) -> tuple[str, ...]:
    """What a surface's errors call an argument."""
    if surface == "core":
        said = {"hidden": ("size", "sizes"), "learning_rate": ("learning_rate", "learning rate")}
        return said.get(name, (name,))
    return (name, name.replace("learning_rate", "learning rate"), RENAMED.get(name, name))


def finite(array: Any) -> bool:
    return bool(np.isfinite(array).all()) if array.dtype.kind == "f" else True


def trained(given: dict[str, Any], task: str) -> Any:
    """What `xpmlp.train` makes of these arguments."""
    given = dict(given)
    outputs = given["y"].shape[1] if getattr(given["y"], "ndim", 1) == 2 else 1
    spec = xpmlp.Spec.parse(
        [X.shape[1], *given.pop("hidden"), outputs],
        activation=given.pop("activation", "relu"),
        dropout=given.pop("dropout", 0.0),
    )
    named = {"loss": "binary_cross_entropy"} if task == "labels" else {}
    return xpmlp.train(spec, given.pop("X"), given.pop("y"), **named | given)


def calls(case: Case, surface: Surface) -> tuple[str, ...]:
    """The calls of a surface that take a case's arguments: of data the estimators have more."""
    if surface == "core" or case.row not in DATA:
        return case.calls
    more = ("partial_fit",) if "fit" in case.calls else ()
    more += ("score",) if case.id.startswith(("X:", "y:", "sample_weight:")) else ()
    return case.calls + more


def core(call: str, task: str, given: dict[str, Any], watch: Watch) -> list[np.ndarray]:
    """The weights that `train` finds, or what they predict."""
    if call == "fit":
        return [to_host(trained({"callbacks": [watch]} | given, task).flat)]
    settings = {name: value for name, value in given.items() if name != "X"}
    model = trained({"X": X} | settings, task)
    return [np.asarray(to_host(model.predict(given["X"])))]


def estimator(
    module: ModuleType, call: str, task: str, given: dict[str, Any], watch: Watch
) -> list[np.ndarray]:
    """The weights that an estimator of the module finds, or what they predict."""
    kind = getattr(module, "MLPClassifier" if task == "labels" else "MLPRegressor")
    at_fit = {name: given.pop(name) for name in OF_FIT if name in given}
    rows, y = given.pop("X"), given.pop("y")
    settings = {RENAMED.get(name, name): value for name, value in given.items()}
    known = kind().get_params()
    if not settings.keys() <= known.keys() or (module is not xpmlp and at_fit.keys() - {OF_FIT[2]}):
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


def outcome(surface: Surface, case: Case, call: str, given: dict[str, Any]) -> Outcome:
    """What a call with these arguments comes to."""
    if case.row == "files":
        if surface == THEIRS:
            raise AbsentError
        return files.outcome(surface, call, given)
    watch, told = Watch(), []
    arguments = GOOD | {"X": X, "y": LABELS if case.task == "labels" else Y} | given
    module = {"estimators": xpmlp, THEIRS: neural_network}.get(surface)
    try:
        with listening(told):
            if module is None:
                found = core(call, case.task, arguments, watch)
            else:
                found = estimator(module, call, case.task, arguments, watch)
    except AbsentError:
        raise
    except BaseException as error:
        model = getattr(error, "model", None)
        kept = [to_host(model.flat)] if model is not None else watch.weights
        return Outcome(error, finite=all(map(finite, kept)), worked=watch.called)
    whole = b"".join(str(part.dtype).encode() + part.tobytes() for part in found)
    return Outcome(None, whole, all(map(finite, found)), tuple(told), watch.called)


def tried(case: Case, surface: Surface, call: str) -> tuple[str, str]:
    """The verdict on a case, and why it is not what was wanted."""
    ours = "estimators" if surface == THEIRS else surface
    wanted: Wanted = case.wanted_of(ours)
    said = words(getattr(wanted, "name", case.id.partition(":")[0]), ours)
    found = outcome(surface, case, call, case.make())
    return judge(found, wanted, said, lambda plain: outcome(surface, case, call, dict(plain)))
