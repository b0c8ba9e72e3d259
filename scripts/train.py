#!/usr/bin/env python
"""Train a network on arrays with the library only: an example to copy.

    python scripts/train.py --data digits --device cpu
    python scripts/train.py --data my.npz --hidden 256,256 --epochs 50 --save my.safetensors

DATA is a data set of scikit-learn (digits, iris, wine, breast_cancer, diabetes) or a .npz file with
arrays X (N, n_in) and y (N,): integers, strings and booleans are classes.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import xpmlp
from xpmlp.devices.extras import import_extra
from xpmlp.devices.words import default_word, place_for
from xpmlp.training.checks import numbers

SETS = ("digits", "iris", "wine", "breast_cancer", "diabetes")


def read(data: str) -> tuple[np.ndarray, np.ndarray]:
    """X and y of a data set of scikit-learn or a .npz file."""
    if data in SETS:
        datasets = import_extra("sklearn.datasets", "table")
        return getattr(datasets, f"load_{data}")(return_X_y=True)
    if not Path(data).is_file():
        raise ValueError(f"--data {data}: there is no such file, and no such set of scikit-learn")
    with np.load(data, allow_pickle=False) as file:
        if not {"X", "y"} <= set(file):
            raise ValueError(f"{data} must hold arrays X and y; it holds {', '.join(file)}")
        return file["X"], file["y"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help=f"{', '.join(SETS)} or FILE.npz (digits)")
    parser.add_argument("--device", default=default_word(), help="auto, cpu, gpu, gpu:N (auto)")
    parser.add_argument("--hidden", default="128", help="sizes of the hidden layers (128)")
    parser.add_argument("--epochs", default=50, type=int, help="(50)")
    parser.add_argument(
        "--learning-rate", default=2e-3, type=float, help="learning rate of Adam (0.002)"
    )
    parser.add_argument("--seed", default=0, type=int, help="of split, weights and orders (0)")
    parser.add_argument("--save", help="where to write the model (.safetensors)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    place = place_for(options.device)
    print(f"device {place.name}", file=sys.stderr)

    # 1. The data: split, then scaled by mean and deviation of the training rows.
    X, y = read(options.data)
    X = numbers(X, "X", (2,))
    if len(X) != len(y):
        raise ValueError(f"X has {len(X)} rows but y has {len(y)}")
    classes = None if y.dtype.kind == "f" else np.unique(y)
    order = np.random.default_rng(options.seed).permutation(len(X))
    val, train = order[: len(X) // 5], order[len(X) // 5 :]
    mean, std = X[train].mean(axis=0), X[train].std(axis=0) + 1e-12
    X = ((X - mean) / std).astype("float32")
    if classes is None:
        y = ((y - y[train].mean()) / y[train].std()).astype("float32")

    # 2. The network: inputs, hidden layers, outputs.
    outputs = 1 if classes is None else len(classes)
    sizes = [X.shape[1], *options.hidden.split(","), outputs]
    loss = "squared_error" if classes is None else "cross_entropy"
    spec = xpmlp.Spec.parse(sizes, activation="relu", dropout=0.1, loss=loss)

    # 3. Training, and the score on held-out rows.
    started = time.perf_counter()
    model = xpmlp.train(
        spec,
        X[train],
        y[train],
        learning_rate=options.learning_rate,
        schedule="cosine",
        epochs=options.epochs,
        seed=options.seed,
        device=options.device,
        X_val=X[val],
        y_val=y[val],
        callbacks=[xpmlp.ProgressBar()],
    )
    seconds = time.perf_counter() - started
    best = int(np.argmin(model.history["val_loss"]))
    name = "R2" if classes is None else "accuracy"
    score = model.history["val_score"][best]
    result = {"device": place.name, "data": options.data, "seed": options.seed, name: score}
    result |= {"epoch": best + 1, "seconds": seconds}
    print(
        f"{spec}: held-out {name} {score:.4f} at epoch {best + 1}, {seconds:.1f} s", file=sys.stderr
    )
    if options.save:
        model.save(options.save)
        print(f"wrote {options.save}", file=sys.stderr)
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)
