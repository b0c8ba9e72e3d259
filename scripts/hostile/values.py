"""NaN, inf, NA, complex, dates, texts, ragged, None, masked: what no number can be made of."""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np

from hostile.case import Case, Refused
from hostile.given import (
    AT,
    BOTH,
    LABELS,
    ONES,
    PREDICT,
    N,
    X,
    Y,
    masked,
    objects,
    of,
    pandas,
    polars,
    refused,
    spoilt,
    strict,
    tensor,
    twice,
    with_mask,
)

BAD_X: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: spoilt(np.nan), "1 value .*NaN at " + AT),
    "two NaN": (lambda: twice(np.nan, np.nan), "2 values .*NaN at " + AT),
    "infinity": (lambda: spoilt(np.inf), "1 value .*infinity at " + AT),
    "minus infinity": (lambda: spoilt(-np.inf), "1 value .*infinity at " + AT),
    "infinity and NaN": (lambda: twice(np.inf, np.nan), "2 values .*infinity at " + AT),
    "NaN of float32": (lambda: spoilt(np.nan, "f4"), "1 value .*NaN at " + AT),
    "NaN of float16": (lambda: spoilt(np.nan, "f2"), "1 value .*NaN at " + AT),
    "NaN, big-endian": (lambda: spoilt(np.nan, ">f8"), "1 value .*NaN at " + AT),
    "NaN in Fortran order": (
        lambda: np.asfortranarray(spoilt(np.nan)),
        "1 value .*NaN at " + AT,
    ),
    "NaN among objects": (lambda: objects(np.nan), AT),
    "a list with NaN": (lambda: spoilt(np.nan).tolist(), "1 value .*NaN at " + AT),
    "complex": (lambda: X + 1j, "complex"),
    "complex, big-endian": (lambda: (X + 1j).astype(">c16"), "complex"),
    "complex without an imaginary part": (lambda: X + 0j, "complex"),
    "a complex among objects": (lambda: objects(1j), AT),
    "dates": (lambda: X.astype("M8[s]"), "datetime64"),
    "durations": (lambda: X.astype("m8[s]"), "timedelta64"),
    "a date among objects": (lambda: objects(datetime.date(2026, 1, 1)), AT),
    "texts": (lambda: np.full(X.shape, "word"), "<U4"),
    "texts of digits": (lambda: X.astype(str), "<U32"),
    "a text among objects": (lambda: objects("word"), AT + ".*'word'"),
    "a number as text": (lambda: objects("1.5"), AT + ".*'1.5'"),
    "bytes": (lambda: X.astype("S4"), "S4"),
    "one word": (lambda: "rows", ""),
    "ragged lists": (lambda: [[1.0, 2.0, 3.0]] * (N - 1) + [[1.0]], "(?i)inhomogeneous|rectang"),
    "None": (lambda: None, "got None"),
    "None among objects": (lambda: objects(None), AT + ".*None"),
    "a dict among objects": (lambda: objects({"a": 1}), AT),
    "masked": (lambda: masked(X), "1 masked value.*" + AT),
    "all masked": (lambda: np.ma.masked_all(X.shape), f"{X.size} masked values"),
    "masked integers": (lambda: masked((X * 4).astype(int)), "1 masked value.*" + AT),
    "a nullable frame with NA": (lambda: with_mask(X), AT),
    "a frame with NaN": (lambda: pandas(spoilt(np.nan)), "NaN at " + AT),
    "a frame with a text": (lambda: pandas(objects("word")), AT + ".*'word'"),
    "a frame of a category": (lambda: pandas(X.astype(str)).astype("category"), "real numbers"),
    "a Polars frame with null": (lambda: polars(objects(None).tolist()), AT),
    "a Polars frame with a text": (lambda: polars(X.astype(str).tolist()), "real numbers"),
    "a tensor with NaN": (lambda: tensor(spoilt(np.nan)), "1 value .*NaN at " + AT),
    "a complex tensor": (lambda: tensor(X + 1j), "complex"),
    "a strict array with infinity": (lambda: strict(spoilt(np.inf)), "infinity at " + AT),
    "records": (lambda: np.zeros(N, dtype=[("a", "f8"), ("b", "f8"), ("c", "f8")]), ""),
    "a dict": (lambda: {"a": [1.0] * N}, ""),
    "a set": (lambda: {1.0, 2.0}, ""),
    "a generator": (lambda: (row for row in X), ""),
    "a function": (lambda: len, ""),
    "one axis": (lambda: X[:, 0], r"1-?D"),
    "three axes": (lambda: X[None], "3"),
    "no axis": (lambda: np.float64(3.0), ""),
    "no rows": (lambda: X[:0], "0"),
    "no columns": (lambda: X[:, :0], "0"),
    "an integer beyond float64": (lambda: objects(10**400), AT),
    "a long double beyond float64": (
        lambda: spoilt(np.longdouble("1e400"), np.longdouble),
        "infinity at " + AT,
    ),
}  # fmt: skip
BAD_Y: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: spoilt(np.nan, plain=Y), "1 value .*NaN at row 2"),
    "infinity": (lambda: spoilt(-np.inf, plain=Y), "infinity at row 2"),
    "two columns with NaN": (lambda: spoilt(np.nan, plain=X[:, :2]), "NaN at " + AT),
    "complex": (lambda: Y + 1j, "complex"),
    "dates": (lambda: Y.astype("M8[s]"), "datetime64"),
    "texts": (lambda: Y.astype(str), "<U"),
    "a text among objects": (lambda: objects("word", Y), "row 2.*'word'"),
    "None": (lambda: None, "None"),
    "None among objects": (lambda: objects(None, Y), "row 2.*None"),
    "masked": (lambda: masked(Y), "1 masked value.*row 2"),
    "a nullable series with NA": (
        lambda: of("pandas", "Series")(spoilt(np.nan, plain=Y)).convert_dtypes(),
        "row 2",
    ),
    "a tensor with infinity": (lambda: tensor(spoilt(np.inf, plain=Y)), "infinity at row 2"),
    "ragged lists": (lambda: [[1.0]] * (N - 1) + [[1.0, 2.0]], ""),
    "too short": (lambda: Y[:-1], ""),
    "too long": (lambda: np.append(Y, 1), ""),
    "three axes": (lambda: Y[:, None, None], ""),
    "no axis": (lambda: 1.0, ""),
    "empty": (lambda: [], ""),
    "one word": (lambda: "price", ""),
    "a generator": (lambda: (value for value in Y), ""),
}
BAD_LABELS: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: spoilt(np.nan, plain=LABELS), "NaN at row 2"),
    "infinity": (lambda: spoilt(np.inf, plain=LABELS), "infinity at row 2"),
    "None among objects": (lambda: objects(None, np.array(["no", "yes"])[LABELS]), "None.*row 2"),
    "NaN among texts": (lambda: objects(np.nan, np.array(["no", "yes"])[LABELS]), "nan.*row 2"),
    "None in a list": (lambda: ["no", "yes", None, *["yes"] * (N - 3)], "None.*row 2"),
    "numbers among texts": (lambda: objects(1, np.array(["no", "yes"])[LABELS]), "mix"),
    "masked": (lambda: masked(LABELS), "1 masked value.*row 2"),
    "a nullable series with NA": (
        lambda: of("pandas", "Series")(spoilt(np.nan, plain=LABELS)).convert_dtypes(),
        "row 2",
    ),
    "NaT": (lambda: spoilt("NaT", "M8[s]", LABELS), "NaT.*row 2"),
    "complex": (lambda: LABELS + 1j, "complex"),
    "too short": (lambda: LABELS[:-1], ""),
    "three axes": (lambda: LABELS[:, None, None], ""),
    "None": (lambda: None, "None"),
}
BAD_WEIGHT: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: spoilt(np.nan, plain=ONES), "NaN at row 2"),
    "infinity": (lambda: spoilt(np.inf, plain=ONES), "infinity at row 2"),
    "negative": (lambda: spoilt(-1, plain=ONES), "row 2"),
    "complex": (lambda: ONES + 1j, "complex"),
    "texts": (lambda: ["heavy"] * N, ""),
    "None among objects": (lambda: objects(None, ONES), "row 2.*None"),
    "masked": (lambda: masked(ONES), "1 masked value.*row 2"),
    "dates": (lambda: ONES.astype("M8[s]"), "datetime64"),
    "too short": (lambda: ONES[:-1], ""),
    "two axes": (lambda: X, ""),
    "all zero": (lambda: 0 * ONES, "zero"),
    "one word": (lambda: "balanced", ""),
}


def held(argument: str, make: Callable[[], Any], says: str) -> Case:
    """A held-out set of which one part is bad."""
    good = {"X_val": X, "y_val": Y, "sample_weight_val": ONES}
    return Case(
        f"{argument}: {says}",
        "values",
        lambda: good | {argument: make()},
        lambda: Refused(argument, says),
    )


CASES = [
    *refused("values", "X", BAD_X, calls=BOTH),
    *refused("values", "y", BAD_Y),
    *refused("values", "y", {f"labels with {k}": v for k, v in BAD_LABELS.items()}, task="labels"),
    *refused("values", "sample_weight", BAD_WEIGHT),
    held("X_val", lambda: spoilt(np.nan), "NaN at " + AT),
    held("X_val", lambda: objects("word"), AT + ".*'word'"),
    held("X_val", lambda: masked(X), "1 masked value"),
    held("X_val", lambda: X[:, :2], "2"),
    held("X_val", lambda: None, "missing"),
    held("y_val", lambda: spoilt(np.inf, plain=Y), "infinity at row 2"),
    held("y_val", lambda: objects(None, Y), "row 2"),
    held("y_val", lambda: Y[:-1], "11"),
    held("y_val", lambda: None, "missing"),
    held("sample_weight_val", lambda: spoilt(np.nan, plain=ONES), "NaN at row 2"),
    held("sample_weight_val", lambda: spoilt(-1, plain=ONES), "row 2"),
    *refused(
        "values",
        "X",
        {
            "too few columns": (lambda: X[:, :2], "2 "),
            "too many columns": (lambda: X[:, [0, 1, 2, 0]], "4 "),
        },
        calls=PREDICT,
    ),
]  # fmt: skip
