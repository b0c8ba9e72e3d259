"""The worker's protocol: one line per request, one per answer."""

import io
import json
import sys

import numpy as np
import pytest

from benchmarks.cpu.problems import Case
from benchmarks.cpu.worker import calibrate, serve

CASE = Case("train", "a32")


def answers_of(address, *requests):
    answers = io.StringIO()
    serve(address, io.StringIO("\n".join(map(json.dumps, requests))), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


@pytest.fixture
def fakes(plan, monkeypatch):
    monkeypatch.syspath_prepend(plan("Ours").folder)
    yield
    sys.modules.pop("fakes", None)


@pytest.mark.usefixtures("fakes")
def test_begin_returns_a_count_and_rounds_return_seconds(capsys):
    begin = {"do": "begin", "case": CASE, "device": "cpu", "seconds": 0.02}
    count, first, second = answers_of("fakes:Ours", begin, {"do": "round"}, {"do": "round"})
    assert count == {"count": 10}
    assert first == second == {"seconds": pytest.approx(1e-3)}
    capsys.readouterr()


@pytest.mark.usefixtures("fakes")
def test_check_writes_the_result(tmp_path):
    out = str(tmp_path / "result.npy")
    request = {"do": "check", "case": CASE, "device": "cpu", "rule": "adam_sklearn", "out": out}
    assert answers_of("fakes:Ours", request) == [{}]
    assert np.load(out).tolist() == [2, 4, 6, 8, 10]


@pytest.mark.usefixtures("fakes")
def test_a_failure_is_answered_and_the_next_request_served():
    begin = {"do": "begin", "case": CASE, "device": "cpu", "seconds": 0.02}
    answers = answers_of("fakes:Raising", begin, {"do": "nothing"})
    assert answers[0] == {"problem": "ValueError: the first line"}
    assert "nothing" in answers[1]["problem"]


def test_calibrate_counts_the_passes_of_a_round():
    class Fake:
        def __init__(self, seconds_per_pass):
            self.seconds_per_pass = seconds_per_pass

        def seconds(self, count):
            return count * self.seconds_per_pass

    assert calibrate(Fake(2.0), 0.5) == 1
    assert 0.25 <= calibrate(Fake(1e-4), 0.5) * 1e-4 <= 1.0
    coarse = Fake(0.0)
    coarse.seconds = lambda count: 0.0 if count < 50 else 1.0  # a coarse clock
    assert calibrate(coarse, 0.5) == 100
