"""`xpmlp doctor`: what it says, and when it fails."""

import json

import pytest

from xpmlp import GPUUnavailableError, __version__
from xpmlp.cli.main import main
from xpmlp.devices.words import place_for


def test_it_says_what_this_machine_has(capsys, monkeypatch):
    monkeypatch.delenv("XPMLP_DEVICE", raising=False)
    assert main(["doctor", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"xpmlp {__version__}, Python ")
    for word in ("numpy", "BLAS: ", "GPU 0: "):
        assert word in out


def test_json_is_one_object(capsys):
    assert main(["doctor", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["xpmlp"] == __version__
    assert set(found) >= {"python", "system", "packages", "blas", "gpu"}
    assert isinstance(found["gpu"]["usable"], bool)


def test_what_fails_is_said_with_its_mend(capsys):
    main(["doctor", "--device", "cpu"])
    out = capsys.readouterr().out
    assert out.count("failed: ") == out.count("to fix it: ")
    assert ("GPU 0: usable" in out) == ("failed: " not in out)


@pytest.mark.parametrize("word", ["gqu", "gpu:x", "gpu:-1"])
def test_a_device_misspelt_is_one_line(word, capsys):
    assert main(["doctor", "--device", word]) == 2
    err = capsys.readouterr().err
    assert err.startswith("xpmlp doctor: ")
    assert err.count("\n") == 1
    assert word in err


def test_a_gpu_asked_for_and_not_there_exits_with_two(capsys):
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
    ("why", "line"),
    [
        (None, "training steps are recorded as a CUDA graph and replayed"),
        ("ValueError: no", "training steps run one by one: recording them failed: ValueError: no"),
    ],
)
def test_the_way_of_training_on_a_usable_gpu_is_said(why, line, capsys, monkeypatch):
    card = {"name": "a card", "driver": 1, "runtime": 2, "bytes_free": 0, "bytes": 2**30}
    passed = [{"stage": 1, "doing": "import CuPy", "problem": None, "mend": ""}]
    found = {"index": 0, "usable": True, "checks": passed, "recording": why} | card
    monkeypatch.setattr("xpmlp.devices.doctor.gpu", lambda index: found)
    assert main(["doctor", "--device", "cpu"]) == 0
    assert f"  {line}\n" in capsys.readouterr().out
