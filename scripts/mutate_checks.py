#!/usr/bin/env python
"""Remove the checks of the package one by one, and list those that no test misses.

python scripts/mutate_checks.py                       # every check: an hour or two
python scripts/mutate_checks.py --module fit/checks.py --json
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BAD_INPUT = "tests/test_bad_input.py"
CHECKPOINT = "tests/estimators/test_checkpoint.py::test_bad_arguments_are_named_before_any_work"
# Per module: whose hostile inputs come first, and the tests to ask when none of them falls
MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fit/checks.py": ("core or estimators", ("tests/fit/test_checks.py",)),
    "fit/labels.py": ("core", ("tests/fit/test_labels.py", "tests/fit/test_checks.py")),
    "fit/data.py": ("core", ("tests/fit/test_data.py", "tests/fit/test_checks.py")),
    "fit/settings.py": ("core", ("tests/fit/test_settings.py", "tests/fit/test_population.py")),
    "fit/run.py": ("core", ("tests/fit/test_train.py", "tests/fit/test_callbacks.py")),
    "fit/memory.py": ("memory", ()),
    "fit/probes.py": ("core", ("tests/fit/test_settings.py", "tests/fit/test_train.py")),
    "core/spec.py": ("core", ("tests/core/test_spec.py",)),
    "backends/devices.py": ("devices", ("tests/backends/test_devices.py",)),
    "estimators/inputs.py": ("estimators", ("tests/estimators/test_errors.py",)),
    "estimators/classes.py": ("estimators", ("tests/estimators/test_errors.py",
                                            "tests/estimators/test_new_parameters.py")),
    "estimators/network.py": ("estimators", ("tests/estimators/test_errors.py",
                                            "tests/estimators/test_continuation.py")),
    "estimators/base.py": ("estimators", ("tests/estimators/test_errors.py",
                                         "tests/estimators/test_held_out.py", CHECKPOINT)),
    "estimators/question.py": ("estimators", (CHECKPOINT,)),
    "table/reading.py": ("command", ("tests/table/test_reading.py",)),
    "table/fitting.py": ("command", ("tests/table/test_fitting.py", "tests/cli/test_train.py")),
    "table/model.py": ("command", ("tests/table/test_model.py",
                                   "tests/storage/test_table_file.py")),
    "table/splits.py": ("command", ("tests/table/test_splits.py",)),
    "cli/train.py": ("command", ("tests/cli/test_train.py",)),
    "cli/predict.py": ("command", ("tests/cli/test_using.py",)),
    "cli/using.py": ("command", ("tests/cli/test_using.py",)),
    "cli/inspect.py": ("command", ("tests/cli/test_using.py",)),
}  # fmt: skip
CALLED = ("check", "refuse", "warn", "known_labels", "probe", "same_shape", "writable", "numbered")
SECONDS = 300  # of one run of tests; a hang is a test that falls


class Mutant(NamedTuple):
    """A module's source without one of its checks."""

    module: str
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
            yield Mutant(module, node.lineno, what, without(tree, number, change))  # type: ignore[attr-defined]


def survives(package: Path, tests: list[str]) -> bool:
    """Whether the tests pass on the package in that folder."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | threads | {"PYTHONPATH": str(package)},
            capture_output=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # 2: the package cannot be imported
        raise RuntimeError(done.stdout.decode()[-2000:])
    return done.returncode == 0


def tried(mutant: Mutant, package: Path) -> bool:
    """Whether a mutant survives all of its tests; the package is as before afterwards."""
    surface, more = MODULES[mutant.module]
    file = package / "xpmlp" / mutant.module
    before = file.read_text()
    file.write_text(mutant.source)
    try:
        if not survives(package, [BAD_INPUT, "-k", surface]):
            return False
        return not more or survives(package, [*more, "-m", "not slow"])
    finally:
        file.write_text(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one (all)")
    parser.add_argument("--removed", action="store_true", help="negate no check")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout
    count, left = 0, []
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(ROOT / "xpmlp", package / "xpmlp")
        if not survives(package, [BAD_INPUT, "-k", "judge or every"]):
            parser.error("the tests fail before any check is removed")
        for module in options.module or MODULES:
            for mutant in mutants(module):
                if options.removed and not mutant.what.startswith("removed"):
                    continue
                count += 1
                if tried(mutant, package):
                    left.append(mutant._asdict() | {"source": ""})
                    print(f"survives: {module}:{mutant.line} {mutant.what}", file=out, flush=True)
            print(f"{module}: {count} so far, {len(left)} survive", file=out, flush=True)
    if options.json:
        print(json.dumps({"mutants": count, "survivors": left}))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
