#!/usr/bin/env python
"""Hostile files: every one must load correctly or be refused in a ValueError with its path.

    python tests/fuzz/fuzz_files.py                         # 100,000 files made from tests/data
    python tests/fuzz/fuzz_files.py --minutes 60 --seed 1   # as many as time allows
    python tests/fuzz/fuzz_files.py --seed 0 --only 4711    # one of them, with its traceback

Exit status: 0 no fault, 1 a fault, 2 wrong arguments. The first files with a fault are kept under
--keep, and named. A load that hangs ends the process with a traceback.
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
from xpmlp.devices.extras import import_extra  # noqa: E402
from xpmlp.storage import checkpoint  # noqa: E402
from xpmlp.storage.model_file import encode  # noqa: E402
from xpmlp.storage.signature import run_signature  # noqa: E402
from xpmlp.tabular.model import TableModel  # noqa: E402
from xpmlp.training.train import make_trainer  # noqa: E402
from xpmlp.training.trainer import Trainer  # noqa: E402

DATA = TESTS / "data"
HANG = 300  # seconds for 1,000 files
MEASURED = 50  # the memory of one in so many loads is measured
KEPT = 20  # files with a fault
CHECKPOINT = "checkpoint"  # the first word of the name of such a file


def use_network(model: Any) -> None:
    X = [[0.5] * model.spec.n_in] * 2
    model.predict_proba(X)
    model.predict(X)


def use_table(model: TableModel) -> None:
    cells = {"number": [0.5, None], "date": [0.0, None], "category": ["y", None]}
    frame = {column.name: cells[column.kind] for column in model.columns}
    model.predict(frame)
    model.predict_proba(frame)


def use_loaded(model: Any) -> None:
    """Use the result of `load` for any model file, including that of an estimator."""
    use_table(model) if isinstance(model, TableModel) else use_network(model)


def use_estimator(est: Any) -> None:
    rows: Any = [[0.5] * est.n_features_in_] * 2
    if hasattr(est, "feature_names_in_"):
        rows = import_extra("pandas", "test").DataFrame(rows, columns=est.feature_names_in_)
    est.predict(rows)


def pack(model: Any) -> bytes:
    return encode(*model._parts())


def resume(arguments: dict[str, Any], path: Path) -> Trainer:
    """The trainer of these arguments, resumed from its checkpoint."""
    trainer = make_trainer(**arguments)
    with Checkpoint(path).opened(trainer, resume=True):
        return trainer


def pack_trainer(trainer: Trainer) -> bytes:
    return checkpoint.encode(trainer, run_signature(trainer), checkpoint.environment(trainer))


def use_trainer(trainer: Trainer) -> None:
    """Train another epoch, if one is left, and pack the result."""
    try:
        next(trainer.reports(), None)
    except DivergedError:
        return
    lengths = {name: len(series) for name, series in trainer.history.items()}
    if lengths and {*lengths.values()} != {trainer.epoch}:
        raise IndexError(f"after {trainer.epoch} epochs its history is {lengths} long")
    trainer.model().predict(trainer.data.x.slice(0, 2))
    pack_trainer(trainer)


def checkpoint_kind(path: Path) -> Kind:
    """The kind of a checkpoint; a JSON file next to it has the arguments of `train`."""
    arguments = json.loads(path.with_suffix(".json").read_text())["asked"]
    return Kind(
        partial(resume, arguments), pack_trainer, use_trainer, warns=".*in another environment"
    )


UNSEEN = ".*of an unknown category"  # "y" is unknown to nearly all of them
# by the first word of the name of a file
KINDS = {
    "model": Kind(load, pack, use_loaded, warns=UNSEEN),
    "table": Kind(load, pack, use_loaded, warns=UNSEEN),
    "classifier": Kind(MLPClassifier.load, pack, use_estimator),
    "regressor": Kind(MLPRegressor.load, pack, use_estimator),
}


def kind_of(path: Path) -> Kind:
    word = path.stem.partition("-")[0]
    return checkpoint_kind(path) if word == CHECKPOINT else KINDS[word]


def sources(data: Path, folder: Path) -> list[Source]:
    """The good files in `data`, as copies in `folder`, because a checkpoint is locked while it is
    read; ValueError if there is none, or one that does not load."""
    relative = sorted(path.relative_to(data) for path in data.rglob("*.safetensors"))
    if not relative:
        raise ValueError(f"--data {data}: there is no .safetensors file in it")
    copies = Path(shutil.copytree(data, folder / "good"))
    paths = [copies / path for path in relative]
    return [source(path.stem, kind_of(path), path) for path in paths]


def run_trial(good: list[Source], seed: int, number: int, path: Path) -> tuple[Case, str]:
    """File `number` of a run with that seed, which is the same on every machine."""
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
    """Run the trials and count their outcomes."""
    good, path = sources(options.data, folder), folder / "hostile.safetensors"
    answers: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    start, number = time.perf_counter(), 0
    while number < options.count and time.perf_counter() - start < options.minutes * 60:
        if number % 1000 == 0:
            faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)
        try:
            case, answer = run_trial(good, options.seed, number, path)
            answers[answer + (", sealed" if case.sealed else "")] += 1
            changes.update(case.changes)
        except Fault as fault:
            faults.append({"number": number, "fault": str(fault)})
            print(f"--only {number}: {fault}", file=sys.stderr)
            if len(faults) <= KEPT:
                options.keep.mkdir(parents=True, exist_ok=True)
                copy = options.keep / f"fault-{options.seed}-{number}.safetensors"
                copy.write_bytes(path.read_bytes())
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
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # to spare the disk
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        if options.only is not None:
            path = options.keep / f"fault-{options.seed}-{options.only}.safetensors"
            options.keep.mkdir(parents=True, exist_ok=True)
            try:
                good = sources(options.data, Path(folder))
                print(run_trial(good, options.seed, options.only, path)[1])
            except Fault:
                traceback.print_exc()
                return 1
            return 0
        result = run(options, Path(folder))
    out = sys.stderr if options.json else sys.stdout
    rate = result["files"] / result["seconds"]
    print(
        f"{result['files']:,} hostile files made of {result['sources']}, seed {options.seed}: "
        f"{result['seconds']:.0f} s, {rate:,.0f} a second",
        file=out,
    )
    for outcome, count in result["answers"].items():
        print(f"{outcome:<16} {count:>12,}", file=out)
    print(f"{'faults':<16} {len(result['faults']):>12,}", file=out)
    if options.json:
        print(json.dumps(result))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, KeyError, ImportError) as error:
        print(f"fuzz_files.py: {error}", file=sys.stderr)
        sys.exit(2)
