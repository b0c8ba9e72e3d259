"""Fake contenders with known results and times, in a module that workers import."""

import pytest

from benchmarks.cpu.contest import FLOOR, Contender, Plan

FAKES = """
import os
import numpy as np

class Ours:
    units, seconds_per_pass = 2, 2e-3

    def __init__(self, problem):
        self.problem = problem

    def seconds(self, count):
        print("output of a library")
        return count * self.seconds_per_pass

    def result(self, count):
        return (1.0 if self.problem.rule == "adam" else 2.0) * np.arange(1.0, 1.0 + count)

class Slower(Ours):
    seconds_per_pass = 3e-3

class Faster(Ours):
    seconds_per_pass = 1e-3

class Close(Ours):
    def result(self, count):
        return super().result(count) * (1 + 9e-9)

class SklearnAdam(Ours):
    def result(self, count):
        return 2.0 * np.arange(1.0, 1.0 + count)

class Different(Ours):
    def result(self, count):
        return super().result(count) + 1e-6

class NotANumber(Ours):
    def result(self, count):
        return super().result(count) * np.nan

class WrongShape(Ours):
    def result(self, count):
        return np.append(super().result(count), 0.0)

class Raising(Ours):
    def seconds(self, count):
        raise ValueError("the first line\\nthe second")

class Exiting(Ours):
    def seconds(self, count):
        os.write(2, b"fatal error\\n")
        os._exit(3)

class FailingLater(Ours):
    calls = 0

    def seconds(self, count):
        self.calls += 1
        if self.calls > 4:
            raise MemoryError("too many passes")
        return super().seconds(count)
"""


@pytest.fixture
def plan(tmp_path):
    """A function from names of fakes to a plan with them; the first is ours."""
    (tmp_path / "fakes.py").write_text(FAKES)

    def make(*names: str, **more) -> Plan:
        entries = [
            FLOOR._replace(address="fakes:Faster") if name == "floor"
            else Contender(name, f"fakes:{name.partition(' ')[0]}",
                           "adam_sklearn" if "sklearn" in name else "adam")
            for name in names
        ]  # fmt: skip
        return Plan({"train": entries}, folder=tmp_path, **{"rounds": 2, "seconds": 0.004} | more)

    return make
