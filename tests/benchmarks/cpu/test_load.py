"""A step beside a busy process."""

import pytest

from benchmarks.cpu.load import busy, loaded
from benchmarks.cpu.problems import Case


def test_the_busy_process_lives_inside_only():
    with busy() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_idle_and_loaded_rounds_and_their_ratios(plan):
    found = loaded(Case("train", "a32"), plan("Ours", rounds=2))
    assert found["shape"] == "a32"
    assert found["idle"] == found["loaded"] == found["one_thread"] == pytest.approx([1e-3] * 2)
    assert found["ratio"] == found["ratio_median"] == 1.0
    assert found["ratio_one_thread"] == found["ratio_median_one_thread"] == 1.0
