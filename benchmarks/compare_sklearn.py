#!/usr/bin/env python
"""What behaves otherwise than in scikit-learn's MLP, measured on both.

python benchmarks/compare_sklearn.py
python benchmarks/compare_sklearn.py --json
"""

import argparse
import json
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.utils.class_weight import compute_sample_weight

import xpmlp
from xpmlp.devices.words import default_word

EPOCHS = 5


class Libraries(NamedTuple):
    """The two, and what ours is told beside the settings."""

    seed: int
    device: str

    def classifier(self, who: str, **settings: Any) -> Any:
        settings = {"random_state": self.seed} | settings
        if who == "xpmlp":
            return xpmlp.MLPClassifier(device=self.device, **settings)
        return neural_network.MLPClassifier(**settings)


def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def gap(one: Any, other: Any) -> float:
    """The largest difference between two estimators' weights."""
    pairs = zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    return max(float(abs(a - b).max()) for a, b in pairs)


def same_curve(library: Libraries, who: str) -> float:
    """Largest relative difference between a loss curve and scikit-learn's, rows in order."""
    X, y = digits()
    steady = {"shuffle": False, "max_iter": 20}
    expected = library.classifier("scikit-learn", **steady).fit(X, y).loss_curve_
    found = library.classifier(who, **steady).fit(X, y).loss_curve_
    return float(np.max(np.abs(np.array(found) / np.array(expected) - 1)))


def partial_fits(library: Libraries, who: str) -> float:
    """Largest difference of a weight between five partial_fit and one fit of five epochs."""
    X, y = digits()
    whole = library.classifier(who, max_iter=EPOCHS).fit(X, y)
    parts = library.classifier(who, max_iter=EPOCHS)
    for _ in range(EPOCHS):
        parts.partial_fit(X, y, classes=np.unique(y))
    return gap(whole, parts)


def warm_starts(library: Libraries, who: str) -> float:
    """The same between five warm_start fits of one epoch and one fit of five."""
    X, y = digits()
    whole = library.classifier(who, max_iter=EPOCHS).fit(X, y)
    warm = library.classifier(who, max_iter=1, warm_start=True)
    for _ in range(EPOCHS):
        warm.fit(X, y)
    return gap(whole, warm)


def rare_class(library: Libraries, who: str) -> float:
    """Probability of a class of 1% of the rows that nothing tells apart, both balanced to 0.5,
    learnt in batches of 32."""
    y = (np.arange(6400) % 100 == 0).astype(int)
    X, weight = np.ones((len(y), 1)), compute_sample_weight("balanced", y)
    steady: dict[str, Any] = {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.02}
    steady |= {"hidden_layer_sizes": (), "alpha": 0.0, "tol": 0.0, "batch_size": 32, "max_iter": 30}
    if who == "xpmlp":
        est = library.classifier(who, **steady, class_weight="balanced").fit(X, y)
    else:
        est = library.classifier(who, **steady).fit(X, y, sample_weight=weight)
    return float(est.predict_proba(X[:1])[0, 1])


def divergence(library: Libraries, who: str) -> float:
    """Epochs of 200 that are trained to a loss that is no number."""
    X, y = digits()
    seen: list[float] = []
    settings = {"solver": "sgd", "activation": "identity", "learning_rate_init": 1e6}
    est = library.classifier(who, **settings)
    try:
        est.fit(X * 1e6, y)
    except ValueError:
        seen = est.loss_curve_
    return float(np.sum(~np.isfinite(seen)))


def sparse_rows(library: Libraries, who: str) -> float:
    """Megabytes that lbfgs allocates at most for 200,000 x 1,000 sparse rows, 1 per mille full."""
    rng = np.random.default_rng(library.seed)
    X = sp.random_array((200_000, 1000), density=0.001, rng=rng, format="csr")
    y = np.arange(200_000) % 2
    est = library.classifier(who, solver="lbfgs", max_iter=2, hidden_layer_sizes=100)
    tracemalloc.start()
    est.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


MEASURES: tuple[Callable[[Libraries, str], float], ...] = (
    same_curve, partial_fits, warm_starts, rare_class, divergence, sparse_rows,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=default_word(), help="of ours (auto)")
    parser.add_argument("--seed", default=0, type=int, help="of weights and orders (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    library, out = (
        Libraries(options.seed, options.device),
        sys.stderr if options.json else sys.stdout,
    )
    print(f"{'':<92} {'scikit-learn':>12} {'xpmlp':>9}", file=out)
    rows = []
    for measure in MEASURES:
        what = " ".join((measure.__doc__ or "").split()).rstrip(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {who: measure(library, who) for who in ("scikit-learn", "xpmlp")}
        rows.append({"measure": measure.__name__, "what": what} | found)
        print(f"{what:<92} {found['scikit-learn']:>12.3g} {found['xpmlp']:>9.3g}", file=out)
    if options.json:
        print(json.dumps({"seed": options.seed, "device": options.device, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
