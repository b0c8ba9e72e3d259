"""The rules of the design, checked on the syntax trees of the package."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import xpmlp

PACKAGE = Path(xpmlp.__file__).parent
MATH = "math"  # the top of the package, and `layers/`
RANKS = [MATH, "devices", "recording", "training", "storage", "tabular", "estimators", "cli", ""]
BACKENDS = {"numpy", "cupy", "cupyx", "mpi4py", "sklearn", "nvmath", "numba"}
MAY_IMPORT_BACKENDS = {
    "random.py", "initializers.py",
    "devices/namespace.py", "devices/cuda.py", "devices/epilogues.py", "devices/gemm.py",
    "devices/words.py", "devices/doctor.py",
    "recording/numpy_writer.py", "recording/numba_writer.py", "recording/cuda_writer.py",
    "recording/engine.py", "recording/tape.py", "recording/replay.py", "recording/onnx_graph.py",
    "training/data.py", "training/batches.py", "training/checks.py", "training/labels.py",
    "storage/model_file.py", "storage/checksummed.py", "storage/checkpoint.py",
    "storage/signature.py", "storage/onnx.py", "storage/class_labels.py",
    "tabular/preprocessing.py", "tabular/splits.py", "tabular/model.py", "tabular/fitting.py",
}  # fmt: skip
PRODUCTS_IN = {"network.py", "optimizers.py"}  # Muon orthogonalizes matrices
NOT_PACKAGED = {"benchmarks", "fuzz", "tests", "scripts"}  # not part of the package

FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def folder(name: str) -> str:
    """The part of the package that a file belongs to, as in RANKS."""
    if name in ("__init__.py", "__main__.py"):
        return ""
    top = name.partition("/")[0] if "/" in name else MATH
    return MATH if top == "layers" else top


def module_file(module: str) -> str | None:
    """The file of xpmlp.a.b, or of the package itself."""
    parts = module.split(".")[1:]
    for candidate in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
        if candidate in FILES:
            return candidate
    return None


def run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed: all except those under `if TYPE_CHECKING`."""
    yield tree
    if not (isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(tree):
            yield from run_nodes(child)


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported when a program runs, at the top or inside a function."""
    modules = set()
    for node in run_nodes(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return modules


def imported_files(name: str) -> set[str]:
    modules = {module for module in imports(TREES[name]) if module.split(".")[0] == "xpmlp"}
    return {file for file in map(module_file, modules) if file is not None}


@pytest.mark.parametrize("name", FILES)
def test_imports_only_go_up_the_table(name):
    for imported in imported_files(name) - {"__init__.py"}:
        assert RANKS.index(folder(imported)) <= RANKS.index(folder(name)), (
            f"{name} imports {imported}"
        )


@pytest.mark.parametrize("name", FILES)
def test_tests_and_benchmarks_are_not_imported(name):
    assert not {module.split(".")[0] for module in imports(TREES[name])} & NOT_PACKAGED


def test_imports_have_no_cycles():
    graph = {name: imported_files(name) - {"__init__.py", name} for name in FILES}
    visited: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in visited:
            for imported in graph[name]:
                visit(imported, (*path, name))
            visited.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", FILES)
def test_backends_are_imported_only_where_allowed(name):
    backends = {module.split(".")[0] for module in imports(TREES[name])} & BACKENDS
    if folder(name) != "estimators" and name not in MAY_IMPORT_BACKENDS:
        assert not backends, f"{name} imports {backends}"


@pytest.mark.parametrize("name", FILES)
def test_matrix_products_are_only_where_allowed(name):
    if name in PRODUCTS_IN or folder(name) in ("devices", "recording"):
        return
    for node in ast.walk(TREES[name]):
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), name
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("matmul", "mT", "dot", "tensordot", "einsum"), name


@pytest.mark.parametrize("name", [name for name in FILES if folder(name) == MATH])
def test_core_has_no_boolean_parameter(name):
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        arguments = node.args
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            assert not (isinstance(default, ast.Constant) and isinstance(default.value, bool)), (
                f"{name}:{node.lineno} has a flag"
            )
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            annotation = ast.unparse(argument.annotation) if argument.annotation else ""
            assert not re.search(r"\bbool\b", annotation), f"{name}:{node.lineno} has a flag"


def test_network_has_at_most_120_lines():
    assert len(FILES["network.py"].read_text().splitlines()) <= 120


def test_math_uses_no_global_state():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), name


def test_source_has_no_paths_of_a_machine():
    for name, path in FILES.items():
        assert not re.search(r"/(work|home|root|tmp)/", path.read_text()), name
