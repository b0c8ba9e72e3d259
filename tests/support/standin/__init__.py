"""A stand-in for a GPU beneath the real CuPy, for machines without one.

CuPy reaches the CUDA runtime and driver through function pointers that its extension modules
publish as capsules. `install`, called before CuPy is imported, points them at Python functions of
this package: memory is the host's (`card`), streams capture by CUDA's rules and graphs replay
(`graphs`), every kernel that CuPy generates is compiled by NVRTC for a Hopper GPU and run
through g++ (`kernels`), and NVIDIA's bindings of cuBLAS compute with NumPy (`products`).

It reproduces everything but timing, races between the blocks of a kernel, and the rounding of
cuBLAS. There is no device until `plugged` adds some.
"""

import ctypes
import importlib.abc
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import find_spec

SITE = os.path.join(os.path.dirname(__file__), "site")  # for PYTHONPATH: see `environment`
PLUGGED = "STANDIN_CARDS"
MAX_DEVICES = 8


def gpus() -> int:
    """The number of real GPUs that the driver reports to this process; loads no other library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def obstacle() -> str | None:
    """What is missing for the stand-in, or None."""
    for compiler in ("gcc", "g++"):
        if shutil.which(compiler) is None:
            return f"{compiler} is not installed"
    for module in ("cupy_backends", "nvmath", "cuda.bindings", "nvidia.cu13"):
        try:
            spec = find_spec(module)
        except ImportError:
            spec = None
        if spec is None:
            return f"{module} is not installed"
    return None


class Loader(importlib.abc.Loader):
    """Loads CuPy on top of the stand-in."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are machine code for a GPU
        from support.standin import glue, kernels, products

        glue.install()
        self.loader.exec_module(module)
        kernels.install()
        products.install()
        count_devices()


def count_devices() -> None:
    """Let CuPy, which counts devices only once, see as many as a test may plug in."""
    import cupy

    from support.standin.card import card

    devices = card.devices
    card.plug(MAX_DEVICES)
    cupy.cuda.alloc(1)
    cupy.get_default_memory_pool().free_all_blocks()
    card.plug(devices)


class Finder(importlib.abc.MetaPathFinder):
    """Finds CuPy and loads it on top of the stand-in."""

    def find_spec(self, name, path=None, target=None):
        if name != "cupy":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = Loader(spec.loader)
        return spec


def install(devices: int = 0) -> None:
    """Let CuPy, which must not be imported yet, be imported on top of the stand-in.

    devices: number plugged in from the start.
    """
    if "cupy" in sys.modules:
        raise RuntimeError("cupy was imported before the stand-in was installed")
    from support.standin.card import card

    card.plug(devices)
    sys.meta_path.insert(0, Finder())


@contextmanager
def plugged(devices: int = 1, *, peers: bool = False) -> Iterator[object]:
    """Plug in so many devices; peers: whether they reach each other's memory.

    Yields the `Card`. What a real GPU would silently accept and no training should do (memory
    allocated while a stream captures, branches of a graph that race) is an error at the end.
    """
    from support.standin.card import card

    card.plug(devices, peers=peers)
    try:
        yield card
        card.check()
    finally:
        card.unplug()


def environment(devices: int = 1) -> dict[str, str]:
    """Environment variables for a child process in which so many devices are plugged in."""
    paths = [SITE, os.path.dirname(os.path.dirname(os.path.dirname(__file__)))]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), PLUGGED: str(devices)}
