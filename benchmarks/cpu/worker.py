"""A contender's process: `python -m benchmarks.cpu.worker MODULE:NAME`.

Requests and answers are one JSON object per line; the process ends with its input.

    {"do": "check", "case": [...], "device": "cpu", "rule": "adam", "out": "FILE.npy"}  ->  {}
    {"do": "begin", "case": [...], "device": "cpu", "seconds": 0.5}  ->  {"count": 40}
    {"do": "round"}                                                  ->  {"seconds": 1.2e-05}

A "round" runs for about the seconds of "begin" and answers with the seconds per unit: a step, or
a row of a prediction. A failure is answered with {"problem": "its first line"}.
"""

import json
import math
import os
import sys
from importlib import import_module
from typing import Any, Protocol, TextIO

import numpy as np

from benchmarks.cpu.problems import CHECK_EPOCHS, Case, check_problem, timing_problem


class Contender(Protocol):
    """What NAME returns for a Problem."""

    units: int  # per pass: steps of an epoch times members, or rows of a call

    def seconds(self, count: int) -> float:
        """Time of `count` passes (epochs, or calls of predict) without any set-up."""

    def result(self, count: int) -> np.ndarray:
        """For a new contender: its weights (P,) after `count` epochs, or its predictions."""


def calibrate(contender: Contender, seconds: float) -> int:
    """How many passes take about this many seconds, measured after a pass for any set-up."""
    contender.seconds(1)
    count = 1
    while (elapsed := contender.seconds(count)) < seconds / 2:
        count = max(count + 1, min(10 * count, math.ceil(count * seconds / max(elapsed, 1e-9))))
    return count


class Session:
    """A contender and the handlers of its requests."""

    def __init__(self, address: str) -> None:
        self.module, _, self.name = address.partition(":")
        self.contender: Contender
        self.count = 0

    def make(self, problem: Any) -> Contender:
        contender: Contender = getattr(import_module(self.module), self.name)(problem)
        return contender

    def begin(self, case: list[Any], device: str, seconds: float) -> dict[str, Any]:
        self.contender = self.make(timing_problem(Case(*case), device))
        self.count = calibrate(self.contender, seconds)
        return {"count": self.count}

    def round(self) -> dict[str, Any]:
        seconds = self.contender.seconds(self.count)
        return {"seconds": seconds / (self.count * self.contender.units)}

    def check(self, case: list[Any], device: str, rule: str, out: str) -> dict[str, Any]:
        problem = check_problem(Case(*case), device, rule)
        np.save(out, self.make(problem).result(CHECK_EPOCHS))
        return {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request.pop("do")
        answer: dict[str, Any] = getattr(self, action)(**request)
        return answer


def serve(address: str, requests: TextIO, answers: TextIO) -> None:
    session = Session(address)
    for line in requests:
        try:
            answer = session.answer(json.loads(line))
        except Exception as error:  # any failure becomes a row of the table
            message = str(error).strip().partition("\n")[0]
            answer = {"problem": f"{type(error).__name__}: {message}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    serve(sys.argv[1], sys.stdin, answers)
