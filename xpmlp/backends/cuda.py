"""CuPy: whether a GPU can be used, and if not, at which stage it fails and what mends it."""

from typing import Any

from xpmlp.backends.namespace import Place

INSTALL = "pip install 'xpmlp[gpu13]' (CUDA 13) or 'xpmlp[gpu12]' (CUDA 12)"


class GPUUnavailableError(RuntimeError):
    """A GPU was asked for and cannot be used: says at which stage it failed and what mends it."""


def place(index: int) -> Place:
    """GPU number `index` after the four-stage check; GPUUnavailableError naming the stage."""
    try:
        import cupy
        from array_api_compat import cupy as xp
    except ImportError as error:
        raise unavailable(1, "importing CuPy", error, INSTALL) from error
    mend = "install NVIDIA's driver, then check with: nvidia-smi"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise unavailable(2, "counting GPUs", error, mend) from error
    if not index < count:
        problem = f"gpu:{index} was asked for, {count} found"
        raise unavailable(2, "counting GPUs", problem, "use a lower number, or device='cpu'")
    device = cupy.cuda.Device(index)
    with device:
        stages = [
            (3, "running a kernel", lambda: xp.sum(xp.arange(2.0)).get()),
            (4, "multiplying with cuBLAS", lambda: xp.matmul(xp.eye(2), xp.eye(2)).get()),
        ]
        for stage, doing, attempt in stages:
            try:
                attempt()  # type: ignore[no-untyped-call]
            except Exception as error:  # any library that is missing raises its own kind
                raise unavailable(stage, doing, error, INSTALL) from error
    return Place(xp, device, f"gpu:{index}")


def unavailable(stage: int, doing: str, problem: Any, mend: str) -> GPUUnavailableError:
    first_line = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    return GPUUnavailableError(
        f"no usable GPU: stage {stage} of 4, {doing}, failed: {first_line}. To mend it: {mend}"
    )
