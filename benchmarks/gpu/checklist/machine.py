"""Checks of the machine: its versions, and the errors if something is missing."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.checklist.check import FAULT, NOTE, OK, Check, Result, Setting
from xpmlp.devices import cuda
from xpmlp.devices.doctor import installed
from xpmlp.devices.namespace import Place, running

# 1. versions ----------------------------------------------------------------------------------


def identity(place: Place) -> dict[str, Any]:
    """The card, its driver and the libraries, which any figure depends on."""
    import cupy
    from nvmath.bindings import cublas

    with running(place):
        handle = cublas.create()
        try:
            cublas_version = int(cublas.get_version(handle))
        finally:
            cublas.destroy(handle)
        properties = cuda.gpu_properties(place.device.id)
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return properties | {"device": place.name, "cupy": cupy.__version__, "cublas": cublas_version,
                    "nvrtc": nvrtc, "packages": installed()}  # fmt: skip


def versions(env: Setting) -> Result:
    figures = identity(env.place)
    text = (f"{figures['name']}, driver {figures['driver']}, runtime {figures['runtime']}, "
            f"cupy {figures['cupy']}, cublas {figures['cublas']}")  # fmt: skip
    return Result(text, figures=figures)


def commit(folder: Path) -> str | None:
    """The commit of the checkout of `folder`, "-dirty" if files differ; None without one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


# 9. error paths -------------------------------------------------------------------------------

PROBE = """
from xpmlp.devices.words import place_for
try:
    place_for({word!r})
    print("no error")
except Exception as error:
    print(type(error).__name__ + ": " + str(error))
"""
HIDE_MODULE = "import sys; sys.modules[{name!r}] = None\n"
HIDE_LIBRARY = """
from cuda import pathfinder
original = pathfinder.load_nvidia_dynamic_lib
def load(name):
    if name == {name!r}:
        raise pathfinder.DynamicLibNotFoundError(name + " is hidden")
    return original(name)
pathfinder.load_nvidia_dynamic_lib = load
"""


class Missing(NamedTuple):
    """A reason why a GPU cannot be used, and the stage that must report it."""

    name: str
    stage: int
    before: str = ""  # code that the child process runs first
    word: str = ""  # the device word; empty for that of the check
    environment: tuple[tuple[str, str], ...] = ()
    required: bool = True  # False: libraries may find a fallback, which is only a note


MISSING = (
    Missing("no GPU visible", 2, environment=(("CUDA_VISIBLE_DEVICES", ""),)),
    Missing("gpu:99", 2, word="gpu:99"),
    Missing("no nvmath", 4, HIDE_MODULE.format(name="nvmath")),
    Missing("no NVRTC", 3, HIDE_LIBRARY.format(name="nvrtc"), required=False),
    Missing("no cuBLAS", 4, HIDE_LIBRARY.format(name="cublas"), required=False),
)


def error_message(missing: Missing, word: str) -> str:
    """The error of a new process that looks up the device, with an empty kernel cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"CUPY_CACHE_DIR": cache} | dict(missing.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-c", missing.before + PROBE.format(word=missing.word or word)]
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    lines = (process.stdout.strip() or process.stderr.strip()).splitlines()
    return lines[-1] if lines else f"nothing, exit status {process.returncode}"


def error_paths(env: Setting) -> Result:
    messages = {missing.name: error_message(missing, env.place.name) for missing in MISSING}
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for missing in MISSING:
        message = messages[missing.name]
        start = f"GPUUnavailableError: no usable GPU: stage {missing.stage} of 4"
        if not (message.startswith(start) and "To mend it: " in message):
            wrong[missing.required].append(f"{missing.name}: {message}")
    verdict = FAULT if wrong[True] else NOTE if wrong[False] else OK
    count = len(MISSING) - sum(map(len, wrong.values()))
    figure = f"{count} of {len(MISSING)} name the stage"
    detail = "; ".join(wrong[True] + wrong[False])
    return Result(figure, "all", verdict, detail, {"messages": messages})


CHECKS = (Check(1, "versions", versions), Check(9, "error-paths", error_paths))
