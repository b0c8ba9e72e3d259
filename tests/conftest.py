"""The namespaces that tests run on, and the packages that CI requires."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from support import standin

from xpmlp.devices.namespace import Place

# last, so that the installed xpmlp comes first; `benchmarks` is found here
sys.path.append(str(Path(__file__).parents[1]))

HAS_GPU = standin.gpus() > 0
NO_STANDIN = standin.obstacle()
if not HAS_GPU and NO_STANDIN is None:
    standin.install()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# XPMLP_REQUIRE names the packages whose absence is a failure instead of a skip (in CI: all)
REQUIRED = os.environ.get("XPMLP_REQUIRE", "").split()

# the only skips allowed there: what needs a real GPU, and scikit-learn's checks of what the
# estimators do not claim (a decision function, its own array API dispatch)
SKIPPED = ("no GPU here: ", "does not have a decision_function", "SCIPY_ARRAY_API is not set")

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
    """The module of a namespace, and the device that the tests use."""

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
    if name == "torch":
        installed("torch")
    xp = installed(names.module)
    device = xp.Device(names.device) if names.device else None
    return Place(xp, device, names.device or name)


@pytest.fixture
def place_named(request):
    """A function from a name in NAMESPACES to its place."""
    return lambda name: request.getfixturevalue("gpu") if name == "cupy" else find_place(name)


# many small tests that compile many small kernels: trainings on CuPy are among the quick ones
ALL_NAMESPACES = [pytest.param(n, marks=[pytest.mark.slow] * (n == "cupy")) for n in NAMESPACES]


@pytest.fixture(params=ALL_NAMESPACES)
def place(request, place_named) -> Place:
    """Every namespace and device in turn: NumPy, array-api-strict on two, PyTorch, CuPy."""
    return place_named(request.param)


@pytest.fixture
def xp(place):
    return place.xp


def plug(devices: int, **options):
    """The stand-in with so many devices; a skip, or a failure, where a part of it is missing."""
    if NO_STANDIN is not None:
        missing = NO_STANDIN.partition(" ")[0].partition(".")[0].removesuffix("_backends")
        if missing in REQUIRED:
            pytest.fail(f"{missing} is required here: {NO_STANDIN}")
        pytest.skip(f"no stand-in for a GPU here: {NO_STANDIN}")
    return standin.plugged(devices, **options)


def forget_devices() -> None:
    """Clear the cached result of the check for usable devices."""
    from xpmlp.devices import cuda

    cuda.require_usable.cache_clear()


@pytest.fixture
def card():
    """The plugged-in stand-in for a GPU, which a test may inspect and limit."""
    if HAS_GPU:
        pytest.skip("looks into the stand-in for a GPU, and there is a GPU here")
    forget_devices()
    with plug(1) as plugged:
        yield plugged
    forget_devices()


@pytest.fixture
def two_cards(request):
    """The stand-in with two devices; parametrized, whether they reach each other's memory."""
    if HAS_GPU:
        pytest.skip("looks into the stand-in for a GPU, and there is a GPU here")
    forget_devices()
    with plug(2, peers=getattr(request, "param", False)) as plugged:
        yield plugged
    forget_devices()


@pytest.fixture
def has_gpu() -> bool:
    """Whether the machine has a GPU of its own."""
    return HAS_GPU


@pytest.fixture
def gpu(request) -> Place:
    """A GPU: the machine's own where it has one, else the stand-in."""
    if not HAS_GPU:
        request.getfixturevalue("card")
    from xpmlp.devices.words import place_for

    return place_for("gpu")


@pytest.fixture
def check(gpu):
    """A function from a check of the GPU checklist to its row."""
    from benchmarks.gpu.checklist.check import Setting, perform

    return lambda entry: next(perform([entry], Setting(gpu, 0, True)))


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
            outputs = runtime.ReferenceEvaluator(model).run(None, inputs)
        return dict(zip(names, outputs, strict=True))

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
