"""What users of scikit-learn have in place of the command line: pandas and its MLP."""

from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from fuzz.inputs.arrays import of
from fuzz.inputs.case import Case, Outcome, judge
from fuzz.inputs.files import folder
from fuzz.inputs.surfaces import AbsentError, finite, listening
from fuzz.inputs.tables import COLUMNS, TABLE, text

OPTIONS: dict[str, tuple[str, Any]] = {  # ours, scikit-learn's name, and how its value is read
    "--learning-rate": ("learning_rate_init", float),
    "--batch-size": ("batch_size", int),
    "--epochs": ("max_iter", int),
    "--seed": ("random_state", int),
    "--activation": ("activation", str),
    "--optimizer": ("solver", str),
    "--hidden": ("hidden_layer_sizes", lambda value: [int(size) for size in value.split(",")]),
}
CALLS = ("train", "predict", "score")
OURS_ALONE = {"during", "limit", "model", "environment"}
GOOD = {"max_iter": 2, "random_state": 0, "hidden_layer_sizes": (4,)}
READERS = {"parquet": "read_parquet", "tsv": "read_table"}


def table(name: str) -> Any:
    """The file as a frame, its categories as columns of 0 and 1."""
    return of("pandas", READERS.get(name.partition(".")[2], "read_csv"))(name)


def numbers(frame: Any, columns: Any = None) -> Any:
    found = of("pandas", "get_dummies")(frame)
    return found if columns is None else found.reindex(columns=columns)


def outcome(call: str, given: dict[str, Any]) -> Outcome:
    """What training on the table, or using it after training on the good one, comes to."""
    given = dict(given)
    words = list(given.pop("words", ()))
    name = words[1] if words[:1] == ["TABLE"] else TABLE
    pairs = [word.split("=", 1) for word in words if word.startswith("--") and "=" in word]
    pairs += [list(pair) for pair in pairwise(words) if pair[0].startswith("--")]
    if (
        call not in CALLS
        or OURS_ALONE & set(given)
        or any(word not in OPTIONS for word, _ in pairs)
    ):
        raise AbsentError
    told: list[str] = []
    files = {TABLE: text(COLUMNS), "good.csv": text(COLUMNS)} | given
    with folder(files):
        try:
            settings = GOOD | {OPTIONS[word][0]: OPTIONS[word][1](value) for word, value in pairs}
            with listening(told):
                found = answers(call, name, settings)
        except Exception as error:
            return Outcome(error)
    return Outcome(
        None, b"".join(part.tobytes() for part in found), all(map(finite, found)), tuple(told)
    )


def answers(call: str, name: str, settings: dict[str, Any]) -> list[np.ndarray]:
    """The weights, the predictions or the score."""
    frame = table(name if call == "train" else "good.csv")
    y = frame.pop("price")
    kind = MLPRegressor if y.dtype.kind in "biuf" else MLPClassifier
    rows = numbers(frame)
    est = kind(**settings).fit(rows, y)
    if call == "train":
        return [*est.coefs_, *est.intercepts_]
    asked = table(name)
    truth = asked.pop("price") if "price" in asked or call == "score" else None
    asked = numbers(asked, rows.columns)
    if call == "predict":
        return [est.predict(asked)]
    return [np.asarray(est.score(asked, truth))]


def tried(case: Case, call: str) -> tuple[str, str]:
    """The verdict on a case of the command line."""
    wanted = case.wanted_of("command line")
    name = getattr(wanted, "name", "")
    words = (name, OPTIONS.get(f"--{name}", (name, None))[0], "X", "y")
    return judge(outcome(call, case.make()), wanted, words, lambda plain: outcome(call, plain))
