"""A contender's own process: `python -m benchmarks.cpu.worker MODULE:NAME`.

Requests come as one JSON object a line, answers go back so; the end of the input ends it.

    {"do": "check", "case": [...], "device": "cpu", "rule": "adam", "out": "FILE.npy"}  ->  {}
    {"do": "begin", "case": [...], "device": "cpu", "seconds": 0.5}  ->  {"count": 40}
    {"do": "round"}                                                  ->  {"seconds": 1.2e-05}

A "round" works for about the seconds that "begin" was given and answers with those of one unit:
a step, or a row of a prediction. What fails is answered with {"problem": "its one line"}.
"""

import json
import math
import os
import sys
from importlib import import_module
from typing import Any, Protocol, TextIO

import numpy as np

from benchmarks.cpu.problems import CHECK_EPOCHS, Case, compared, timed


class Contender(Protocol):
    """What NAME makes of a Problem."""

    units: int  # of a pass: the steps of an epoch, for every member; the rows of a call

    def seconds(self, count: int) -> float:
        """What so many passes take (an epoch each, or a call of predict), without any set-up."""

    def result(self, count: int) -> np.ndarray:
        """Of a fresh contender: its weights (P,) after so many epochs, or its predictions."""


def enough(contender: Contender, seconds: float) -> int:
    """How many passes take about that long; whatever is made once is made before."""
    contender.seconds(1)
    count = 1
    while (took := contender.seconds(count)) < seconds / 2:
        count = max(count + 1, min(10 * count, math.ceil(count * seconds / max(took, 1e-9))))
    return count


class Session:
    """One contender, through all the requests."""

    def __init__(self, address: str) -> None:
        self.module, _, self.name = address.partition(":")
        self.contender: Contender
        self.count = 0

    def make(self, problem: Any) -> Contender:
        made: Contender = getattr(import_module(self.module), self.name)(problem)
        return made

    def begin(self, case: list[Any], device: str, seconds: float) -> dict[str, Any]:
        self.contender = self.make(timed(Case(*case), device))
        self.count = enough(self.contender, seconds)
        return {"count": self.count}

    def round(self) -> dict[str, Any]:
        seconds = self.contender.seconds(self.count)
        return {"seconds": seconds / (self.count * self.contender.units)}

    def check(self, case: list[Any], device: str, rule: str, out: str) -> dict[str, Any]:
        np.save(out, self.make(compared(Case(*case), device, rule)).result(CHECK_EPOCHS))
        return {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        what = request.pop("do")
        found: dict[str, Any] = getattr(self, what)(**request)
        return found


def serve(address: str, requests: TextIO, answers: TextIO) -> None:
    session = Session(address)
    for line in requests:
        try:
            answer = session.answer(json.loads(line))
        except Exception as error:  # whatever it is, the table has a row for it
            first = str(error).strip().partition("\n")[0]
            answer = {"problem": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(sys.argv[1], sys.stdin, private)
