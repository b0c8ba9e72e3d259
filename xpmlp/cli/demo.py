"""`xpmlp demo`: train on scikit-learn's handwritten digits, plot the loss, save the model."""

import argparse
import time
from pathlib import Path

from xpmlp.cli.plots import plot_history
from xpmlp.devices.extras import import_extra
from xpmlp.devices.words import default_word, place_for
from xpmlp.spec import Spec
from xpmlp.storage.model_file import save
from xpmlp.training.callbacks import ProgressBar
from xpmlp.training.train import train

EXAMPLE = "xpmlp demo --device auto"
NETWORK, DROPOUT = "64-256-128-10", 0.2


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=default_word(), help="auto, cpu, gpu, gpu:N (auto)")
    parser.add_argument(
        "--seed", default=0, type=int, help="of split, weights and order of rows (0)"
    )
    parser.add_argument(
        "--out", default=".", type=Path, help="folder of the plot and the model (.)"
    )


def run(options: argparse.Namespace) -> int:
    datasets = import_extra("sklearn.datasets", "table")
    selection = import_extra("sklearn.model_selection", "table")
    if not options.out.is_dir():
        raise ValueError(f"--out must be an existing folder; got {options.out}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2**32); got {options.seed}")
    place = place_for(options.device)
    X, y = datasets.load_digits(return_X_y=True)
    X = (X / 16).astype("float32")  # grey levels 0 to 16
    X, X_test, y, y_test = selection.train_test_split(
        X, y, test_size=0.2, stratify=y, random_state=options.seed
    )
    print(f"device {place.name}: {len(X)} handwritten digits of 8 x 8 pixels to learn from")
    print(f"network {NETWORK}; every shape of a training step: xpmlp shapes {NETWORK}")
    bar = ProgressBar()
    start = time.perf_counter()
    model = train(
        Spec.parse(NETWORK, dropout=DROPOUT, loss="cross_entropy"),
        X,
        y,
        optimizer="adam",
        learning_rate=2e-3,
        schedule="cosine",
        epochs=40,
        seed=options.seed,
        device=options.device,
        callbacks=[bar],
    )
    seconds = time.perf_counter() - start
    accuracy = (model.predict(X_test) == y_test).mean()
    plot, file = options.out / "demo-loss.png", options.out / "demo-model.safetensors"
    plot_history(model, plot, title=f"{NETWORK} on handwritten digits")
    save(model, file)
    print(f"held-out accuracy {accuracy:.1%} on {len(X_test)} digits, trained in {seconds:.1f} s")
    print(f"wrote {plot} and {file}")
    return 0
