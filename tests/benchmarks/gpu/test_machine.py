"""What is said where something of a GPU's machine is missing, which can be seen without one."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import standin

from benchmarks.gpu.checklist import machine
from benchmarks.gpu.checklist.check import FAULT, NOTE, OK

(PATHS,) = [check for check in machine.CHECKS if check.name == "error-paths"]


def test_hidden_things_are_hidden(optional):
    """Each way of hiding a library makes CuPy or nvmath miss it, in a fresh process."""
    optional("cupy")
    hidden = {missing.name: missing.before for missing in machine.MISSING if missing.before}
    asks = {
        "no nvmath": "import nvmath",
        "no NVRTC": "import cupy; cupy.cuda.nvrtc.getVersion()",
    }
    for name, ask in asks.items():
        done = subprocess.run(
            [sys.executable, "-c", hidden[name] + ask], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "hidden" in done.stderr or "nvmath" in done.stderr


@pytest.mark.parametrize("missing", machine.MISSING, ids=lambda missing: missing.name)
def test_a_fresh_process_without_a_gpu_names_a_stage(missing, optional):
    if standin.gpus():
        pytest.skip("there is a GPU here, which the next test is for")
    optional("cupy")
    said = machine.answer(missing, "gpu")
    assert said.startswith("GPUUnavailableError: no usable GPU: stage ")


@pytest.fixture
def children(gpu, monkeypatch):
    """Fresh processes have a GPU: the machine's own where it has one, else the stand-in."""
    if standin.gpus() == 0:
        monkeypatch.syspath_prepend(standin.SITE)
        monkeypatch.setenv(standin.PLUGGED, "1")


@pytest.mark.slow
def test_fresh_processes_with_a_gpu_name_their_stages(check, children):
    row = check(PATHS)
    assert row.verdict in (OK, NOTE), row


@pytest.mark.parametrize(
    ("shift", "only", "verdict"),
    [(0, None, OK), (1, "no nvmath", FAULT), (1, "no cuBLAS", NOTE)],
)
def test_a_stage_that_is_not_named_is_seen(shift, only, verdict, check, monkeypatch):
    def answer(missing, word):
        stage = missing.stage + (shift if missing.name == only else 0)
        start = f"GPUUnavailableError: no usable GPU: stage {stage} of 4, this"
        return f"{start}, failed. To mend it: that"

    monkeypatch.setattr(machine, "answer", answer)
    row = check(PATHS)
    assert row.verdict == verdict
    assert row.detail.startswith(only or "")


def test_the_commit_is_the_checkouts(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    assert machine.commit(tmp_path / "nowhere") is None
    git("init")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    Path(tmp_path / "file").write_text("one")
    git("add", "file")
    git(*who, "commit", "-m", "one")
    clean = machine.commit(tmp_path)
    assert len(clean) == 40
    Path(tmp_path / "file").write_text("two")
    assert machine.commit(tmp_path) == f"{clean}-dirty"
