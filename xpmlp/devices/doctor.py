"""What this machine offers, for `xpmlp doctor`: versions, BLAS, GPU, and what mends it."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from xpmlp import __version__
from xpmlp.devices import cuda
from xpmlp.devices.graphs import obstacle
from xpmlp.devices.threads import controller, counted

PACKAGES = (
    "numpy", "array-api-compat", "safetensors", "scikit-learn", "narwhals", "polars",
    "matplotlib", "tqdm", "numba", "onnx", "mpi4py", "nvmath-python",
    "cupy-cuda12x", "cupy-cuda13x", "torch",
)  # fmt: skip


def installed(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that xpmlp can use, of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def blas() -> dict[str, Any]:
    """The BLAS library that NumPy was built with, its threads, and the processors."""
    built: Any = np.show_config(mode="dicts")
    library = built.get("Build Dependencies", {}).get("blas", {})
    return {
        "library": library.get("name", "unknown"),
        "version": library.get("version", "unknown"),
        "threads": blas_threads(),
        "processors": os.cpu_count(),
    }


def blas_threads() -> int | str:
    """Threads of a product: measured by threadpoolctl where it is installed."""
    if controller() is None:
        return os.environ.get("OPENBLAS_NUM_THREADS", "one per processor")
    return counted() or 1


def gpu(index: int) -> dict[str, Any]:
    """Each stage of the check of GPU number `index`, what the card says of itself, and why steps
    cannot be recorded there (None where they can)."""
    checks = list(cuda.examine(index))
    found: dict[str, Any] = {
        "index": index,
        "usable": checks[-1].problem is None,
        "checks": [
            {"stage": c.stage, "doing": c.doing, "problem": c.problem, "mend": c.mend}
            for c in checks
        ],
    }
    if found["usable"]:
        import cupy

        found |= cuda.card(index)
        found["recording"] = obstacle(cuda.place(index), cupy.cuda)
    return found


def report(index: int) -> dict[str, Any]:
    """Everything, as one JSON object."""
    return {
        "xpmlp": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": installed(),
        "blas": blas(),
        "gpu": gpu(index),
    }
