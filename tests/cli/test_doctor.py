"""`xpmlp doctor`: its output and its exit codes."""

import json

import pytest

from xpmlp import GPUUnavailableError, __version__
from xpmlp.cli.main import main
from xpmlp.devices.words import place_for


def test_prints_versions_and_devices(capsys, monkeypatch):
    monkeypatch.delenv("XPMLP_DEVICE", raising=False)
    assert main(["doctor", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"xpmlp {__version__}, Python ")
    for word in ("numpy", "BLAS: ", "GPU 0: "):
        assert word in out


def test_json_is_one_object(capsys):
    assert main(["doctor", "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["xpmlp"] == __version__
    assert set(report) >= {"python", "system", "packages", "blas", "gpu"}
    assert isinstance(report["gpu"]["usable"], bool)


def test_a_failed_check_is_printed_with_its_fix(capsys):
    main(["doctor", "--device", "cpu"])
    out = capsys.readouterr().out
    assert out.count("failed: ") == out.count("to fix it: ")
    assert ("GPU 0: usable" in out) == ("failed: " not in out)


@pytest.mark.parametrize("device", ["gqu", "gpu:x", "gpu:-1"])
def test_a_misspelt_device_is_a_one_line_error(device, capsys):
    assert main(["doctor", "--device", device]) == 2
    err = capsys.readouterr().err
    assert err.startswith("xpmlp doctor: ")
    assert err.count("\n") == 1
    assert device in err


def test_a_missing_gpu_exits_with_two(capsys):
    try:
        place_for("gpu")
    except GPUUnavailableError:
        assert main(["doctor", "--device", "gpu"]) == 2
        out, err = capsys.readouterr()
        assert "GPU 0: not usable" in out
        assert err.startswith("xpmlp doctor: no usable GPU: stage ")
        assert err.count("\n") == 1
    else:
        assert main(["doctor", "--device", "gpu"]) == 0


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (None, "training steps are recorded as a CUDA graph and replayed"),
        ("ValueError: no", "training steps run one by one: recording them failed: ValueError: no"),
    ],
)
def test_the_executor_on_a_usable_gpu_is_printed(problem, line, capsys, monkeypatch):
    card = {"name": "a card", "driver": 1, "runtime": 2, "bytes_free": 0, "bytes": 2**30}
    checks = [{"stage": 1, "doing": "import CuPy", "problem": None, "mend": ""}]
    report = {"index": 0, "usable": True, "checks": checks, "recording": problem} | card
    monkeypatch.setattr("xpmlp.devices.doctor.gpu", lambda index: report)
    assert main(["doctor", "--device", "cpu"]) == 0
    assert f"  {line}\n" in capsys.readouterr().out
