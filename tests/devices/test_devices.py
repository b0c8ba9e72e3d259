"""Device words, the same everywhere: `gpu` never falls back, `auto` may."""

import re
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from xpmlp import GPUUnavailableError, train
from xpmlp.devices.namespace import CPU
from xpmlp.devices.words import WORDS, place_for
from xpmlp.names import nearest


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    """Ignore the device that the caller's environment selects."""
    monkeypatch.delenv("XPMLP_DEVICE", raising=False)


def gpu_problem():
    """Why there is no GPU here, or None."""
    try:
        place_for("gpu")
    except GPUUnavailableError as error:
        return str(error)
    return None


@pytest.fixture
def no_gpu():
    if gpu_problem() is None:
        pytest.skip("there is a GPU here")


@pytest.fixture
def gpu(place_named):
    place_named("cupy")


def test_cpu_is_numpy():
    assert place_for("cpu") is CPU
    assert place_for("cpu").xp is np


@pytest.mark.parametrize("word", ["gpu", "gpu:0", "cuda", "cuda:0", "gpu:7"])
def test_gpu_raises_without_a_gpu(no_gpu, word):
    if find_spec("cupy") is None:
        pytest.skip("cupy is not installed: stage 1 is tested below")
    with pytest.raises(GPUUnavailableError) as caught:
        place_for(word)
    message = str(caught.value)
    assert re.search("stage 2 of 4, count.* GPUs, failed", message)
    assert "To mend it: " in message
    assert "\n" not in message


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    with pytest.raises(GPUUnavailableError, match=r"stage 1 of 4, import.* CuPy.*pip install"):
        place_for("gpu")
    assert place_for("auto") is CPU


def test_auto_falls_back_to_the_cpu(no_gpu):
    assert place_for("auto") is CPU


def test_auto_takes_the_gpu(gpu):
    assert place_for("auto").name == "gpu:0"
    assert place_for("cuda").name == place_for("gpu").name == "gpu:0"
    with pytest.raises(GPUUnavailableError, match=r"gpu:4096 was asked for"):
        place_for("gpu:4096")


@pytest.mark.parametrize(
    "word",
    [
        "",
        "cqu",
        "gpus",
        "gpu:",
        "gpu:-1",
        "gpu:1.5",
        "gpu:a",
        "gpu:0:1",
        "cpu:0",
        "auto:0",
        "metal",
    ],
)
def test_unknown_words_are_named_with_the_nearest(word):
    with pytest.raises(ValueError, match="device") as caught:
        place_for(word)
    message = str(caught.value)
    assert repr(word) in message
    assert nearest(word, list(WORDS)) in message
    assert all(known in message for known in WORDS)


@pytest.mark.parametrize(
    ("word", "right"), [("cup", "cpu"), ("gqu", "gpu"), ("cdua", "cuda"), ("aut", "auto")]
)
def test_a_misspelt_device_suggests_the_nearest(word, right):
    with pytest.raises(ValueError, match=f"did you mean '{right}'"):
        place_for(word)


@pytest.mark.parametrize("word", ["CPU", "GPU", " gpu", "Auto"])
def test_device_words_in_other_letter_case(word):
    try:
        place_for(word)
    except GPUUnavailableError:
        return
    except ValueError as error:
        assert "did you mean" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("value", [None, 0, 1.5, True, ["cpu"], b"cpu", {}, object])
def test_an_invalid_device_raises(value):
    with pytest.raises(ValueError, match="device"):
        place_for(value)


def test_the_environment_variable_sets_the_default_device(monkeypatch, rng):
    torch = pytest.importorskip("torch")
    X = rng.normal(size=(6, 2))
    arrays = torch.asarray(X), torch.asarray(X[:, 0])
    assert isinstance(train("2-1", *arrays, epochs=1).flat, torch.Tensor)
    monkeypatch.setenv("XPMLP_DEVICE", "cpu")
    assert isinstance(train("2-1", *arrays, epochs=1).flat, np.ndarray)
    monkeypatch.setenv("XPMLP_DEVICE", "cqu")
    with pytest.raises(ValueError, match=r"XPMLP_DEVICE 'cqu'.*'cpu'"):
        train("2-1", *arrays, epochs=1)
    assert (
        train("2-1", *arrays, epochs=1, device="cpu").members is None
    )  # the argument takes precedence


def test_training_reports_why_the_device_is_unusable(no_gpu):
    X = np.arange(8.0).reshape(4, 2)
    with pytest.raises(GPUUnavailableError, match="no usable GPU: stage"):
        train("2-1", X, X[:, 0], device="gpu")
    assert isinstance(train("2-1", X, X[:, 0], device="auto", epochs=1).flat, np.ndarray)


def test_training_runs_on_the_device_and_results_come_back(rng):
    torch = pytest.importorskip("torch")
    X = rng.normal(size=(6, 2))
    model = train("2-3-1", torch.asarray(X), torch.asarray(X[:, 0]), device="cpu", epochs=2)
    assert isinstance(model.flat, np.ndarray)
    assert isinstance(model.predict(torch.asarray(X)), torch.Tensor)
    assert model.flat.tobytes() == train("2-3-1", X, X[:, 0], epochs=2).flat.tobytes()
