#!/usr/bin/env python
"""Remove the checks of the package one by one, and list those that no test notices.

python tests/fuzz/mutate_checks.py                       # every check: an hour
python tests/fuzz/mutate_checks.py --module training/checks.py --json
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
BAD_INPUT = "tests/test_bad_input.py"
QUICK = ("-m", "not slow", "-k", "not kills and not within_an_epoch")  # which find as much
# Per module: its tests, and the surfaces whose hostile inputs reach it
MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "training/checks.py": (("training/test_checks.py",), "core or estimators"),
    "training/labels.py": (("training/test_labels.py", "training/test_checks.py"), "core"),
    "training/data.py": (("training/test_data.py", "training/test_checks.py"), "core"),
    "training/settings.py": (("training/test_settings.py", "training/test_population.py"), "core"),
    "training/train.py": (("training/test_train.py", "training/test_callbacks.py",
                           "storage/test_checkpoint.py"),
                   "core"),
    "training/trainer.py": (("training/test_train.py", "training/test_divergence.py",
                             "training/test_callbacks.py"),
                       "core"),
    "training/report.py": (("training/test_callbacks.py", "training/test_train.py"), "core"),
    "training/recovery.py": (("training/test_divergence.py",), "core"),
    "training/memory.py": (("training/test_memory.py",), "memory"),
    "training/validation.py": (("training/test_settings.py", "training/test_train.py"), "core"),
    "names.py": (("math/test_names.py", "math/test_schedules.py", "math/test_losses.py",
                       "math/test_activations.py", "training/test_settings.py"), "core"),
    "spec.py": (("math/test_spec.py",), "core"),
    "devices/words.py": (("devices/test_devices.py",), "devices"),
    "estimators/inputs.py": (("estimators/test_errors.py",), "estimators"),
    "estimators/classes.py": (("estimators/test_errors.py", "estimators/test_new_parameters.py"),
                              "estimators"),
    "estimators/network.py": (("estimators/test_errors.py", "estimators/test_continuation.py"),
                              "estimators"),
    "estimators/base.py": (("estimators/test_errors.py", "estimators/test_held_out.py",
                            "estimators/test_checkpoint.py", "estimators/test_files.py",
                            "estimators/test_onnx.py"), "estimators"),
    "estimators/signature.py": (("estimators/test_checkpoint.py",), "estimators"),
    "storage/atomic.py": (("storage/test_atomic.py",), "files"),
    "storage/checksummed.py": (("storage/test_model_file.py", "storage/test_checkpoint.py"),
                               "files"),
    "storage/model_file.py": (("storage/test_model_file.py",), "files"),
    "storage/checkpoint.py": (("storage/test_checkpoint.py",), "files"),
    "storage/signature.py": (("storage/test_checkpoint.py",), "files"),
    "tabular/reading.py": (("tabular/test_reading.py",), "command"),
    "tabular/fitting.py": (("tabular/test_fitting.py", "cli/test_train.py"), "command"),
    "tabular/model.py": (("tabular/test_model.py", "storage/test_table_file.py"), "command"),
    "tabular/splits.py": (("tabular/test_splits.py",), "command"),
    "cli/train.py": (("cli/test_train.py",), "command"),
    "cli/demo.py": (("cli/test_demo.py",), "command"),
    "cli/export.py": (("cli/test_export.py",), "command"),
    "cli/plots.py": (("cli/test_plots.py",), "command"),
    "cli/predict.py": (("cli/test_using.py",), "command"),
    "cli/using.py": (("cli/test_using.py",), "command"),
    "cli/inspect.py": (("cli/test_using.py",), "command"),
}  # fmt: skip
CHECK_FUNCTIONS = (
    "check",
    "refuse",
    "warn",
    "validate",
    "same_shape",
    "numbered",
)
SECONDS = 300  # of one run of tests; a hang counts as a failure


class Mutant(NamedTuple):
    """A module's source without one of its checks."""

    module: str
    number: int  # of the check in the module
    line: int
    what: str  # "removed" or "negated", and the check
    source: str


def is_check(node: ast.AST) -> bool:
    """An `if` that raises or warns, or a call of a function that only checks."""
    if isinstance(node, ast.If):
        last = node.body[-1]
        return isinstance(last, ast.Raise) or ("warn(" in ast.unparse(last) and not node.orelse)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ast.unparse(node.value.func).rpartition(".")[2].startswith(CHECK_FUNCTIONS)
    return False


def without(tree: ast.Module, number: int, change: str) -> str:
    """The source with the check of that number removed or negated."""
    copy = deepcopy(tree)
    node = [node for node in ast.walk(copy) if is_check(node)][number]
    if isinstance(node, ast.If):
        node.test = (
            ast.Constant(False) if change == "removed" else ast.UnaryOp(ast.Not(), node.test)
        )
    elif isinstance(node, ast.Expr):
        node.value = ast.Constant(None)
    return ast.unparse(ast.fix_missing_locations(copy))


def mutants(module: str) -> Iterator[Mutant]:
    """Every check of a module removed, and every `if` negated."""
    tree = ast.parse((ROOT / "xpmlp" / module).read_text())
    for number, node in enumerate(node for node in ast.walk(tree) if is_check(node)):
        first_line = ast.unparse(node).splitlines()[0]
        for change in ("removed", "negated") if isinstance(node, ast.If) else ("removed",):
            what = f"{change}: {first_line}"
            line: int = node.lineno  # type: ignore[attr-defined]
            yield Mutant(module, number, line, what, without(tree, number, change))


# called by an instrumented module; a test may have filled the disk, or run in another process
NOTING = """
import os
seen = set()
def come(check):
    note = f"{{os.environ.get('PYTEST_CURRENT_TEST', '')}} {{check}}\\n"
    if note in seen:
        return
    seen.add(note)
    try:
        with open({notes!r}, "a") as file:
            file.write(note)
    except OSError:
        pass
"""


class Noting(ast.NodeTransformer):
    """Makes a module record, before each of its checks, the test that reaches it."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.numbers = {id(node): n for n, node in enumerate(filter(is_check, ast.walk(tree)))}

    def visit(self, node: ast.AST) -> Any:
        number = self.numbers.get(id(node))
        node = self.generic_visit(node)
        if number is None:
            return node
        return [*ast.parse(f"__import__('noting').come('{self.module} {number}')").body, node]


TestsByCheck = dict[tuple[str, int], list[str]]  # by a check's module and number, tests


def tests_by_check(modules: Sequence[str], package: Path, tests: list[str]) -> TestsByCheck:
    """The tests that reach each check."""
    notes = package / "notes"
    notes.write_text("")
    (package / "noting.py").write_text(NOTING.format(notes=str(notes)))
    with ExitStack() as stack:
        for module in modules:
            tree = ast.parse((ROOT / "xpmlp" / module).read_text())
            noting = ast.fix_missing_locations(Noting(module, tree).visit(tree))
            stack.enter_context(replaced(package / "xpmlp" / module, ast.unparse(noting)))
        if not survives(package, tests):
            raise RuntimeError("the tests fail before any check is removed")
    reached: TestsByCheck = {}
    for line in dict.fromkeys(notes.read_text().splitlines()):
        test, module, number = line.rsplit(" ", 2)
        name = test.rpartition(" (")[0]  # the phase follows it
        if name and name not in reached.setdefault((module, int(number)), []):
            reached[module, int(number)].append(name)
    return reached


@contextmanager
def replaced(file: Path, source: str) -> Iterator[None]:
    """Replace the source of a file within the context."""
    before = file.read_text()
    file.write_text(source)
    try:
        yield
    finally:
        file.write_text(before)


def survives(package: Path, tests: list[str]) -> bool:
    """Whether the tests pass with the package in that folder."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    # SAFEPATH: `python -c` in a test also imports that package, not the one where it runs
    paths = {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    test_list = package / "tests"
    test_list.write_text("\n".join(tests))
    options = ("-x", "-q", "-p", "no:cacheprovider", f"@{test_list}")
    command = [sys.executable, "-m", "pytest", *options]
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=os.environ | threads | paths,
            capture_output=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    # 2 and 4: the package, or a test's module, cannot be imported
    if result.returncode not in (0, 1, 2) and b"ERROR collecting" not in result.stdout:
        raise RuntimeError(result.stdout.decode()[-2000:])
    return result.returncode == 0


def killers(modules: Sequence[str], package: Path) -> tuple[TestsByCheck, TestsByCheck]:
    """The tests that reach each check: those of the modules, and the hostile inputs."""
    tests = dict.fromkeys(f"tests/{name}" for module in modules for name in MODULES[module][0])
    surfaces = dict.fromkeys(MODULES[module][1] for module in modules)
    hostile = [BAD_INPUT, "-k", " or ".join(surfaces)]
    quick = [*tests, *QUICK]
    return tests_by_check(modules, package, quick), tests_by_check(modules, package, hostile)


def survives_all(mutant: Mutant, package: Path, killers: Iterable[TestsByCheck]) -> bool:
    """Whether a mutant survives the tests that reach it; the package is restored afterwards."""
    reaching = [tests.get((mutant.module, mutant.number), []) for tests in killers]
    with replaced(package / "xpmlp" / mutant.module, mutant.source):
        return all(survives(package, tests) for tests in reaching if tests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one (all)")
    parser.add_argument("--removed", action="store_true", help="negate no check")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout
    modules, count, survivors = options.module or list(MODULES), 0, []
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(ROOT / "xpmlp", package / "xpmlp")
        tests = killers(modules, package)
        for module in modules:
            for mutant in mutants(module):
                if options.removed and not mutant.what.startswith("removed"):
                    continue
                count += 1
                if survives_all(mutant, package, tests):
                    survivors.append(mutant._asdict() | {"source": ""})
                    print(f"survives: {module}:{mutant.line} {mutant.what}", file=out, flush=True)
            print(f"{module}: {count} so far, {len(survivors)} survive", file=out, flush=True)
    if options.json:
        print(json.dumps({"mutants": count, "survivors": survivors}))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
