"""Every name that the GPU's modules use of CuPy and of NVIDIA's bindings exists there."""

import ast
import inspect
from importlib import import_module

import pytest

NAMES = (
    "backends.cuda", "backends.engine", "backends.gemm", "backends.graphs", "backends.kernels",
    "backends.gpu_bench", "backends.gpu_machine", "backends.gpu_products", "backends.gpu_times",
    "fit.gpu_fusion", "fit.gpu_memory", "fit.gpu_runs", "fit.gpu_steps", "fit.gpu_trainings",
)  # fmt: skip
TREES = [ast.parse(inspect.getsource(import_module(f"xpmlp.{name}"))) for name in NAMES]


def chains(root: str) -> set[str]:
    """Every dotted name in the sources that starts at `root`, after it."""
    found = set()
    for node in (node for tree in TREES for node in ast.walk(tree)):
        written = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        rest = written.removeprefix(f"{root}.")
        if rest != written and all(name.isidentifier() for name in rest.split(".")):
            found.add(rest)
    return found


def reach(owner, dotted: str):
    for name in dotted.split("."):
        owner = getattr(owner, name)
    return owner


def test_every_name_of_cupy_exists(optional):
    cupy = optional("cupy")
    found = chains("cupy") | chains("self.cupy") | chains("self._cupy")
    found |= {f"cuda.{name}" for name in chains("self.cuda")}
    assert {"ElementwiseKernel", "cuda.using_allocator", "cuda.MemoryPool", "cuda.Event"} <= found
    for name in found:
        reach(cupy, name)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("cuda.Stream", "begin_capture end_capture is_capturing synchronize __enter__ ptr"),
        ("cuda.Graph", "launch graph"),
        ("cuda.Event", "record synchronize"),
        ("cuda.MemoryPool", "malloc free_all_blocks used_bytes total_bytes"),
        ("cuda.Device", "synchronize id __enter__"),
        ("ndarray", "fill get mT reshape all sum copy"),
    ],
)
def test_every_method_of_cupy_exists(optional, owner, names):
    value = reach(optional("cupy"), owner)
    missing = [name for name in names.split() if not hasattr(value, name)]
    assert missing in ([], ["ptr"])  # a stream's pointer is set when it is made


def test_every_name_of_nvidias_bindings_exists(optional):
    optional("cupy")
    cublas = optional("nvmath.bindings.cublas")
    driver = optional("cuda.bindings.driver")
    for owner, found in (
        (cublas, chains("cublas") | chains("self._cublas")),
        (driver, chains("driver")),
    ):
        assert found
        for name in found:
            reach(owner, name)
    kinds = {kind.name for kind in driver.CUgraphNodeType}
    assert {f"CU_GRAPH_NODE_TYPE_{kind}" for kind in ("KERNEL", "MEMSET", "MEMCPY")} <= kinds
