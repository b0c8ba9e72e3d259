"""Checks of a GPU's machine: what it is, and what is said where something of it is missing."""

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
    """The card, its driver and the libraries: what figures are worth nothing without."""
    import cupy
    from nvmath.bindings import cublas

    with running(place):
        handle = cublas.create()
        try:
            product = int(cublas.get_version(handle))
        finally:
            cublas.destroy(handle)
        about = cuda.gpu_properties(place.device.id)
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return about | {"device": place.name, "cupy": cupy.__version__, "cublas": product,
                    "nvrtc": nvrtc, "packages": installed()}  # fmt: skip


def versions(on: Setting) -> Result:
    found = identity(on.place)
    shown = (f"{found['name']}, driver {found['driver']}, runtime {found['runtime']}, "
             f"cupy {found['cupy']}, cublas {found['cublas']}")  # fmt: skip
    return Result(shown, figures=found)


def commit(folder: Path) -> str | None:
    """The commit of the checkout that `folder` is in, "-dirty" where files differ; None outside."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# 9. error paths -------------------------------------------------------------------------------

ASK = """
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
found = pathfinder.load_nvidia_dynamic_lib
def load(name):
    if name == {name!r}:
        raise pathfinder.DynamicLibNotFoundError(name + " is hidden")
    return found(name)
pathfinder.load_nvidia_dynamic_lib = load
"""


class Missing(NamedTuple):
    """A way in which a GPU cannot be used, and the stage that is to say so."""

    name: str
    stage: int
    before: str = ""  # what the child process runs first
    word: str = ""  # the device word; empty is the one under test
    environment: tuple[tuple[str, str], ...] = ()
    sure: bool = True  # False: the libraries may find another way, which is worth a note only


MISSING = (
    Missing("no GPU visible", 2, environment=(("CUDA_VISIBLE_DEVICES", ""),)),
    Missing("gpu:99", 2, word="gpu:99"),
    Missing("no nvmath", 4, HIDE_MODULE.format(name="nvmath")),
    Missing("no NVRTC", 3, HIDE_LIBRARY.format(name="nvrtc"), sure=False),
    Missing("no cuBLAS", 4, HIDE_LIBRARY.format(name="cublas"), sure=False),
)


def answer(missing: Missing, word: str) -> str:
    """What a fresh process says when it is asked for the device; its kernel cache is empty."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"CUPY_CACHE_DIR": cache} | dict(missing.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-c", missing.before + ASK.format(word=missing.word or word)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[-1] if lines else f"nothing, exit status {done.returncode}"


def error_paths(on: Setting) -> Result:
    said = {one.name: answer(one, on.place.name) for one in MISSING}
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for one in MISSING:
        start = f"GPUUnavailableError: no usable GPU: stage {one.stage} of 4"
        if not (said[one.name].startswith(start) and "To mend it: " in said[one.name]):
            wrong[one.sure].append(f"{one.name}: {said[one.name]}")
    verdict = FAULT if wrong[True] else NOTE if wrong[False] else OK
    count = len(MISSING) - sum(map(len, wrong.values()))
    figure = f"{count} of {len(MISSING)} name the stage"
    detail = "; ".join(wrong[True] + wrong[False])
    return Result(figure, "all", verdict, detail, {"said": said})


CHECKS = (Check(1, "versions", versions), Check(9, "error-paths", error_paths))
