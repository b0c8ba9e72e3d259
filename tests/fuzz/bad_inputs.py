#!/usr/bin/env python
"""What comes of hostile inputs, ours beside scikit-learn's MLP.

python tests/fuzz/bad_inputs.py
python tests/fuzz/bad_inputs.py --only sparse --json
"""

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from fuzz.inputs.case import (
    ABSENT,
    HANG,
    NAMED,
    RIGHT,
    VERDICTS,
)
from fuzz.inputs.runs import TRIALS
from fuzz.inputs.surfaces import THEIRS, AbsentError

OURS = "xpmlp"
WHO = (OURS, THEIRS)
FORK = multiprocessing.get_context("fork")  # the imports are done once
Verdict = tuple[str, str]  # and why it is not what was wanted


def answering(pipe: Connection) -> None:
    """Send a verdict for every (who, number of a trial) that comes."""
    while True:
        who, number = pipe.recv()
        try:
            trial = TRIALS[number]
            pipe.send(trial.tried() if who == OURS else trial.theirs())
        except AbsentError:
            pipe.send((ABSENT, ""))
        except ModuleNotFoundError as error:
            pipe.send((ABSENT, f"{error.name} is not installed"))


class Worker:
    """A process that tries inputs, and another one after it was ended by a hang."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start()

    def start(self) -> None:
        self.pipe, there = FORK.Pipe()
        self.child = FORK.Process(target=answering, args=(there,), daemon=True)
        self.child.start()
        there.close()

    def tried(self, who: str, number: int) -> Verdict:
        self.pipe.send((who, number))
        try:
            if self.pipe.poll(self.seconds):
                found: Verdict = self.pipe.recv()
                return found
            ended = f"after {self.seconds:g} s"
        except EOFError:
            ended = "the process died"
        self.stop()
        self.start()
        return HANG, ended

    def stop(self) -> None:
        self.child.kill()
        self.child.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="inputs whose name has this word")
    parser.add_argument("--seconds", default=60.0, type=float, help="limit of each (60)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout
    chosen = [number for number, trial in enumerate(TRIALS) if options.only in trial.id]
    if not chosen:
        parser.error(f"no input has {options.only!r} in its name")
    totals: dict[str, Counter[str]] = {who: Counter() for who in WHO}
    rows, wrong, worker = [], 0, Worker(options.seconds)
    print(f"{'':<72} {OURS:<16} {THEIRS}", file=out)
    for number in chosen:
        trial = TRIALS[number]
        (ours, why), (theirs, _) = (worker.tried(who, number) for who in WHO)
        totals[OURS][ours] += 1
        totals[THEIRS][theirs] += 1
        # what is made by a library that is not installed cannot be tried
        wrong += ours != ABSENT and (bool(why) or ours not in (NAMED, RIGHT))
        rows.append({"id": trial.id, OURS: ours, THEIRS: theirs, "why": why})
        note = f"  ({why.splitlines()[0]:.160})" if why else ""
        print(f"{trial.id:<72.72} {ours:<16} {theirs}{note}", file=out)
    worker.stop()
    for verdict in VERDICTS:
        ours, theirs = (totals[who][verdict] for who in WHO)
        print(f"{verdict:<72} {ours:<16,} {theirs:,}", file=out)
    if options.json:
        print(json.dumps({"totals": totals, "wrong": wrong, "rows": rows}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
