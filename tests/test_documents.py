"""The examples of documents and docstrings run and print what is shown."""

import doctest
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib import import_module
from inspect import isfunction, signature
from pathlib import Path

import pytest

import xpmlp
from xpmlp.activations import ACTIVATIONS
from xpmlp.initializers import INITIALIZERS
from xpmlp.losses import LOSSES
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.schedules import SCHEDULES

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")])
MODULES = sorted({m.name for m in pkgutil.walk_packages(xpmlp.__path__, "xpmlp.")})
MODULES.remove("xpmlp.__main__")  # importing it runs the command line


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands() -> list[tuple[str, str, str]]:
    """(page, command, expected output) of every command in the console blocks."""
    examples = []
    for page in PAGES:
        for block in blocks(page, "console"):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, expected = part.partition("\n")
                examples.append((page.name, command, expected.rstrip()))
    return examples


def pattern(expected: str) -> str:
    """A regular expression in which # stands for a number."""
    return re.escape(expected).replace(r"\#", r"[-+.\de]+")


@pytest.mark.parametrize(("page", "command", "expected"), commands())
def test_console_block_prints_what_the_page_says(page, command, expected, tmp_path):
    arguments = shlex.split(command)
    if arguments[0] == "xpmlp":
        arguments = [sys.executable, "-m", *arguments]
    if arguments[0] == "python":
        arguments = [sys.executable, str(ROOT / arguments[1]), *arguments[2:]]
    result = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(pattern(expected), result.stdout.rstrip()), result.stdout


# the examples train for a few epochs and warn as scikit-learn does
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(page, "python"):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), 0)
            runner = doctest.DocTestRunner()
            assert runner.run(test, clear_globs=False).failed == 0
            names = test.globs
        else:
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    assert doctest.testmod(module, extraglobs={"np": import_module("numpy")}).failed == 0


def test_the_page_for_scikit_learn_names_every_parameter():
    page = (ROOT / "docs" / "from-scikit-learn.md").read_text()
    documented = {
        word
        for row in re.findall(r"^\| (`.*?) \|", page, re.M)
        for word in re.findall(r"`(\w+)`", row)
    }
    actual = {p for kind in (xpmlp.MLPClassifier, xpmlp.MLPRegressor) for p in kind().get_params()}
    assert documented == actual


def test_the_page_from_scikit_learn_has_all_solvers_and_losses():
    page = (ROOT / "docs" / "from-scikit-learn.md").read_text()
    for parameter, names in {
        "solver": {*OPTIMIZERS} - {"adam", "adam_sklearn", "sgd"},  # scikit-learn's
        "loss": {name for name in LOSSES if not name.endswith("cross_entropy")},
    }.items():
        (row,) = re.findall(rf"^\| `{parameter}`(?: \(regressor\))? \|(.*)$", page, re.M)
        assert names <= {word.partition(":")[0] for word in re.findall(r"`(.+?)`", row)}


NAMES = {
    "Activations": ACTIVATIONS, "Losses": LOSSES, "Optimizers": OPTIMIZERS,
    "Schedules": SCHEDULES, "Initializers": INITIALIZERS | {"auto": None},
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_the_page_of_names_is_complete(kind):
    """With the arguments and their default values."""
    page = (ROOT / "docs" / "names.md").read_text()
    sections = re.split(r"^## ", page, flags=re.M)
    (text,) = [section for section in sections if section.startswith(kind)]
    listed = text.partition("Your own")[0]
    if kind == "Optimizers":
        for name, entry in OPTIMIZERS.items():
            rows = [line for line in listed.splitlines() if "|" in line]
            (row,) = [line for line in rows if f"`{name}`" in line.split("|")[1]]
            inherited = OPTIMIZERS["adam"].defaults if "the same" in row else {}
            for word, value in entry.defaults.items():
                is_same = inherited.get(word) == value
                assert is_same or f"`{word}` {value:g}".replace("e-0", "e-") in row
        listed = "".join(line.split("|")[1] for line in listed.splitlines() if "|" in line)
    documented = re.findall(r"`([a-z_]+)(?::([a-z_,.]+))?`(?: \(([-\d., e]+)\))?", listed)
    assert {name for name, _, _ in documented} - {"end", "start", "peak"} == set(NAMES[kind])
    for name, arguments, values in documented:
        entry = NAMES[kind].get(name)
        is_factory = kind != "Optimizers" and isfunction(entry)
        parameters = signature(entry).parameters if is_factory else {}
        if name == "quantile":  # any number of levels
            assert (arguments, values) == ("level,...", "0.5")
        else:
            assert [word for word in arguments.split(",") if word] == list(parameters), name
            defaults = [p.default for p in parameters.values()]
            assert [float(value) for value in values.split(", ") if value] == defaults, name


def test_every_guarantee_names_a_test_that_pytest_collects():
    page = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [row for row in re.findall(r"^\| (.*) \|$", page, re.M) if "shown by" not in row]
    named = [re.findall(r"`(tests/\S+\.py::\w+)`$", row) for row in rows if set(row) - set("- |")]
    assert named
    assert all(named), "a row names no test"
    tests = sorted({test for (test,) in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", *tests]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    collected = {line.partition("[")[0] for line in result.stdout.splitlines()}
    assert set(tests) <= collected


def test_every_linked_file_exists():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:  # whose blocks test_recipes.py runs
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_xpmlp_is_the_installed_wheel():
    if "XPMLP_REQUIRE" not in os.environ:
        pytest.skip("outside CI the package may be imported from its source")
    assert "site-packages" in xpmlp.__file__
