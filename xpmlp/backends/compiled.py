"""A traced rule compiled by numba into one pass over the parameters (extra: fast).

The loop is written out from the program, kept in the user's cache directory, and compiled once
per rule and dtype: hyper-parameters are arguments.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from xpmlp.backends.tracing import Program, UntraceableError
from xpmlp.core.types import Array

PAYS_FROM = 2**15  # parameters; loading numba takes half a second, and ufuncs are fast below
MANY = 25_000  # steps, in which a small update too saves that time
PAYS_THEN_FROM = 2**10
INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "greater": ">",
    "less": "<", "greater_equal": ">=", "less_equal": "<=", "logical_and": "and",
}  # fmt: skip
FORMS = {"negative": "-{}", "abs": "abs({})", "where": "{1} if {0} else {2}"}
FORMS["cast"] = "one if {} else zero"

HEAD = '''"""Written by xpmlp: {title} as one loop. May be deleted."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def run({parameters}):
    one, zero = np.{dtype}(1), np.{dtype}(0)
'''


@cache
def available() -> bool:
    """Whether numba is installed; it is not imported to find out."""
    return importlib.util.find_spec("numba") is not None


def suits(given: Sequence[Array], into: Sequence[Array], least: int = PAYS_FROM) -> bool:
    """Whether a rule's arrays are contiguous and of one size, at least so large, or single
    numbers."""
    sizes = {a.size for a in (*given, *into)} - {1}
    flat = all(a.flags.c_contiguous for a in (*given, *into))
    return len(sizes) == 1 and max(sizes) >= least and flat and available()


def loop(
    program: Program,
    given: Sequence[Array],
    into: Sequence[Array],
    aliases: Sequence[int],
    title: str,
) -> Callable[..., None] | None:
    """A function of the arguments and of the results' buffers that runs the program in one pass;
    None where numba cannot be used, or nothing can be kept."""
    numbers = np.array(
        [v.constant for o in program.operations for v in o.inputs if v.at < 0], dtype=into[0].dtype
    )
    if any(value.at < 0 for value in program.results):
        raise UntraceableError("it gives a constant")
    single = [a.size == 1 for a in given]
    text = source(program, single, aliases, str(into[0].dtype), title)
    try:
        run = module(text, title)
        one = np.ones(1, dtype=into[0].dtype)
        run(numbers, *[one.copy() for _ in (*given, *into)])  # compiled, or found, here
    except Exception:  # no numba that works, no folder to keep it in, a file cut short
        forget(text)
        return None

    def planned(*arrays: Array) -> None:
        run(numbers, *[a.reshape(-1) for a in arrays])

    return planned


def source(
    program: Program, single: Sequence[bool], aliases: Sequence[int], dtype: str, title: str
) -> str:
    """The module that holds the loop: what depends on single numbers stands before it.

    A result that is written over an argument is written by that argument's name: by another, the
    compiler would have to allow for any overlap, and the loop would be four times slower.
    """
    count = len(single)
    names = [f"a{i}[0]" if one else f"a{i}[i]" for i, one in enumerate(single)]
    fixed, constant = list(single), 0
    before: list[str] = []
    inside: list[str] = []
    for operation in program.operations:
        read = []
        for value in operation.inputs:
            read.append(names[value.at] if value.at >= 0 else f"c[{constant}]")
            constant += value.at < 0
        alone = all(value.at < 0 or fixed[value.at] for value in operation.inputs)
        name = f"v{len(names)}"
        (before if alone else inside).append(f"{name} = {expression(operation.name, read)}")
        names.append(name)
        fixed.append(alone)
    places = [f"r{r}" if old < 0 else f"a{old}" for r, old in enumerate(aliases)]
    inside += [f"o{r} = {names[value.at]}" for r, value in enumerate(program.results)]
    inside += [f"{place}[i] = o{r}" for r, place in enumerate(places)]
    parameters = ["c", *(f"a{i}" for i in range(count)), *(f"r{r}" for r in range(len(places)))]
    head = HEAD.format(title=title, parameters=", ".join(parameters), dtype=dtype)
    lines = [f"    {line}" for line in before]
    lines += [f"    for i in range({places[0]}.size):", *(f"        {line}" for line in inside)]
    return head + "\n".join(lines) + "\n"


def expression(name: str, read: Sequence[str]) -> str:
    if name in INFIX:
        return f" {INFIX[name]} ".join(read)
    return FORMS.get(name, f"np.{name}({', '.join('{}' for _ in read)})").format(*read)


@cache
def module(text: str, title: str) -> Callable[..., None]:
    """The compiled loop of a source, which lies in the cache directory from then on."""
    path = kept_at(text)
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)  # another process finds it whole or not at all
        print(f"xpmlp: compiling {title} once, kept in {path.parent}", file=sys.stderr)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # numba finds what it kept by the module's name
    spec.loader.exec_module(found)
    run: Callable[..., None] = found.run
    return run


def forget(text: str) -> None:
    """Take a loop that does not run out of the cache, so that the next process writes it anew."""
    with suppress(Exception):
        path = kept_at(text)
        for part in (path, *path.parent.glob(f"__pycache__/{path.stem}*")):
            part.unlink(missing_ok=True)


def kept_at(text: str) -> Path:
    """Where the module of a source lies."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_folder() / f"xpmlp_{digest}.py"


def cache_folder() -> Path:
    """Where compiled loops are kept: $XDG_CACHE_HOME/xpmlp, or ~/.cache/xpmlp."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "xpmlp"
