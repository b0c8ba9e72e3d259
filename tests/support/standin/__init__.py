"""A stand-in for a GPU beneath the real CuPy, for machines without one.

CuPy reaches the CUDA runtime and driver through function pointers that its extension modules
publish as capsules. `install`, called before CuPy is imported, points them at Python functions of
this package: memory is the host's (`memory`), streams capture by CUDA's rules and graphs replay
(`streams`), every kernel that CuPy generates is compiled by NVRTC for a Hopper GPU and run
through g++ (`kernels`), and NVIDIA's bindings of cuBLAS compute with NumPy (`products`).

It tells everything but time, races between the blocks of a kernel, and the rounding of cuBLAS.
No device is there until `plugged` says so.
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
MOST = 8  # devices


def gpus() -> int:
    """How many real GPUs this process may use, as the driver says; it loads no other library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def obstacle() -> str | None:
    """What is missing for a stand-in; None where nothing is."""
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

    def __init__(self, own: importlib.abc.Loader) -> None:
        self.own = own

    def create_module(self, spec):
        return self.own.create_module(spec)

    def exec_module(self, module):
        os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are machine code for a GPU
        from support.standin import glue, kernels, products

        glue.install()
        self.own.exec_module(module)
        kernels.install()
        products.install()
        count_devices()


def count_devices() -> None:
    """Let CuPy, which counts the devices once, be ready for as many as a test may plug in."""
    import cupy

    from support.standin.card import card

    devices = card.devices
    card.plug(MOST)
    cupy.cuda.alloc(1)
    cupy.get_default_memory_pool().free_all_blocks()
    card.plug(devices)


class Finder(importlib.abc.MetaPathFinder):
    """Finds CuPy, and lets it be loaded on top of the stand-in."""

    def find_spec(self, name, path=None, target=None):
        if name != "cupy":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = Loader(spec.loader)
        return spec


def install(devices: int = 0) -> None:
    """Let CuPy, which must not have been imported, be imported on top of the stand-in.

    devices: plugged in from the start.
    """
    if "cupy" in sys.modules:
        raise RuntimeError("cupy was imported before the stand-in was installed")
    from support.standin.card import card

    card.plug(devices)
    sys.meta_path.insert(0, Finder())


@contextmanager
def plugged(devices: int = 1, *, peers: bool = False) -> Iterator[object]:
    """Inside it there are so many devices; peers: whether they reach each other's memory.

    Yields the `Card`. What a real GPU would bear in silence and no training should do (memory
    taken while a stream captures, branches of a graph that race) is an error at the end.
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
