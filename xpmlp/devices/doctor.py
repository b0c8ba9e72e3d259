"""What this machine offers, for `xpmlp doctor`: versions, BLAS, GPU, and how to fix it."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from xpmlp import __version__
from xpmlp.devices import cuda
from xpmlp.devices.graphs import recording_problem
from xpmlp.devices.threads import available_threads, controller

PACKAGES = (
    "numpy", "array-api-compat", "safetensors", "scikit-learn", "narwhals", "polars",
    "matplotlib", "tqdm", "numba", "onnx", "mpi4py", "nvmath-python",
    "cupy-cuda12x", "cupy-cuda13x", "torch",
)  # fmt: skip


def installed(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the installed packages among those that xpmlp can use."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def blas() -> dict[str, Any]:
    """The BLAS library that NumPy was built with, its threads, and the processors."""
    config: Any = np.show_config(mode="dicts")
    library = config.get("Build Dependencies", {}).get("blas", {})
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
    return available_threads() or 1


def gpu(index: int) -> dict[str, Any]:
    """Each stage of the check of GPU number `index`, its properties, and why steps
    cannot be recorded there (None where they can)."""
    checks = list(cuda.examine(index))
    result: dict[str, Any] = {
        "index": index,
        "usable": checks[-1].problem is None,
        "checks": [
            {"stage": c.stage, "doing": c.doing, "problem": c.problem, "mend": c.mend}
            for c in checks
        ],
    }
    if result["usable"]:
        import cupy

        result |= cuda.gpu_properties(index)
        result["recording"] = recording_problem(cuda.place(index), cupy.cuda)
    return result


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
