#!/usr/bin/env python
"""Kill trainings at random moments, resume them, and compare with the ones that never stopped.

    python tests/fuzz/kill_trainings.py --kills 1000
    python tests/fuzz/kill_trainings.py --kills 1000 --what fit

A child process trains with a checkpoint and is killed (SIGKILL) after a random number of
microseconds, again and again, until it comes to its end by itself. Then its checkpoint must hold
what that of an undisturbed training holds, bit for bit: parameters, the optimizer's slots, best
weights, history; and resumed once more it must give what the undisturbed one gave. Rounds go
through every optimizer, and dropout, schedules, clipping, early stopping and populations in turn;
with `--what fit` it is an estimator's fit, and its rules of when to stop. A kill lost progress
where the child had done epochs that its checkpoint does not have; it was resumed where the next
child went on from that checkpoint.

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
HELD = {"X_val": X[:32], "y_val": Y[:32] + 0.5}
BASE: dict[str, Any] = {"spec": "5-16-1", "X": X, "y": Y, "epochs": 120, "batch_size": 8}
CASES: dict[str, dict[str, Any]] = {name: {"optimizer": name} for name in OPTIMIZERS} | {
    "dropout": {"spec": [[16, 5, "tanh", 0.3], [1, 16, None]]},
    "schedule and clip": {"schedule": "warmup:3 * cosine", "clip": 0.5, "l2": 1e-3},
    "early stopping": {**HELD, "patience": 25},
    "population": {**HELD, "members": 4, "learning_rate": [1e-3, 1e-2, 0.1, 1.0], "patience": 25},
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
LIFE = 60.0  # seconds for a training that nobody kills
# the first epoch a life has done, and the last; a kill while they are written leaves 0
PROGRESS = struct.Struct("qq")


def life(name: str, path: Path, seen: mmap.mmap) -> Any:
    """Train to the end, let the parent see how far it is, and give what came of it."""
    first: list[int] = []

    def look(report: Any) -> None:
        first.append(report.epoch)
        PROGRESS.pack_into(seen, 0, first[0], report.epoch)

    often = Checkpoint(path, every_epochs=4 + len(name) % 5)
    kept = {"callbacks": [look], "checkpoint": often, "resume": True}
    if name in FITS:
        return fitted(FIT | FITS[name] | kept)
    return train(**BASE | CASES[name] | kept).flat.tobytes()


def fitted(given: dict[str, Any]) -> tuple[Any, ...]:
    """All that a fit leaves behind, but times."""
    several = "class_weight" in given
    est = (MLPClassifier if several else MLPRegressor)(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X, np.digitize(Y[:, 0], [0.5]) if several else Y[:, 0])
    est.history_.pop("seconds", None)
    model, sections, arrays = est.parts()
    return json.dumps(sections), *(part.tobytes() for part in (model.flat, *arrays.values()))


def killed(name: str, path: Path, delay: float) -> tuple[bool, int, int]:
    """A life that ends after `delay` seconds: (killed, first epoch done, last epoch done)."""
    seen = mmap.mmap(-1, PROGRESS.size)
    ended, held_open = os.pipe()  # reads as ended when the child does
    child = os.fork()
    if child == 0:
        try:
            life(name, path, seen)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(1)
    os.close(held_open)
    select.select([ended], [], [], delay)
    os.kill(child, signal.SIGKILL)
    os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 1:
        raise RuntimeError(f"{name}: a life ended in an error")
    return (status != 0, *PROGRESS.unpack_from(seen))


def held(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, but times."""
    data = path.read_bytes()
    found: dict[str, Any] = json.loads(read_metadata(data, FORMAT, VERSION)["config"])
    del found["seconds"], found["about"]
    arrays = {
        name: value for name, value in read_tensors(data).items() if name != "history.seconds"
    }
    return found | {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def epoch_of(path: Path) -> int:
    return int(held(path)["epoch"]) if path.exists() else 0


def kill_trainings(kills: int, seed: int, folder: Path, what: str = "train") -> dict[str, Any]:
    """The kills, and what came of them. what: a key of WHAT."""
    rng, counts, wrong, rounds = random.Random(seed), Counter[str](), [], 0
    while counts["kills"] < kills:
        name = list(WHAT[what])[rounds % len(WHAT[what])]
        through, path = folder / f"through-{rounds}", folder / f"killed-{rounds}"
        begun = time.perf_counter()
        wanted = life(name, through, mmap.mmap(-1, PROGRESS.size))
        seconds, lost = time.perf_counter() - begun, 0
        while True:
            before = epoch_of(path)
            delay = rng.uniform(0, seconds / 2) if counts["kills"] < kills else LIFE
            died, first, done = killed(name, path, delay)
            if first == before + 1:
                counts["seen to resume"] += lost
                lost = 0
            elif first:
                wrong.append(f"{name}: a life began with epoch {first}, not {before + 1}")
            if not died:
                break
            counts["kills"] += 1
            counts["inside a write"] += bool(list(folder.glob(f".{path.name}.*.part")))
            counts["lost progress"] += done > epoch_of(path)
            lost += done > epoch_of(path)
        last = life(name, path, mmap.mmap(-1, PROGRESS.size))
        if held(path) != held(through) or last != wanted:
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
        found = kill_trainings(options.kills, options.seed, Path(folder), options.what)
    if options.json:
        print(json.dumps(found))
    else:
        print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
