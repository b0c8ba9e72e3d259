"""The namespaces that every test body runs on, and what CI demands to be installed."""

import os
import shutil
import signal
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from xpmlp.backends.namespace import CPU, Place

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# XPMLP_REQUIRE names the packages whose absence is a failure instead of a skip (in CI: all)
REQUIRED = os.environ.get("XPMLP_REQUIRE", "").split()

# what may be skipped there: nothing but a GPU's tests, and scikit-learn's checks of what is not
# claimed (a decision function, its own array API dispatch)
SKIPPED = (
    "no GPU here", "no C++ compiler here", "does not have a decision_function",
    "SCIPY_ARRAY_API is not set",
)  # fmt: skip

settings.register_profile(
    "xpmlp",
    deadline=None,  # timings here are noisy
    derandomize=True,  # a red test stays red
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("xpmlp")


def installed(module: str):
    """The module, or a skip that says what to install; a failure where it is required."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if package in REQUIRED:
            pytest.fail(f"{package} is required here: {error}")
        pytest.skip(f"{package} is not installed: {error}")


class Names(NamedTuple):
    """How a namespace is found, and which of its devices the tests use."""

    module: str
    device: str | None = None


NAMESPACES = {
    "numpy": Names("numpy"),
    "strict": Names("array_api_strict"),
    "strict-device1": Names("array_api_strict", "device1"),
    "torch": Names("array_api_compat.torch"),
    "cupy": Names("array_api_compat.cupy"),
}


def find_place(name: str) -> Place:
    """The place of that name, or a skip with the reason."""
    names = NAMESPACES[name]
    if name == "cupy":
        installed("cupy")
        from xpmlp.backends.cuda import GPUUnavailableError
        from xpmlp.backends.devices import place_for

        try:
            return place_for("gpu")
        except GPUUnavailableError as error:
            pytest.skip(f"no GPU here: {str(error).partition(', failed')[0]}")
    if name == "torch":
        installed("torch")
    xp = installed(names.module)
    device = xp.Device(names.device) if names.device else None
    return Place(xp, device, names.device or name)


@pytest.fixture(params=list(NAMESPACES))
def place(request) -> Place:
    """Every namespace and device in turn: NumPy, array-api-strict on two, PyTorch, CuPy."""
    return find_place(request.param)


@pytest.fixture
def place_named():
    """A function from a name in NAMESPACES to its place."""
    return find_place


@pytest.fixture
def xp(place):
    return place.xp


@pytest.fixture(scope="session")
def recording():
    """The stand-in for CuPy that records as a CUDA stream does (recording.py beside this file)."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here: kernels are run on the host by g++")
    spec = spec_from_file_location("recording", Path(__file__).parent / "recording.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(recording, monkeypatch):
    """A place on the stand-in that passes for a GPU."""
    monkeypatch.setitem(sys.modules, "cupy", recording.CUPY)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", recording.XP)
    monkeypatch.setattr("array_api_compat.cupy", recording.XP, raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", recording.DRIVER)
    return Place(recording.XP, recording.DEVICE, "gpu:0")


@pytest.fixture
def check(gpu, recording, monkeypatch):
    """A function from a check of the GPU's checklist to its row, run on the stand-in."""
    from xpmlp.backends.gpu_bench import Setting, perform

    def choose(word, X, precision):
        return gpu if word == gpu.name or isinstance(X, recording.Array) else CPU

    monkeypatch.setattr("xpmlp.fit.run.choose", choose)
    return lambda asked: next(perform([asked], Setting(gpu, 0, True)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture
def optional():
    """`installed`, for a test or fixture that needs a package not everyone has."""
    return installed


@pytest.fixture(params=["onnx", "onnxruntime"])
def run_onnx(request):
    """A function from a checked ONNX file's bytes and its inputs to its outputs by name, as onnx's
    own reference computes them, and as onnxruntime does."""
    onnx = installed("onnx")
    runtime = installed({"onnx": "onnx.reference"}.get(request.param, request.param))

    def run(data: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        names = [value.name for value in model.graph.output]
        if request.param == "onnxruntime":
            session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
            return dict(zip(names, session.run(None, inputs), strict=True))
        with np.errstate(all="ignore"):
            found = runtime.ReferenceEvaluator(model).run(None, inputs)
        return dict(zip(names, found, strict=True))

    return run


def pytest_sessionfinish(session):
    """Where XPMLP_REQUIRE is set, a skip for any reason but those of SKIPPED is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not REQUIRED or reporter is None:
        return
    reasons = {str(report.longrepr[-1]) for report in reporter.stats.get("skipped", ())}
    unwanted = sorted(r for r in reasons if not any(known in r for known in SKIPPED))
    if unwanted:
        reporter.write_line("skipped, and XPMLP_REQUIRE is set: " + "; ".join(unwanted), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
