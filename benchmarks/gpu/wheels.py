"""Find missing packages and import them from a folder of wheels; the standard library only.

A lent machine has CuPy, NumPy, PyTorch and no access to a package index: missing packages are
named before any work, and provided as wheels.
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
    """A package with its supported versions, and the one to download."""

    name: str
    least: Version
    below: Version
    wheel: str


PACKAGES = (
    Package("numpy", (2, 1), (3,), "2.4.6"),
    Package("safetensors", (0, 5), (1,), "0.8.0"),
    Package("array-api-compat", (1, 11), (2,), "1.16.0"),
    Package("nvmath-python", (1, 0), (2,), "1.0.0"),
    Package("cuda-core", (0, 5), (2,), "1.2.2"),  # as nvmath-python requires, and 1.x
    Package("cuda-pathfinder", (1, 5, 1), (2,), "1.9.1"),
)
BINDINGS = {
    "cupy-cuda13x": Package("cuda-bindings", (13,), (14,), "13.0.3"),
    "cupy-cuda12x": Package("cuda-bindings", (12,), (13,), "12.9.2"),
}
CUPY = Package("cupy-cuda13x", (14,), (16,), "14.2.0")


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> Version:
    """The leading numbers of a version: (1, 2) of 1.2rc3."""
    return tuple(map(int, re.split(r"[^0-9.]", text)[0].strip(".").split(".")))


def missing(
    find_version: Callable[[str], str | None] = installed_version,
) -> list[tuple[Package, str | None]]:
    """Packages that are not installed in a supported version, with the installed version.

    find_version: from a package's name to its version, None if it is not installed.
    """
    packages = [*PACKAGES]
    cupy = next((name for name in BINDINGS if find_version(name)), CUPY.name)
    packages += [CUPY._replace(name=cupy), BINDINGS[cupy]]
    return [
        (package, current)
        for package in packages
        if (current := find_version(package.name)) is None
        or not package.least <= numbers(current) < package.below
    ]


def message(missing: list[tuple[Package, str | None]]) -> str:
    """The missing packages with versions, and the command that downloads them."""
    names = [
        f"{package.name} {package.wheel}" + (f" ({current} is here)" if current else "")
        for package, current in missing
    ]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = " ".join(f"{package.name}=={package.wheel}" for package, _ in missing)
    return (
        f"missing on this machine: {', '.join(names)}. Bring them: pip download --no-deps "
        f"--only-binary :all: --python-version {python} --platform manylinux_2_28_x86_64 "
        f"--platform manylinux2014_x86_64 -d FOLDER {pins}; then give --wheels FOLDER"
    )


def unpack(folder: Path, into: Path) -> None:
    """Install the wheels of `folder` into `into`, and put that first on sys.path."""
    files = sorted(folder.glob("*.whl"))
    if not files:
        raise ValueError(f"--wheels {folder} has no .whl files")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
        "--no-compile", "--no-cache-dir", "--target", str(into), *map(str, files),
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        error = (process.stderr.strip().splitlines() or ["no output"])[-1]
        raise ValueError(f"the wheels of {folder} cannot be installed: {error}")
    sys.path.insert(0, str(into))
    importlib.invalidate_caches()
