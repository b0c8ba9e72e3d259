#!/usr/bin/env python
"""Hostile files: every one must load correctly or be refused in a ValueError with its path.

    python tests/fuzz/fuzz_files.py                         # 100,000 files made of tests/data's
    python tests/fuzz/fuzz_files.py --minutes 60 --seed 1   # as many as there is time for
    python tests/fuzz/fuzz_files.py --seed 0 --only 4711    # one of them again, with its traceback

Exit status: 0 all as they must be, 1 a fault, 2 wrong arguments. The first files at fault are kept
under --keep, and named. A load that hangs ends the process with a traceback.
"""

import argparse
import faulthandler
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))  # where `fuzz` is

from fuzz.trial_files import Case, Fault, Kind, Source, source, trial  # noqa: E402
from xpmlp import Checkpoint, DivergedError, MLPClassifier, MLPRegressor, load  # noqa: E402
from xpmlp.devices.extras import needed  # noqa: E402
from xpmlp.storage import checkpoint  # noqa: E402
from xpmlp.storage.model_file import encode  # noqa: E402
from xpmlp.storage.signature import run_signature  # noqa: E402
from xpmlp.tabular.model import TableModel  # noqa: E402
from xpmlp.training.train import make_trainer  # noqa: E402
from xpmlp.training.trainer import Trainer  # noqa: E402

DATA = TESTS / "data"
HANG = 300  # seconds for 1,000 files
MEASURED = 50  # one load of so many has its memory measured
KEPT = 20  # files at fault
CHECKPOINT = "checkpoint"  # the first word of such a file's name


def use_network(model: Any) -> None:
    X = [[0.5] * model.spec.n_in] * 2
    model.predict_proba(X)
    model.predict(X)


def use_table(model: TableModel) -> None:
    cells = {"number": [0.5, None], "date": [0.0, None], "category": ["y", None]}
    frame = {known.name: cells[known.kind] for known in model.columns}
    model.predict(frame)
    model.predict_proba(frame)


def use_loaded(model: Any) -> None:
    """What `load` gives of any model file, of an estimator's too."""
    use_table(model) if isinstance(model, TableModel) else use_network(model)


def use_estimator(est: Any) -> None:
    rows: Any = [[0.5] * est.n_features_in_] * 2
    if hasattr(est, "feature_names_in_"):
        rows = needed("pandas", "test").DataFrame(rows, columns=est.feature_names_in_)
    est.predict(rows)


def pack(model: Any) -> bytes:
    return encode(*model.parts())


def resumed(asked: dict[str, Any], path: Path) -> Trainer:
    """The training that is asked for, where its checkpoint left it."""
    trainer = make_trainer(**asked)
    with Checkpoint(path).opened(trainer, resume=True):
        return trainer


def pack_trainer(trainer: Trainer) -> bytes:
    return checkpoint.encode(trainer, run_signature(trainer), checkpoint.about(trainer))


def use_trainer(trainer: Trainer) -> None:
    """Train another epoch, where there is one to come, and keep it."""
    try:
        next(trainer.reports(), None)
    except DivergedError:
        return
    lengths = {name: len(series) for name, series in trainer.history.items()}
    if lengths and {*lengths.values()} != {trainer.epoch}:
        raise IndexError(f"after {trainer.epoch} epochs its history is {lengths} long")
    trainer.model().predict(trainer.data.x.slice(0, 2))
    pack_trainer(trainer)


def resuming(path: Path) -> Kind:
    """The kind of a checkpoint: beside it stands what was asked of `train`."""
    asked = json.loads(path.with_suffix(".json").read_text())["asked"]
    return Kind(partial(resumed, asked), pack_trainer, use_trainer, warns=".*goes on elsewhere")


UNSEEN = ".*of an unknown category"  # "y" is that for nearly all of them
# by the first word of a file's name
KINDS = {
    "model": Kind(load, pack, use_loaded, warns=UNSEEN),
    "table": Kind(load, pack, use_loaded, warns=UNSEEN),
    "classifier": Kind(MLPClassifier.load, pack, use_estimator),
    "regressor": Kind(MLPRegressor.load, pack, use_estimator),
}


def kind_of(path: Path) -> Kind:
    word = path.stem.partition("-")[0]
    return resuming(path) if word == CHECKPOINT else KINDS[word]


def sources(data: Path, folder: Path) -> list[Source]:
    """The good files in `data`, taken from copies in `folder`, as a checkpoint is locked while it
    is read; ValueError where there is none, or one that does not load."""
    found = sorted(path.relative_to(data) for path in data.rglob("*.safetensors"))
    if not found:
        raise ValueError(f"--data {data}: there is no .safetensors file in it")
    copies = Path(shutil.copytree(data, folder / "good"))
    paths = [copies / path for path in found]
    return [source(path.stem, kind_of(path), path) for path in paths]


def one(good: list[Source], seed: int, number: int, path: Path) -> tuple[Case, str]:
    """File `number` of the run of that seed, which is the same for every run and machine."""
    rng = Random(f"{seed}/{number}")
    victim, other = rng.choice(good), rng.choice(good)
    if number % MEASURED:
        return trial(victim, other, rng, path)
    tracemalloc.start()
    try:
        return trial(victim, other, rng, path)
    finally:
        tracemalloc.stop()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The trials, and what came of them."""
    good, path = sources(options.data, folder), folder / "hostile.safetensors"
    answers: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    start, number = time.perf_counter(), 0
    while number < options.count and time.perf_counter() - start < options.minutes * 60:
        if number % 1000 == 0:
            faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)
        try:
            case, answer = one(good, options.seed, number, path)
            answers[answer + (", sealed" if case.sealed else "")] += 1
            changes.update(case.changes)
        except Fault as fault:
            faults.append({"number": number, "fault": str(fault)})
            print(f"--only {number}: {fault}", file=sys.stderr)
            if len(faults) <= KEPT:
                options.keep.mkdir(parents=True, exist_ok=True)
                kept = options.keep / f"fault-{options.seed}-{number}.safetensors"
                kept.write_bytes(path.read_bytes())
        number += 1
    faulthandler.cancel_dump_traceback_later()
    seconds = time.perf_counter() - start
    return {
        "seed": options.seed, "files": number, "seconds": seconds, "sources": len(good),
        "answers": dict(sorted(answers.items())), "changes": dict(sorted(changes.items())),
        "faults": faults,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", default=100_000, type=int, help="files at most (100,000)")
    parser.add_argument("--minutes", default=float("inf"), type=float, help="at most (no limit)")
    parser.add_argument("--seed", default=0, type=int, help="of the changes (0)")
    parser.add_argument("--only", type=int, help="file of that number alone, with its traceback")
    parser.add_argument("--data", default=DATA, type=Path, help="folder of good files (tests/data)")
    parser.add_argument("--keep", default=Path("faults"), type=Path, help="folder (./faults)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk is worn out
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        if options.only is not None:
            path = options.keep / f"fault-{options.seed}-{options.only}.safetensors"
            options.keep.mkdir(parents=True, exist_ok=True)
            try:
                good = sources(options.data, Path(folder))
                print(one(good, options.seed, options.only, path)[1])
            except Fault:
                traceback.print_exc()
                return 1
            return 0
        found = run(options, Path(folder))
    out = sys.stderr if options.json else sys.stdout
    rate = found["files"] / found["seconds"]
    print(
        f"{found['files']:,} hostile files made of {found['sources']}, seed {options.seed}: "
        f"{found['seconds']:.0f} s, {rate:,.0f} a second",
        file=out,
    )
    for what, count in found["answers"].items():
        print(f"{what:<16} {count:>12,}", file=out)
    print(f"{'faults':<16} {len(found['faults']):>12,}", file=out)
    if options.json:
        print(json.dumps(found))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, KeyError, ImportError) as error:
        print(f"fuzz_files.py: {error}", file=sys.stderr)
        sys.exit(2)
