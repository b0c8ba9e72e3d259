"""pandas and scikit-learn's MLP, which its users have instead of the command line."""

from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fuzz.inputs.arrays import of
from fuzz.inputs.case import Case, Outcome, judge
from fuzz.inputs.files import folder
from fuzz.inputs.surfaces import AbsentError, finite, record_warnings
from fuzz.inputs.tables import COLUMNS, TABLE, text

OPTIONS: dict[str, tuple[str, Any]] = {  # our option, scikit-learn's name, the value's type
    "--learning-rate": ("learning_rate_init", float),
    "--batch-size": ("batch_size", int),
    "--epochs": ("max_iter", int),
    "--seed": ("random_state", int),
    "--activation": ("activation", str),
    "--optimizer": ("solver", str),
    "--hidden": ("hidden_layer_sizes", lambda value: [int(size) for size in value.split(",")]),
}
CALLS = ("train", "predict", "score")
OURS_ONLY = {"during", "limit", "model", "environment"}
GOOD = {"max_iter": 2, "random_state": 0, "hidden_layer_sizes": (4,)}
READERS = {"parquet": "read_parquet", "tsv": "read_table"}


def table(name: str) -> Any:
    """The file as a frame."""
    return of("pandas", READERS.get(name.partition(".")[2], "read_csv"))(name)


def numbers(frame: Any, columns: Any = None) -> Any:
    encoded = of("pandas", "get_dummies")(frame)
    return encoded if columns is None else encoded.reindex(columns=columns)


def outcome(call: str, arguments: dict[str, Any]) -> Outcome:
    """The outcome of training on the table, or of using it after training on the good one."""
    arguments = dict(arguments)
    extra = list(arguments.pop("words", ()))
    name = extra[1] if extra[:1] == ["TABLE"] else TABLE
    pairs = [flag.split("=", 1) for flag in extra if flag.startswith("--") and "=" in flag]
    pairs += [list(pair) for pair in pairwise(extra) if pair[0].startswith("--")]
    if (
        call not in CALLS
        or OURS_ONLY & set(arguments)
        or any(flag not in OPTIONS for flag, _ in pairs)
    ):
        raise AbsentError
    warned: list[str] = []
    files = {TABLE: text(COLUMNS), "good.csv": text(COLUMNS)} | arguments
    with folder(files):
        try:
            settings = GOOD | {OPTIONS[flag][0]: OPTIONS[flag][1](value) for flag, value in pairs}
            with record_warnings(warned):
                parts = results(call, name, settings)
        except Exception as error:
            return Outcome(error)
    return Outcome(
        None, b"".join(part.tobytes() for part in parts), all(map(finite, parts)), tuple(warned)
    )


def results(call: str, name: str, settings: dict[str, Any]) -> list[np.ndarray]:
    """The weights, the predictions or the score."""
    frame = table(name if call == "train" else "good.csv")
    y = frame.pop("price")
    kind = MLPRegressor if y.dtype.kind in "biuf" else MLPClassifier
    rows = numbers(frame)
    est = kind(**settings).fit(rows, y)
    if call == "train":
        return [*est.coefs_, *est.intercepts_]
    test = table(name)
    y_true = test.pop("price") if "price" in test or call == "score" else None
    test = numbers(test, rows.columns)
    if call == "predict":
        return [est.predict(test)]
    return [np.asarray(est.score(test, y_true))]


def run(case: Case, call: str) -> tuple[str, str]:
    """The verdict on a case of the command line."""
    expected = case.expected_for("command line")
    name = getattr(expected, "name", "")
    names = (name, OPTIONS.get(f"--{name}", (name, None))[0], "X", "y")
    return judge(outcome(call, case.make()), expected, names, lambda plain: outcome(call, plain))
