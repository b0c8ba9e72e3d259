"""Error messages if part of a GPU's software is missing; most tests need no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import standin

from benchmarks.gpu.checklist import machine
from benchmarks.gpu.checklist.check import FAULT, NOTE, OK

(ERROR_PATHS,) = [check for check in machine.CHECKS if check.name == "error-paths"]


def test_hidden_libraries_are_not_found(optional):
    """The code that hides a library makes CuPy or nvmath fail in a new process."""
    optional("cupy")
    hidden = {missing.name: missing.before for missing in machine.MISSING if missing.before}
    imports = {
        "no nvmath": "import nvmath",
        "no NVRTC": "import cupy; cupy.cuda.nvrtc.getVersion()",
    }
    for name, code in imports.items():
        process = subprocess.run(
            [sys.executable, "-c", hidden[name] + code], capture_output=True, text=True, check=False
        )
        assert process.returncode == 1
        assert "hidden" in process.stderr or "nvmath" in process.stderr


@pytest.mark.parametrize("missing", machine.MISSING, ids=lambda missing: missing.name)
def test_a_process_without_a_gpu_names_a_stage(missing, optional):
    if standin.gpus():
        pytest.skip("there is a GPU here; see the next test")
    optional("cupy")
    message = machine.error_message(missing, "gpu")
    assert message.startswith("GPUUnavailableError: no usable GPU: stage ")


@pytest.fixture
def children(gpu, monkeypatch):
    """Child processes have a GPU: the machine's own if it has one, else the stand-in."""
    if standin.gpus() == 0:
        monkeypatch.syspath_prepend(standin.SITE)
        monkeypatch.setenv(standin.PLUGGED, "1")


@pytest.mark.slow
def test_processes_with_a_gpu_name_their_stages(check, children):
    row = check(ERROR_PATHS)
    assert row.verdict in (OK, NOTE), row


@pytest.mark.parametrize(
    ("shift", "only", "verdict"),
    [(0, None, OK), (1, "no nvmath", FAULT), (1, "no cuBLAS", NOTE)],
)
def test_detects_a_message_with_the_wrong_stage(shift, only, verdict, check, monkeypatch):
    def error_message(missing, word):
        stage = missing.stage + (shift if missing.name == only else 0)
        start = f"GPUUnavailableError: no usable GPU: stage {stage} of 4, this"
        return f"{start}, failed. To mend it: that"

    monkeypatch.setattr(machine, "error_message", error_message)
    row = check(ERROR_PATHS)
    assert row.verdict == verdict
    assert row.detail.startswith(only or "")


def test_commit_marks_a_dirty_checkout(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    assert machine.commit(tmp_path / "nowhere") is None
    git("init")
    config = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    Path(tmp_path / "file").write_text("one")
    git("add", "file")
    git(*config, "commit", "-m", "one")
    clean = machine.commit(tmp_path)
    assert len(clean) == 40
    Path(tmp_path / "file").write_text("two")
    assert machine.commit(tmp_path) == f"{clean}-dirty"
