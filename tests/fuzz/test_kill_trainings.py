"""Trainings that are killed at random moments; an incomplete checkpoint is noticed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_trainings.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "fit"])
def test_twenty_kills_change_nothing(what):
    result = run("--kills", 20, "--what", what, "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == []
    assert report["kills"] >= 20
    assert report["seen to resume"] == report["lost progress"] >= report["kills"] / 2


@pytest.mark.slow
def test_bad_arguments_are_named():
    result = run("--kills", 0)
    assert result.returncode == 2
    assert "--kills must be at least 1" in result.stderr


@pytest.mark.slow
def test_an_incomplete_checkpoint_is_noticed(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("kill_trainings", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    from xpmlp.storage import checkpoint

    buffers = checkpoint.buffers

    def incomplete(trainer):
        return {name: b for name, b in buffers(trainer).items() if name != "slots.0"}

    monkeypatch.setattr(checkpoint, "buffers", incomplete)
    for cases, name in ((script.CASES, "momentum"), (script.FITS, "fit")):
        monkeypatch.setitem(script.WHAT, "single", {name: cases[name]})
        folder = tmp_path / name
        folder.mkdir()
        assert "differs" in script.kill_trainings(10, 0, folder, "single")["wrong"][0]
