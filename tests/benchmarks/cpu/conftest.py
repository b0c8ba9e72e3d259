"""Contenders whose results and times are known, in a module that workers import."""

import pytest

from benchmarks.cpu.contest import FLOOR, Contender, Plan

FAKES = """
import os
import numpy as np

class Ours:
    units, pace = 2, 2e-3

    def __init__(self, problem):
        self.problem = problem

    def seconds(self, count):
        print("what a library prints is no answer")
        return count * self.pace

    def result(self, count):
        return (1.0 if self.problem.rule == "adam" else 2.0) * np.arange(1.0, 1.0 + count)

class Theirs(Ours):
    pace = 3e-3

class Faster(Ours):
    pace = 1e-3

class Close(Ours):
    def result(self, count):
        return super().result(count) * (1 + 9e-9)

class Scikit(Ours):
    def result(self, count):
        return 2.0 * np.arange(1.0, 1.0 + count)

class Other(Ours):
    def result(self, count):
        return super().result(count) + 1e-6

class Nothing(Ours):
    def result(self, count):
        return super().result(count) * np.nan

class Longer(Ours):
    def result(self, count):
        return np.append(super().result(count), 0.0)

class Raising(Ours):
    def seconds(self, count):
        raise ValueError("the first line\\nthe second")

class Dying(Ours):
    def seconds(self, count):
        os.write(2, b"out of luck\\n")
        os._exit(3)

class Tiring(Ours):
    calls = 0

    def seconds(self, count):
        self.calls += 1
        if self.calls > 4:
            raise MemoryError("tired")
        return super().seconds(count)
"""


@pytest.fixture
def plan(tmp_path):
    """A function from names of fakes to the plan in which the first is ours."""
    (tmp_path / "fakes.py").write_text(FAKES)

    def made(*names: str, **more) -> Plan:
        entries = [
            FLOOR._replace(address="fakes:Faster") if name == "floor"
            else Contender(name, f"fakes:{name.partition(' ')[0]}",
                           "adam_sklearn" if "sklearn" in name else "adam")
            for name in names
        ]  # fmt: skip
        return Plan({"train": entries}, folder=tmp_path, **{"rounds": 2, "seconds": 0.004} | more)

    return made
