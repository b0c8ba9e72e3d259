"""Trainings that are killed at random moments; and a checkpoint that forgets is noticed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_trainings.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(*words):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["train", "fit"])
def test_twenty_kills_change_nothing(what):
    done = run("--kills", 20, "--what", what, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["kills"] >= 20
    assert found["seen to resume"] == found["lost progress"] >= found["kills"] / 2


def test_bad_arguments_are_named():
    done = run("--kills", 0)
    assert done.returncode == 2
    assert "--kills must be at least 1" in done.stderr


@pytest.mark.slow
def test_a_checkpoint_that_forgets_is_noticed(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("kill_trainings", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    from xpmlp.storage import checkpoint

    buffers = checkpoint.buffers

    def forgetful(trainer):
        return {name: b for name, b in buffers(trainer).items() if name != "slots.0"}

    monkeypatch.setattr(checkpoint, "buffers", forgetful)
    for cases, name in ((script.CASES, "momentum"), (script.FITS, "fit")):
        monkeypatch.setitem(script.WHAT, "alone", {name: cases[name]})
        folder = tmp_path / name
        folder.mkdir()
        assert "differs" in script.kill_trainings(10, 0, folder, "alone")["wrong"][0]
