#!/usr/bin/env python
"""A long run: fit, predict, save, load, continue, populations, bad input; nothing may grow.

    python tests/fuzz/soak.py --minutes 10

Every round does every activity once, then counts, after a garbage collection, the resident memory,
Python's memory blocks, files in the working folder, threads and open descriptors. The rounds of
the first fifth of the time warm up and do not count. Flat means: over the rest a line through the
memory (Theil-Sen: the median of all slopes) rises by at most MEMORY in all, one through the
blocks by at most BLOCKS, and in the last quarter there are never more files, threads or
descriptors than there were at most in the first.

Exit status: 0 flat, 1 something grew, 2 wrong arguments. Needs /proc, so Linux.
"""

import argparse
import gc
import json
import os
import pickle
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpmlp import DivergedError, MLPClassifier, MLPRegressor, TableModel, load, train
from xpmlp.tabular.preprocessing import fit_column

MEMORY = 8 * 2**20  # bytes
BLOCKS = 5000  # of Python's memory, about 100 bytes each
WARM_UP = 0.2  # of the time, and at least 3 rounds
READINGS = 300  # at most, evenly over the time
ACTIVATIONS = ("relu", "tanh", "elu:0.5", "gelu")


class Reading(NamedTuple):
    """Resource usage at one moment."""

    minutes: float
    memory: int  # bytes resident
    blocks: int
    files: int
    threads: int
    descriptors: int


def take_reading(folder: Path, start: float) -> Reading:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Reading(
        (time.perf_counter() - start) / 60,
        pages * os.sysconf("SC_PAGE_SIZE"),
        sys.getallocatedblocks(),
        sum(len(names) for _, _, names in os.walk(folder)),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )


class Round(NamedTuple):
    """The data of a round's activities; sizes differ from round to round."""

    X: np.ndarray  # (N, n_in)
    y: np.ndarray  # (N,) labels
    number: np.ndarray  # (N,)
    hidden: int
    activation: str
    seed: int
    folder: Path


def make_round(number: int, seed: int, folder: Path) -> Round:
    rng = np.random.default_rng((seed, number))
    X = rng.normal(size=(int(rng.integers(40, 200)), int(rng.integers(2, 9))))
    labels = np.array(["a", "b", "c"])[np.arange(len(X)) % 3]
    hidden, activation = int(rng.integers(2, 40)), ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))]
    return Round(X, labels, X[:, 0] * 2 + X[:, 1], hidden, activation, number, folder)


def fit_and_predict(r: Round) -> None:
    spec = [[r.hidden, r.X.shape[1], r.activation, 0.1], [3, r.hidden, None]]
    model = train(spec, r.X, r.y, loss="cross_entropy", epochs=3, batch_size=32, seed=r.seed,
                  X_val=r.X[:20], y_val=r.y[:20], patience=2)  # fmt: skip
    assert model.predict(r.X).shape == r.y.shape


def fit_estimators(r: Round) -> None:
    settings: dict[str, Any] = {"hidden_layer_sizes": (r.hidden,), "max_iter": 3}
    MLPClassifier(**settings, early_stopping=True, dropout=0.2).fit(r.X, r.y).predict_proba(r.X)
    MLPRegressor(**settings, solver="lbfgs").fit(r.X, r.number).score(r.X, r.number)


def save_and_load(r: Round) -> None:
    network = train([r.X.shape[1], 1], r.X, r.number, epochs=1, seed=r.seed)
    network.save(r.folder / "network")
    assert np.array_equal(load(r.folder / "network").predict(r.X), network.predict(r.X))
    frame = {f"c{i}": column.tolist() for i, column in enumerate(r.X.T)}
    columns = tuple(fit_column(name, "number", np.array(cells)) for name, cells in frame.items())
    scores: dict[str, Any] = {"metrics": {}, "baseline": {}, "rows": {}}
    table = TableModel(network, columns, "y", "regression", 0.0, 1.0, scores)
    table.save(r.folder / "table")
    loaded = load(r.folder / "table")
    assert np.array_equal(loaded.predict(frame), table.predict(frame))


def continue_training(r: Round) -> None:
    """An interruption between two epochs does not change the bits."""
    uninterrupted, stopped = (MLPClassifier((r.hidden,), random_state=r.seed) for _ in range(2))
    for epoch in range(3):
        uninterrupted.partial_fit(r.X, r.y, classes=["a", "b", "c"])
        stopped.partial_fit(r.X, r.y, classes=["a", "b", "c"])
        if epoch < 2:
            stopped.save(r.folder / "stopped")
            stopped = pickle.loads(pickle.dumps(MLPClassifier.load(r.folder / "stopped")))
    assert np.array_equal(uninterrupted.coefs_[0], stopped.coefs_[0])


def resume(r: Round) -> None:
    """A training that an error ends is resumed from its checkpoint with the same bits."""

    def fail(report: Any) -> None:
        if report.epoch == 2:
            raise RuntimeError

    path = r.folder / "run.ckpt"
    path.unlink(missing_ok=True)
    options = {"X": r.X, "y": r.number, "epochs": 4, "seed": r.seed}
    spec = [r.X.shape[1], r.hidden, 1]
    assert_raises(RuntimeError, lambda: train(spec, **options, checkpoint=path, callbacks=[fail]))
    assert_raises(ValueError, lambda: train(spec, **options, checkpoint=path))
    assert_raises(
        ValueError, lambda: train(spec, **options, checkpoint=path, resume=True, learning_rate=0.5)
    )
    resumed = train(spec, **options, checkpoint=path, resume=True)
    assert np.array_equal(resumed.flat, train(spec, **options).flat)


def populations(r: Round) -> None:
    model = train([r.X.shape[1], r.hidden, 1], r.X, r.number, epochs=2, members=5, seed=r.seed,
                  learning_rate=[1e-3, 1e-2, 1e30, 1e-4, 1e-3], optimizer="sgd")  # fmt: skip
    model.save(r.folder / "population")
    assert load(r.folder / "population").member(1).predict(r.X).shape == r.number.shape


def threads(r: Round) -> None:
    model = train([r.X.shape[1], r.hidden, 1], r.X, r.number, epochs=1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model.predict, [r.X] * 8))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def assert_raises(error: type[BaseException], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def bad_input(r: Round) -> None:
    """Errors keep nothing alive: no rows in a traceback, no partial file, no descriptor."""

    def interrupt(report: Any) -> None:
        raise KeyboardInterrupt

    with_nan, size = r.X.copy(), r.X.shape[1]
    with_nan[3, 1] = np.nan
    good = r.folder / "network"
    train([size, 1], r.X, r.number, epochs=1).save(good)
    damaged = bytearray(good.read_bytes())
    damaged[random.Random(r.seed).randrange(len(damaged))] ^= 1
    (r.folder / "damaged").write_bytes(damaged)
    assert_raises(ValueError, lambda: train([size, 3, 1], with_nan, r.number))
    assert_raises(ValueError, lambda: train([size + 1, 1], r.X, r.number))
    assert_raises(ValueError, lambda: MLPClassifier(max_iter=-1).fit(r.X, r.y))
    assert_raises(ValueError, lambda: MLPClassifier().fit(with_nan, r.y))
    assert_raises(ValueError, lambda: load(r.folder / "damaged"))
    assert_raises(OSError, lambda: load(r.folder / "nothing"))
    assert_raises(OSError, lambda: load(good).save(r.folder / "no folder" / "model"))
    assert_raises(DivergedError, lambda: train([size, 4, 4, 1], r.X, r.number, learning_rate=1e30,
                                         optimizer="sgd", epochs=20))  # fmt: skip
    assert_raises(KeyboardInterrupt, lambda: train([size, 1], r.X, r.number, callbacks=[interrupt]))


ACTIVITIES: dict[str, Callable[[Round], None]] = {
    "fit and predict": fit_and_predict,
    "estimators": fit_estimators,
    "save and load": save_and_load,
    "continue": continue_training,
    "resume": resume,
    "populations": populations,
    "threads": threads,
    "bad input": bad_input,
}


def slope(readings: list[Reading], name: str) -> float:
    """The median rise per minute over all pairs of readings (Theil 1950, Sen 1968)."""
    return statistics.median(
        (getattr(second, name) - getattr(first, name)) / (second.minutes - first.minutes)
        for i, first in enumerate(readings)
        for second in readings[i + 1 :]
    )


def growth(readings: list[Reading]) -> dict[str, str]:
    """The readings that grew, and by how much."""
    span, grown = readings[-1].minutes - readings[0].minutes, {}
    for name, allowed in (("memory", MEMORY), ("blocks", BLOCKS)):
        rise = slope(readings, name) * span
        if rise > allowed:
            grown[name] = f"rose by {rise:,.0f} in {span:.1f} minutes, more than {allowed:,}"
    quarter = max(1, len(readings) // 4)
    for name in ("files", "threads", "descriptors"):
        before = max(getattr(reading, name) for reading in readings[:quarter])
        after = min(getattr(reading, name) for reading in readings[-quarter:])
        if after > before:
            grown[name] = f"rose from {before} to {after}"
    return grown


def run(minutes: float, seed: int, folder: Path) -> tuple[int, list[Reading]]:
    """(rounds, the readings after the warm-up)."""
    readings: list[Reading] = []
    start, number, due = time.perf_counter(), 0, WARM_UP * minutes * 60
    while (now := time.perf_counter() - start) < minutes * 60 or len(readings) < 8:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for activity in ACTIVITIES.values():
                activity(make_round(number, seed, folder))
        number += 1
        if number > 3 and now >= due:
            readings.append(take_reading(folder, start))
            due = now + minutes * 60 / READINGS
    return number, readings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", default=10.0, type=float, help="(10)")
    parser.add_argument("--seed", default=0, type=int, help="of the rows and sizes (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0; got {options.minutes}")
    if not Path("/proc/self/statm").exists():
        parser.error("this needs /proc, so Linux")
    out = sys.stderr if options.json else sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # files that anything leaves behind are counted
        try:
            rounds, readings = run(options.minutes, options.seed, Path(folder))
        finally:
            tempfile.tempdir = None
    first, last, grown = readings[0], readings[-1], growth(readings)
    print(f"{rounds} rounds of {', '.join(ACTIVITIES)}", file=out)
    print(f"{'':<12} {'at first':>12} {'at last':>12} {'per minute':>12}", file=out)
    rows = {}
    for column in Reading._fields[1:]:
        values = getattr(first, column), getattr(last, column), slope(readings, column)
        rows[column] = dict(zip(("first", "last", "per_minute"), values, strict=True))
        scaled = [v / 1e6 for v in values] if column == "memory" else values
        form = "12,.3f" if column == "memory" else "12,.0f"
        name = "memory, MB" if column == "memory" else column
        print(name.ljust(12), *(format(v, form) for v in scaled), file=out)
    for column, message in grown.items():
        print(f"{column} {message}", file=out)
    print("it grows" if grown else "flat", file=out)
    if options.json:
        rows |= {"rounds": rounds, "seed": options.seed, "minutes": last.minutes, "grown": grown}
        print(json.dumps(rows))
    return 1 if grown else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, ImportError) as error:
        print(f"soak.py: {error}", file=sys.stderr)
        sys.exit(2)
