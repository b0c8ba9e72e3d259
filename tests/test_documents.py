"""Every example that the documents and docstrings show is run, and prints what they say."""

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
    """(page, command, what it prints) of every console block."""
    found = []
    for page in PAGES:
        for block in blocks(page, "console"):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, printed = part.partition("\n")
                found.append((page.name, command, printed.rstrip()))
    return found


def pattern(printed: str) -> str:
    """A regular expression in which # stands for a number."""
    return re.escape(printed).replace(r"\#", r"[-+.\de]+")


@pytest.mark.parametrize(("page", "command", "printed"), commands())
def test_console_block_prints_what_the_page_says(page, command, printed, tmp_path):
    words = shlex.split(command)
    if words[0] == "xpmlp":
        words = [sys.executable, "-m", *words]
    if words[0] == "python":
        words = [sys.executable, str(ROOT / words[1]), *words[2:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(pattern(printed), done.stdout.rstrip()), done.stdout


# the examples train a few epochs: they warn as scikit-learn's would
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
    named = {
        word
        for row in re.findall(r"^\| (`.*?) \|", page, re.M)
        for word in re.findall(r"`(\w+)`", row)
    }
    known = {p for kind in (xpmlp.MLPClassifier, xpmlp.MLPRegressor) for p in kind().get_params()}
    assert named == known


NAMES = {
    "Activations": ACTIVATIONS, "Losses": LOSSES, "Optimizers": OPTIMIZERS,
    "Schedules": SCHEDULES, "Initializers": INITIALIZERS | {"auto": None},
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_the_page_of_names_has_them_all(kind):
    """With the arguments, and what they are by default."""
    page = (ROOT / "docs" / "names.md").read_text()
    part = re.split(r"^## ", page, flags=re.M)
    (text,) = [one for one in part if one.startswith(kind)]
    listed = text.partition("Your own")[0]
    if kind == "Optimizers":
        for name, entry in OPTIMIZERS.items():
            rows = [line for line in listed.splitlines() if "|" in line]
            (row,) = [line for line in rows if f"`{name}`" in line.split("|")[1]]
            same = OPTIMIZERS["adam"].defaults if "the same" in row else {}
            for word, value in entry.defaults.items():
                known = same.get(word) == value
                assert known or f"`{word}` {value:g}".replace("e-0", "e-") in row
        listed = "".join(line.split("|")[1] for line in listed.splitlines() if "|" in line)
    given = re.findall(r"`([a-z_]+)(?::([a-z_,.]+))?`(?: \(([-\d., e]+)\))?", listed)
    assert {name for name, _, _ in given} - {"end", "start", "peak"} == set(NAMES[kind])
    for name, words, values in given:
        entry = NAMES[kind].get(name)
        made = kind != "Optimizers" and isfunction(entry)
        parameters = signature(entry).parameters if made else {}
        if name == "quantile":  # any number of levels
            assert (words, values) == ("level,...", "0.5")
        else:
            assert [word for word in words.split(",") if word] == list(parameters), name
            defaults = [p.default for p in parameters.values()]
            assert [float(value) for value in values.split(", ") if value] == defaults, name


def test_every_guarantee_names_a_test_that_pytest_collects():
    page = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [row for row in re.findall(r"^\| (.*) \|$", page, re.M) if "shown by" not in row]
    named = [re.findall(r"`(tests/\S+\.py::\w+)`$", row) for row in rows if set(row) - set("- |")]
    assert named
    assert all(named), "a row names no test"
    asked = sorted({test for (test,) in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("[")[0] for line in done.stdout.splitlines()}
    assert set(asked) <= collected


def test_every_linked_file_exists():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:  # whose blocks test_recipes.py runs
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_xpmlp_is_the_installed_wheel():
    if "XPMLP_REQUIRE" not in os.environ:
        pytest.skip("outside CI the package may be imported from its source")
    assert "site-packages" in xpmlp.__file__
