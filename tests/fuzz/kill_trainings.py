#!/usr/bin/env python
"""Kill trainings at random moments, resume them, and compare with uninterrupted ones.

    python tests/fuzz/kill_trainings.py --kills 1000
    python tests/fuzz/kill_trainings.py --kills 1000 --what fit

A child process trains with a checkpoint and is killed (SIGKILL) after a random number of
microseconds, again and again, until it ends by itself. Then its checkpoint must have the content of
that of an uninterrupted training, bit for bit: parameters, the optimizer's slots, best weights,
history; and resumed once more it must give the same result. Rounds go through every optimizer, and
dropout, schedules, clipping, early stopping and populations in turn; with `--what fit` through an
estimator's fit and its stopping rules. A kill lost progress if the child had done epochs that its
checkpoint does not have; it was resumed if the next child continued from that checkpoint.

Exit status: 0 all the same, 1 a difference, 2 wrong arguments. Needs fork, so no Windows.
"""

import argparse
import json
import mmap
import os
import random
import select
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from xpmlp import Checkpoint, MLPClassifier, MLPRegressor, train
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.storage.checkpoint import FORMAT, VERSION
from xpmlp.storage.checksummed import read_metadata, read_tensors

RNG = np.random.default_rng(1)
X = RNG.normal(size=(96, 5))
Y = np.sin(X[:, :1]) + 0.1 * RNG.normal(size=(96, 1))
VAL = {"X_val": X[:32], "y_val": Y[:32] + 0.5}
BASE: dict[str, Any] = {"spec": "5-16-1", "X": X, "y": Y, "epochs": 120, "batch_size": 8}
CASES: dict[str, dict[str, Any]] = {name: {"optimizer": name} for name in OPTIMIZERS} | {
    "dropout": {"spec": [[16, 5, "tanh", 0.3], [1, 16, None]]},
    "schedule and clip": {"schedule": "warmup:3 * cosine", "clip": 0.5, "l2": 1e-3},
    "early stopping": {**VAL, "patience": 25},
    "population": {**VAL, "members": 4, "learning_rate": [1e-3, 1e-2, 0.1, 1.0], "patience": 25},
    "step by step": {"capture": False, "dtype": "float32"},
}
FIT: dict[str, Any] = {
    "hidden_layer_sizes": 16, "batch_size": 8, "max_iter": 120, "random_state": 1, "tol": 0.0,
}  # fmt: skip
FITS: dict[str, dict[str, Any]] = {
    "fit": {},
    "classes": {"class_weight": "balanced", "dropout": 0.2},
    "early stopping of a fit": {"early_stopping": True, "n_iter_no_change": 40, "dropout": 0.2},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 1e-3, "n_iter_no_change": 3},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "convergence": {"solver": "adamw", "tol": 1e-3, "n_iter_no_change": 15, "dtype": "float32"},
}
WHAT = {"train": CASES, "fit": FITS}
LIFE = 60.0  # seconds for a training that is not killed
# the first and the last epoch of a process; a kill while they are written leaves 0
PROGRESS = struct.Struct("qq")


def run_training(name: str, path: Path, progress: mmap.mmap) -> Any:
    """Train to the end, report the progress to the parent, and return the result."""
    first: list[int] = []

    def report_progress(report: Any) -> None:
        first.append(report.epoch)
        PROGRESS.pack_into(progress, 0, first[0], report.epoch)

    checkpoint = Checkpoint(path, every_epochs=4 + len(name) % 5)
    options = {"callbacks": [report_progress], "checkpoint": checkpoint, "resume": True}
    if name in FITS:
        return fit_result(FIT | FITS[name] | options)
    return train(**BASE | CASES[name] | options).flat.tobytes()


def fit_result(params: dict[str, Any]) -> tuple[Any, ...]:
    """The state after a fit, without times."""
    is_classifier = "class_weight" in params
    est = (MLPClassifier if is_classifier else MLPRegressor)(**params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X, np.digitize(Y[:, 0], [0.5]) if is_classifier else Y[:, 0])
    est.history_.pop("seconds", None)
    model, sections, arrays = est._parts()
    return json.dumps(sections), *(part.tobytes() for part in (model.flat, *arrays.values()))


def run_until_killed(name: str, path: Path, delay: float) -> tuple[bool, int, int]:
    """Train in a process for `delay` seconds: (killed, first epoch done, last epoch done)."""
    progress = mmap.mmap(-1, PROGRESS.size)
    read_end, write_end = os.pipe()  # at its end when the child has ended
    child = os.fork()
    if child == 0:
        try:
            run_training(name, path, progress)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(1)
    os.close(write_end)
    select.select([read_end], [], [], delay)
    os.kill(child, signal.SIGKILL)
    os.close(read_end)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 1:
        raise RuntimeError(f"{name}: a life ended in an error")
    return (status != 0, *PROGRESS.unpack_from(progress))


def contents(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, without times."""
    data = path.read_bytes()
    config: dict[str, Any] = json.loads(read_metadata(data, FORMAT, VERSION)["config"])
    del config["seconds"], config["about"]
    arrays = {
        name: value for name, value in read_tensors(data).items() if name != "history.seconds"
    }
    return config | {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def epoch_of(path: Path) -> int:
    return int(contents(path)["epoch"]) if path.exists() else 0


def kill_trainings(kills: int, seed: int, folder: Path, what: str = "train") -> dict[str, Any]:
    """Kill so many trainings and count the outcomes. what: a key of WHAT."""
    rng, counts, wrong, rounds = random.Random(seed), Counter[str](), [], 0
    while counts["kills"] < kills:
        name = list(WHAT[what])[rounds % len(WHAT[what])]
        uninterrupted, path = folder / f"uninterrupted-{rounds}", folder / f"killed-{rounds}"
        start = time.perf_counter()
        expected = run_training(name, uninterrupted, mmap.mmap(-1, PROGRESS.size))
        seconds, lost = time.perf_counter() - start, 0
        while True:
            before = epoch_of(path)
            delay = rng.uniform(0, seconds / 2) if counts["kills"] < kills else LIFE
            was_killed, first, done = run_until_killed(name, path, delay)
            if first == before + 1:
                counts["seen to resume"] += lost
                lost = 0
            elif first:
                wrong.append(f"{name}: a life began with epoch {first}, not {before + 1}")
            if not was_killed:
                break
            counts["kills"] += 1
            counts["inside a write"] += bool(list(folder.glob(f".{path.name}.*.part")))
            counts["lost progress"] += done > epoch_of(path)
            lost += done > epoch_of(path)
        actual = run_training(name, path, mmap.mmap(-1, PROGRESS.size))
        if contents(path) != contents(uninterrupted) or actual != expected:
            wrong.append(f"{name}: what is resumed differs from what never stopped")
        rounds += 1
    return {"what": what, "seed": seed, "trainings": rounds, **counts, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", default=20, type=int, help="at least (20)")
    parser.add_argument("--what", default="train", choices=WHAT, help="what is killed (train)")
    parser.add_argument("--seed", default=0, type=int, help="of the moments (0)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    if options.kills < 1:
        parser.error(f"--kills must be at least 1; got {options.kills}")
    with tempfile.TemporaryDirectory() as folder:
        result = kill_trainings(options.kills, options.seed, Path(folder), options.what)
    if options.json:
        print(json.dumps(result))
    else:
        print(*(f"{name}: {value}" for name, value in result.items()), sep="\n")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
