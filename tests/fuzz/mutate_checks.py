#!/usr/bin/env python
"""Remove the checks of the package one by one, and list those that no test misses.

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
QUICK = ("-m", "not slow", "-k", "not kills and not within_an_epoch")  # and find as much
# Per module: the tests that know it, and whose hostile inputs reach it
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
CALLED = (
    "check",
    "refuse",
    "warn",
    "known_labels",
    "validate",
    "writable",
    "numbered",
)
SECONDS = 300  # of one run of tests; a hang is a test that falls


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
        return ast.unparse(node.value.func).rpartition(".")[2].startswith(CALLED)
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
        shown = ast.unparse(node).splitlines()[0]
        for change in ("removed", "negated") if isinstance(node, ast.If) else ("removed",):
            what = f"{change}: {shown}"
            line: int = node.lineno  # type: ignore[attr-defined]
            yield Mutant(module, number, line, what, without(tree, number, change))


# what a module that notes calls; a test may have filled the disk, or run in another process
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
    """Writes before each check of a module that the test under way has come to it."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.numbers = {id(node): n for n, node in enumerate(filter(is_check, ast.walk(tree)))}

    def visit(self, node: ast.AST) -> Any:
        number = self.numbers.get(id(node))
        node = self.generic_visit(node)
        if number is None:
            return node
        return [*ast.parse(f"__import__('noting').come('{self.module} {number}')").body, node]


Comers = dict[tuple[str, int], list[str]]  # by a check's module and number, tests


def comers(modules: Sequence[str], package: Path, tests: list[str]) -> Comers:
    """The tests that come to each check."""
    notes = package / "notes"
    notes.write_text("")
    (package / "noting.py").write_text(NOTING.format(notes=str(notes)))
    with ExitStack() as stack:
        for module in modules:
            tree = ast.parse((ROOT / "xpmlp" / module).read_text())
            noting = ast.fix_missing_locations(Noting(module, tree).visit(tree))
            stack.enter_context(put(package / "xpmlp" / module, ast.unparse(noting)))
        if not survives(package, tests):
            raise RuntimeError("the tests fail before any check is removed")
    found: Comers = {}
    for line in dict.fromkeys(notes.read_text().splitlines()):
        test, module, number = line.rsplit(" ", 2)
        name = test.rpartition(" (")[0]  # behind it stands the phase
        if name and name not in found.setdefault((module, int(number)), []):
            found[module, int(number)].append(name)
    return found


@contextmanager
def put(file: Path, source: str) -> Iterator[None]:
    """Inside it a file is another."""
    before = file.read_text()
    file.write_text(source)
    try:
        yield
    finally:
        file.write_text(before)


def survives(package: Path, tests: list[str]) -> bool:
    """Whether the tests pass on the package in that folder."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    # SAFEPATH: also a test's `python -c` takes the package from there, not from where it runs
    where = {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    listed = package / "tests"
    listed.write_text("\n".join(tests))
    options = ("-x", "-q", "-p", "no:cacheprovider", f"@{listed}")
    command = [sys.executable, "-m", "pytest", *options]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | threads | where,
            capture_output=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    # 2 and 4: the package, or a test's module, cannot be imported
    if done.returncode not in (0, 1, 2) and b"ERROR collecting" not in done.stdout:
        raise RuntimeError(done.stdout.decode()[-2000:])
    return done.returncode == 0


def killers(modules: Sequence[str], package: Path) -> tuple[Comers, Comers]:
    """The tests to ask about each check: those of the modules that come to it, and the hostile
    inputs that do."""
    own = dict.fromkeys(f"tests/{name}" for module in modules for name in MODULES[module][0])
    surfaces = dict.fromkeys(MODULES[module][1] for module in modules)
    hostile = [BAD_INPUT, "-k", " or ".join(surfaces)]
    return comers(modules, package, [*own, *QUICK]), comers(modules, package, hostile)


def tried(mutant: Mutant, package: Path, asked: Iterable[Comers]) -> bool:
    """Whether a mutant survives the tests that come to it; the package is as before afterwards."""
    coming = [tests.get((mutant.module, mutant.number), []) for tests in asked]
    with put(package / "xpmlp" / mutant.module, mutant.source):
        return all(survives(package, tests) for tests in coming if tests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one (all)")
    parser.add_argument("--removed", action="store_true", help="negate no check")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout
    modules, count, left = options.module or list(MODULES), 0, []
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(ROOT / "xpmlp", package / "xpmlp")
        asked = killers(modules, package)
        for module in modules:
            for mutant in mutants(module):
                if options.removed and not mutant.what.startswith("removed"):
                    continue
                count += 1
                if tried(mutant, package, asked):
                    left.append(mutant._asdict() | {"source": ""})
                    print(f"survives: {module}:{mutant.line} {mutant.what}", file=out, flush=True)
            print(f"{module}: {count} so far, {len(left)} survive", file=out, flush=True)
    if options.json:
        print(json.dumps({"mutants": count, "survivors": left}))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
