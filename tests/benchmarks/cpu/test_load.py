"""Timing steps next to a busy process."""

import pytest

from benchmarks.cpu.load import busy_process, measure_loaded
from benchmarks.cpu.problems import Case


def test_the_busy_process_ends_with_its_context():
    with busy_process() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_result_has_rounds_and_their_ratios(plan):
    result = measure_loaded(Case("train", "a32"), plan("Ours", rounds=2))
    assert result["shape"] == "a32"
    assert result["idle"] == result["loaded"] == result["one_thread"] == pytest.approx([1e-3] * 2)
    assert result["ratio"] == result["ratio_median"] == 1.0
    assert result["ratio_one_thread"] == result["ratio_median_one_thread"] == 1.0
