"""Sparse rows, and numbers that are too large for float32."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.inputs.arrays import AT, BOTH, ONES, WHOLE, N, X, Y, insert, of, pandas, refused
from fuzz.inputs.case import Case, Refused, Same


def sparse(kind: str, values: Any = X) -> Any:
    return of("scipy.sparse", f"{kind}_array")(values)


def huge() -> Any:
    """Rows that do not fit into any memory as a dense array."""
    return of("scipy.sparse", "csr_array")((N, 2**45))


SPARSE_X: dict[str, tuple[Callable[[], Any], Any]] = {
    "CSR": (lambda: sparse("csr"), X),
    "CSC": (lambda: sparse("csc"), X),
    "COO": (lambda: sparse("coo"), X),
    "a matrix": (lambda: of("scipy.sparse", "lil_matrix")(X), X),
    "integers": (lambda: sparse("csr", WHOLE), WHOLE * 1.0),
    "booleans": (lambda: sparse("csr", X > 0), (X > 0) * 1.0),
}
SPARSE = [
    *(
        Case(
            f"X: sparse, {kind}",
            "sparse",
            lambda make=make: {"X": make()},  # type: ignore[misc]
            lambda plain=plain: {  # type: ignore[misc]
                "core": Refused("X", r"sparse.*toarray\(\)", (TypeError,)),
                "estimators": Same({"X": plain}),
            },
            calls=BOTH,
        )
        for kind, (make, plain) in SPARSE_X.items()
    ),
    *refused(
        "sparse",
        "X",
        {
            "sparse with NaN": (lambda: sparse("csr", insert(np.nan)), "sparse|NaN at " + AT),
            "sparse with infinity": (lambda: sparse("csc", insert(np.inf)), "sparse|infin.*" + AT),
            "sparse and complex": (lambda: sparse("csr", X + 1j), "(?i)sparse|complex"),
            "sparse without rows": (lambda: sparse("csr", X[:0]), "sparse|0"),
        },
        calls=BOTH,
    ),
    Case(
        "huge and sparse X",
        "sparse",
        lambda: {"X": huge()},
        lambda: {
            "core": Refused("X", r"sparse.*toarray\(\)", (TypeError,)),
            "estimators": Refused("hidden", "[0-9,]+ bytes", (MemoryError,)),
        },
    ),
    *refused(
        "sparse",
        "y",
        {"sparse": (lambda: sparse("csr", Y[:, None]), "(?i)sparse")},
        surfaces=("core",),
    ),
    *refused("sparse", "sample_weight", {"sparse": (lambda: sparse("csr", ONES[:, None]), "")}),
]  # fmt: skip

F4 = {"dtype": "float32"}


def overflowing(
    argument: str,
    kind: str,
    make: Callable[[], Any],
    says: str,
    others: dict[str, Any] | None = None,
    **options: Any,
) -> Case:
    """A number in the range of float64 but not of float32."""
    return Case(
        f"{argument} in float32: {kind}",
        "overflow",
        lambda: F4 | (others or {}) | {argument: make()},
        lambda: Refused(argument, says),
        **options,
    )


MATCH = f"float32 at {AT}"
CASES = [
    *SPARSE,
    overflowing("X", "1e39", lambda: insert(1e39), MATCH, calls=BOTH),
    overflowing("X", "-1e300", lambda: insert(-1e300), MATCH, calls=BOTH),
    overflowing("X", "2**200 as an object", lambda: insert(2**200, object), MATCH, calls=BOTH),
    overflowing("X", "big-endian", lambda: insert(1e39).astype(">f8"), MATCH),
    overflowing("X", "a frame", lambda: pandas(insert(1e39)), MATCH, calls=BOTH),
    overflowing("X", "all of them", lambda: np.full(X.shape, 1e308), "row 0, column 0"),
    overflowing("y", "1e39", lambda: insert(1e39, plain=Y), "float32 at row 2"),
    overflowing("y", "two columns", lambda: insert(-1e39, plain=X[:, :2]), MATCH),
    overflowing("X_val", "1e39", lambda: insert(1e39), MATCH, others={"y_val": Y}),
    overflowing("y_val", "1e39", lambda: insert(1e39, plain=Y), "row 2", others={"X_val": X}),
    Case(
        "sample_weight in float32: 1e300",
        "overflow",
        lambda: F4 | {"sample_weight": ONES * 1e300},
        lambda: Same(F4 | {"sample_weight": ONES}),
        surfaces=("core",),
    ),
    *(
        Case(
            f"X: {kind} to predict",
            "overflow",
            lambda largest=largest, options=options: options
            | {"X": np.full(X.shape, largest), "hidden": (64,), "learning_rate": 100.0},
            lambda: Refused("X", "prediction of row 0"),
            calls=("predict",),
        )
        for kind, largest, options in (("1.7e308", 1.7e308, {}), ("3.4e38", 3.4e38, F4))
    ),
    *(
        Case(
            f"sample_weight: {size:g}",
            "overflow",
            lambda size=size: {"sample_weight": ONES * size},
            lambda size=size: {
                "core": Same({"sample_weight": ONES}),
                "estimators": Refused("sample_weight", "largest"),
            },
        )
        for size in (1e308, 1e-320)
    ),
]  # fmt: skip
