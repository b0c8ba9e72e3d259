#!/usr/bin/env python
"""Answer the Stack Overflow question: its data, networks and statistics, with code that works.

A network was written by hand as a list [[size, input_size, activation], ...] and trained by
stochastic gradient descent on single random points. With a hidden layer it failed: "matrix
shapes of derivatives of weights not aligned". Run it:

    python scripts/answer.py --plot answer-loss.png
"""

import argparse
import json
import sys

import numpy as np

import xpmlp

X = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
Y = np.array([[2.0], [4.0], [6.0], [8.0], [10.0]])

NETWORKS = {
    "its first network": [[1, 1, None], [1, None, None]],
    "the one that failed": [[3, 1, None], [2, None, None], [1, None, None]],
    "a sigmoid one": [[3, 1, "sigmoid"], [2, None, "sigmoid"], [1, None, None]],
}
STEPS, LOG_EVERY, LEARNING_RATE = 20_000, 100, 0.2
TARGET = 1e-26  # half the squared error in units of the range: nearly as exact as float64

MISTAKES = """\
What was wrong in the question's code:
1. Derivatives of layers were multiplied elementwise (*=): a neuron reaches the next layer by
   many paths, and delta @ W.T is the sum over them. Those are the shapes that did not align.
2. The sigmoid's slope was applied where a layer had no activation: the slope there is 1.
3. A layer had one bias, a single number: each neuron needs its own, a row (1, n_out).
4. The best weights were kept as a reference, so they went on changing: the best was always
   the last. Keep a copy.
5. network.index(layer) finds the first equal layer: two layers alike became one. Count with
   enumerate."""


def solve(layers: list, seed: int, device: str) -> tuple[xpmlp.Model, np.ndarray]:
    """Train one of the question's networks; return the model and its predictions for X."""
    x, y = (X - X.min()) / np.ptp(X), (Y - Y.min()) / np.ptp(Y)  # both from 0 to 1
    model = xpmlp.train(
        layers,
        x,
        y,
        optimizer="sgd",
        learning_rate=LEARNING_RATE,
        schedule="inverse_scaling:0.1",
        epochs=STEPS // len(X),
        batch_size=1,
        seed=seed,
        initializer="normal:0.5",
        keep="best",
        device=device,
        callbacks=[xpmlp.stop_at("loss", TARGET)],
    )
    return model, model.predict(x) * np.ptp(Y) + Y.min()


def statistics(model: xpmlp.Model) -> str:
    """Loss and learning rate at about ten steps, multiples of LOG_EVERY, and at the last."""
    loss, rate = model.history["loss"], model.history["learning_rate"]
    epochs = range(LOG_EVERY // len(X) - 1, len(loss), LOG_EVERY // len(X))
    selected = [*epochs[:: max(1, len(epochs) // 10)], len(loss) - 1]
    lines = [f"  {'step':>7} {'loss':>10} {'rate':>8}"]
    lines += [f"  {(i + 1) * len(X):>7,} {loss[i]:>10.2e} {rate[i]:>8.4f}" for i in selected]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="auto, cpu, gpu, gpu:N (cpu)")
    parser.add_argument("--seed", default=0, type=int, help="of weights and order (0)")
    parser.add_argument("--plot", default="answer-loss.png", help="file for the plot of the loss")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout
    import matplotlib  # noqa: F401 - fails before training, not after it

    results = {}
    for name, layers in NETWORKS.items():
        print(f"\n== {name}: {layers}\n", file=out)
        print(xpmlp.ledger(layers, batch_size=1), file=out)
        model, predicted = solve(layers, options.seed, options.device)
        error = float(((predicted - Y) ** 2).mean())
        results[name] = {"steps": len(model.history["loss"]) * len(X), "mse": error}
        steps = results[name]["steps"]
        device = model.place.name
        print(f"\ntrained {steps:,} steps on single points, shuffled, on device {device}", file=out)
        print(statistics(model), file=out)
        pairs = ", ".join(
            f"{x:g} -> {y:.4f}" for x, y in zip(X[:, 0], predicted[:, 0], strict=True)
        )
        print(f"predictions: {pairs}\nmean squared error {error:.1e}", file=out)
        if name == "the one that failed":
            xpmlp.plot_history(model, options.plot, title=f"the question's network {layers}")
    print(f"\nwrote {options.plot}\n\n{MISTAKES}", file=out)
    if options.json:
        print(json.dumps({"device": device, "seed": options.seed, "networks": results}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"answer.py: {error}", file=sys.stderr)
        sys.exit(2)
