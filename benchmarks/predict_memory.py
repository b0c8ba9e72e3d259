#!/usr/bin/env python
"""How much memory a prediction of many rows adds, ours and scikit-learn's, each in its own process.

python benchmarks/predict_memory.py                    # 10,000,000 rows of 50 columns, float32
python benchmarks/predict_memory.py --rows 1000000 --json
"""

import argparse
import json
import resource
import subprocess
import sys

from xpmlp.devices.words import default_word

TEN_MILLION = 10_000_000
WHO = {"xpmlp": "xpmlp", "scikit-learn": "sklearn.neural_network"}


def peak() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(who: str, options: argparse.Namespace) -> dict[str, object]:
    """Bytes that `predict` adds to the process's peak, for a classifier and a regressor."""
    from importlib import import_module

    import numpy as np

    library = import_module(WHO[who])
    settings: dict[str, object] = {"max_iter": 1, "random_state": options.seed}
    if who == "xpmlp":
        settings["device"] = options.device
    rng = np.random.default_rng(options.seed)
    X = np.empty((options.rows, options.columns), dtype=np.float32)
    for start in range(0, options.rows, 100_000):
        part = X[start : start + 100_000]
        part[...] = rng.standard_normal(part.shape, dtype=np.float32)
    few = X[:1000]
    fitted = [
        library.MLPClassifier(**settings).fit(few, few[:, 0] > 0),
        library.MLPRegressor(**settings).fit(few, few[:, 0]),
    ]
    before = peak()
    for model in fitted:
        assert model.predict(X).shape == (options.rows,)
    return {"who": who, "rows": options.rows, "data": X.nbytes, "added": peak() - before}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=TEN_MILLION, type=int, help=f"({TEN_MILLION:,})")
    parser.add_argument("--columns", default=50, type=int, help="(50)")
    parser.add_argument("--limit", default=500, type=int, help="megabytes that ours may add (500)")
    parser.add_argument("--device", default=default_word(), help="of ours (auto)")
    parser.add_argument("--seed", default=0, type=int, help="of rows and weights (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", choices=WHO, help="measure this one, in this process")
    options = parser.parse_args()
    if options.rows < 1000:
        parser.error("--rows must be at least 1000")
    if options.only:
        import warnings

        warnings.simplefilter("ignore")
        print(json.dumps(measure(options.only, options)))
        return 0
    out = sys.stderr if options.json else sys.stdout
    found = []
    for who in WHO:
        child = [sys.executable, __file__, *sys.argv[1:], "--only", who]
        done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{who:<13} ended with {done.returncode} (out of memory?)", file=out)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        found.append(row)
        added, data = row["added"] / 1e6, row["data"] / 1e6
        print(
            f"{who:<13} {row['rows']:,} rows, {data:,.0f} MB: predict adds {added:,.0f} MB",
            file=out,
        )
    if options.json:
        print(json.dumps({"limit": options.limit * 10**6, "rows": found}))
    ours = [row["added"] for row in found if row["who"] == "xpmlp"]
    return 0 if ours and ours[0] < options.limit * 10**6 else 1


if __name__ == "__main__":
    sys.exit(main())
