"""The worker's protocol: a request a line, an answer a line."""

import io
import json
import sys

import numpy as np
import pytest

from benchmarks.cpu.problems import Case
from benchmarks.cpu.worker import enough, serve

CASE = Case("train", "a32")


def ask(address, *requests):
    answers = io.StringIO()
    serve(address, io.StringIO("\n".join(map(json.dumps, requests))), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


@pytest.fixture
def fakes(plan, monkeypatch):
    monkeypatch.syspath_prepend(plan("Ours").folder)
    yield
    sys.modules.pop("fakes", None)


@pytest.mark.usefixtures("fakes")
def test_begin_then_rounds(capsys):
    begin = {"do": "begin", "case": CASE, "device": "cpu", "seconds": 0.02}
    count, one, other = ask("fakes:Ours", begin, {"do": "round"}, {"do": "round"})
    assert count == {"count": 10}
    assert one == other == {"seconds": pytest.approx(1e-3)}
    capsys.readouterr()


@pytest.mark.usefixtures("fakes")
def test_check_writes_the_result(tmp_path):
    out = str(tmp_path / "found.npy")
    request = {"do": "check", "case": CASE, "device": "cpu", "rule": "adam_sklearn", "out": out}
    assert ask("fakes:Ours", request) == [{}]
    assert np.load(out).tolist() == [2, 4, 6, 8, 10]


@pytest.mark.usefixtures("fakes")
def test_a_problem_is_an_answer_and_the_next_request_is_heard():
    begin = {"do": "begin", "case": CASE, "device": "cpu", "seconds": 0.02}
    found = ask("fakes:Raising", begin, {"do": "nothing"})
    assert found[0] == {"problem": "ValueError: the first line"}
    assert "nothing" in found[1]["problem"]


def test_enough_passes_for_a_round():
    class Paced:
        def __init__(self, pace):
            self.pace, self.passes = pace, []

        def seconds(self, count):
            self.passes.append(count)
            return count * self.pace

    assert enough(Paced(2.0), 0.5) == 1
    assert 0.25 <= enough(Paced(1e-4), 0.5) * 1e-4 <= 1.0
    slow = Paced(0.0)
    slow.seconds = lambda count: 0.0 if count < 50 else 1.0  # a clock too coarse for few passes
    assert enough(slow, 0.5) == 100
