"""CuPy as the math's namespace: the checks before it is used, and our own `matmul` in it."""

from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from xpmlp.devices.epilogues import Epilogues
from xpmlp.devices.gemm import Gemm
from xpmlp.devices.namespace import Place
from xpmlp.types import Namespace

INSTALL = "pip install 'xpmlp[gpu13]' (CUDA 13) or 'xpmlp[gpu12]' (CUDA 12)"
DRIVER = "install NVIDIA's driver and look at: nvidia-smi"
VISIBLE = "look at nvidia-smi and at CUDA_VISIBLE_DEVICES"
NO_DRIVER = 35  # cudaErrorInsufficientDriver
STAGES = ("import CuPy", "count GPUs", "run a kernel", "multiply with cuBLAS")


class GPUUnavailableError(RuntimeError):
    """A GPU that was asked for cannot be used.

    Its message names the stage of the check that failed (import CuPy, count GPUs, run a kernel,
    multiply with cuBLAS), what that stage said, and the command that mends it.
    """


class Check(NamedTuple):
    """The result of one stage of the check."""

    stage: int  # from 1, an entry of STAGES
    problem: str | None  # the first line of the original message; None when it passed
    mend: str = ""

    @property
    def doing(self) -> str:
        return STAGES[self.stage - 1]


def import_cupy(index: int) -> None:
    import cupy  # noqa: F401


def count_gpus(index: int) -> None:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if not index < count:
        raise LookupError(f"gpu:{index} was asked for, {count} found")


def run_kernel(index: int) -> None:
    import cupy

    with cupy.cuda.Device(index):
        cupy.arange(2.0).sum().get()  # compiles: needs NVRTC and the CUDA headers


def multiply(index: int) -> None:
    import cupy

    with cupy.cuda.Device(index):
        Gemm().matmul(cupy.ones((2, 2)), cupy.ones((2, 2))).get()


def examine(index: int) -> Iterator[Check]:
    """Each stage in turn for GPU number `index`, up to the first that fails."""
    stages: tuple[Callable[[int], None], ...] = (import_cupy, count_gpus, run_kernel, multiply)
    for stage, attempt in enumerate(stages, 1):
        try:
            attempt(index)
        except Exception as error:  # every missing library raises a type of its own
            yield Check(stage, first_line(error), mend_for(stage, error))
            return
        yield Check(stage, None)


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def mend_for(stage: int, error: Exception) -> str:
    """The command that fixes a failed stage."""
    if STAGES[stage - 1] != "count GPUs":
        return INSTALL
    return DRIVER if getattr(error, "status", None) == NO_DRIVER else VISIBLE


@cache
def require_usable(index: int) -> None:
    """GPUUnavailableError where a stage fails; a GPU that passed is not checked again."""
    for check in examine(index):
        if check.problem is not None:
            raise GPUUnavailableError(
                f"no usable GPU: stage {check.stage} of {len(STAGES)}, {check.doing}, failed: "
                f"{check.problem}. To mend it: {check.mend}"
            )


@cache
def namespace(index: int, precision: Literal["full", "tf32"]) -> Namespace:
    """array-api-compat's CuPy with our matmul: one per GPU and precision, with its own handle."""
    from array_api_compat import cupy as base

    names: dict[str, Any] = {name: value for name, value in vars(base).items() if name[0] != "_"}
    names["__array_namespace_info__"] = base.__array_namespace_info__
    gemm = Gemm(precision)
    own = {"matmul": gemm.matmul, "forget": gemm.forget, "__name__": base.__name__}
    own["epilogues"] = Epilogues(precision, gemm.workspace)
    return SimpleNamespace(**names | own)


def place(index: int, precision: Literal["full", "tf32"] = "full") -> Place:
    """GPU number `index`; GPUUnavailableError naming the stage where it cannot be used.

    precision: of float32 products, "full" or "tf32" (ten bits of mantissa, several times faster).
    """
    require_usable(index)
    import cupy

    with cupy.cuda.Device(index) as device:
        return Place(namespace(index, precision), device, f"gpu:{index}")


def gpu_properties(index: int) -> dict[str, Any]:
    """Of a usable GPU: name, driver and runtime versions, free and total bytes."""
    import cupy

    runtime = cupy.cuda.runtime
    with cupy.cuda.Device(index):
        free, total = runtime.memGetInfo()
    return {
        "name": runtime.getDeviceProperties(index)["name"].decode(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "bytes_free": int(free),
        "bytes": int(total),
    }
