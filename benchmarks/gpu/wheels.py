"""The packages that a GPU needs, and a folder of wheels put on the path; the standard library only.

A lent machine has CuPy, NumPy, PyTorch and no way to a package index: what is missing there is
named before any work begins, and comes along as wheels.
"""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

Version = tuple[int, ...]


class Package(NamedTuple):
    """A package with the versions that will do, and the one to bring."""

    name: str
    least: Version
    below: Version
    wheel: str


PACKAGES = (
    Package("numpy", (2, 1), (3,), "2.4.6"),
    Package("safetensors", (0, 5), (1,), "0.8.0"),
    Package("array-api-compat", (1, 11), (2,), "1.16.0"),
    Package("nvmath-python", (1, 0), (2,), "1.0.0"),
    Package("cuda-core", (0, 5), (2,), "1.2.2"),  # as nvmath-python asks, and the next one too
    Package("cuda-pathfinder", (1, 5, 1), (2,), "1.9.1"),
)
BINDINGS = {
    "cupy-cuda13x": Package("cuda-bindings", (13,), (14,), "13.0.3"),
    "cupy-cuda12x": Package("cuda-bindings", (12,), (13,), "12.9.2"),
}
CUPY = Package("cupy-cuda13x", (14,), (16,), "14.2.0")


def found(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> Version:
    """The numbers of a version that come first: (1, 2) of 1.2rc3."""
    return tuple(map(int, re.split(r"[^0-9.]", text)[0].strip(".").split(".")))


def missing(found: Callable[[str], str | None] = found) -> list[tuple[Package, str | None]]:
    """Packages that are not here, or not in a version that will do, with the version that is.

    found: from a package's name to its version, None where it is not installed.
    """
    wanted = [*PACKAGES]
    cupy = next((name for name in BINDINGS if found(name)), CUPY.name)
    wanted += [CUPY._replace(name=cupy), BINDINGS[cupy]]
    return [
        (package, here)
        for package in wanted
        if (here := found(package.name)) is None
        or not package.least <= numbers(here) < package.below
    ]


def message(missing: list[tuple[Package, str | None]]) -> str:
    """What is missing, with versions, and what brings it."""
    named = [
        f"{package.name} {package.wheel}" + (f" ({here} is here)" if here else "")
        for package, here in missing
    ]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = " ".join(f"{package.name}=={package.wheel}" for package, _ in missing)
    return (
        f"missing on this machine: {', '.join(named)}. Bring them: pip download --no-deps "
        f"--only-binary :all: --python-version {python} --platform manylinux_2_28_x86_64 "
        f"--platform manylinux2014_x86_64 -d FOLDER {pins}; then give --wheels FOLDER"
    )


def unpack(folder: Path, into: Path) -> None:
    """Install the wheels of `folder` into `into`, and import from there first from now on."""
    files = sorted(folder.glob("*.whl"))
    if not files:
        raise ValueError(f"--wheels {folder} has no .whl files")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
        "--no-compile", "--no-cache-dir", "--target", str(into), *map(str, files),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise ValueError(f"the wheels of {folder} cannot be installed: {said}")
    sys.path.insert(0, str(into))
    importlib.invalidate_caches()
