#!/usr/bin/env python
"""The outcomes of hostile inputs, of xpmlp and of scikit-learn's MLP.

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
from fuzz.inputs.surfaces import SKLEARN, AbsentError

OURS = "xpmlp"
LIBRARIES = (OURS, SKLEARN)
FORK = multiprocessing.get_context("fork")  # imports happen only once
Verdict = tuple[str, str]  # and the reason why it is not as expected


def send_verdicts(pipe: Connection) -> None:
    """Send a verdict for every (library, number of a trial) that is received."""
    while True:
        library, number = pipe.recv()
        try:
            trial = TRIALS[number]
            pipe.send(trial.run() if library == OURS else trial.run_sklearn())
        except AbsentError:
            pipe.send((ABSENT, ""))
        except ModuleNotFoundError as error:
            pipe.send((ABSENT, f"{error.name} is not installed"))


class Worker:
    """A process that tries inputs; it is replaced after a hang."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start()

    def start(self) -> None:
        self.pipe, child_pipe = FORK.Pipe()
        self.child = FORK.Process(target=send_verdicts, args=(child_pipe,), daemon=True)
        self.child.start()
        child_pipe.close()

    def run(self, library: str, number: int) -> Verdict:
        self.pipe.send((library, number))
        try:
            if self.pipe.poll(self.seconds):
                verdict: Verdict = self.pipe.recv()
                return verdict
            reason = f"after {self.seconds:g} s"
        except EOFError:
            reason = "the process died"
        self.stop()
        self.start()
        return HANG, reason

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
    numbers = [number for number, trial in enumerate(TRIALS) if options.only in trial.id]
    if not numbers:
        parser.error(f"no input has {options.only!r} in its name")
    totals: dict[str, Counter[str]] = {library: Counter() for library in LIBRARIES}
    rows, wrong, worker = [], 0, Worker(options.seconds)
    print(f"{'':<72} {OURS:<16} {SKLEARN}", file=out)
    for number in numbers:
        trial = TRIALS[number]
        (our_verdict, reason), (sklearn_verdict, _) = (
            worker.run(library, number) for library in LIBRARIES
        )
        totals[OURS][our_verdict] += 1
        totals[SKLEARN][sklearn_verdict] += 1
        # inputs made by a library that is not installed cannot be tried
        wrong += our_verdict != ABSENT and (bool(reason) or our_verdict not in (NAMED, RIGHT))
        rows.append({"id": trial.id, OURS: our_verdict, SKLEARN: sklearn_verdict, "why": reason})
        note = f"  ({reason.splitlines()[0]:.160})" if reason else ""
        print(f"{trial.id:<72.72} {our_verdict:<16} {sklearn_verdict}{note}", file=out)
    worker.stop()
    for verdict in VERDICTS:
        our_verdict, sklearn_verdict = (totals[library][verdict] for library in LIBRARIES)
        print(f"{verdict:<72} {our_verdict:<16,} {sklearn_verdict:,}", file=out)
    if options.json:
        print(json.dumps({"totals": totals, "wrong": wrong, "rows": rows}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
