"""Traced functions compiled by numba into one pass (extra: fast).

A rule is one loop over the parameters; an activation, a slope or a loss is one walk from row to
row. The loop is written out from the program, kept in the user's cache directory, and compiled
once per function and dtype: hyper-parameters and sizes are arguments.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xpmlp.backends.calls import Asked, Plan
from xpmlp.backends.sources import RowSource, placed
from xpmlp.backends.tracing import Program, UntraceableError, Value
from xpmlp.core.types import Array

PAYS_FROM = 2**15  # parameters; loading numba takes half a second, and ufuncs are fast below
MANY = 350_000  # operations over all steps: each saves under a microsecond, together that time
FEW = 2**11  # elements, up to which the time of ufuncs' calls counts for more than their speed
INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "greater": ">",
    "less": "<", "greater_equal": ">=", "less_equal": "<=", "logical_and": "and",
}  # fmt: skip
FORMS = {"negative": "-{}", "abs": "abs({})", "where": "{1} if {0} else {2}"}
FORMS |= {"cast": "one if {} else zero", "logical_not": "not {}"}
# np.maximum hands a NaN on
FORMS |= {
    "maximum": "{0} if {0} != {0} or {0} >= {1} else {1}",
    "minimum": "{0} if {0} != {0} or {0} <= {1} else {1}",
}

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


def suits(asked: Asked, steps: int) -> bool:
    """Whether it may be compiled and that will pay, in so many steps.

    A rule's arrays must be of one size, or single numbers.
    """
    every = (*asked.values, *asked.into)
    sizes = {a.size for a in every} - {1}
    if not sizes or (asked.into and len(sizes) > 1) or len(asked.program.operations) < 2:
        return False
    if any(a.dtype.kind != "f" or not a.flags.c_contiguous for a in every) or not available():
        return False
    long = bool(asked.into) and max(sizes) >= PAYS_FROM
    return long or len(asked.program.operations) * steps >= MANY


def plan(asked: Asked, steps: int) -> Plan | None:
    """The compiled plan, where there is one and it pays in so many steps."""
    if not suits(asked, steps):
        return None
    return loop(asked) if asked.into else rows(asked)


def tried(text: str, title: str, *given: Any) -> Callable[..., None] | None:
    """The compiled function of a source, run once on `given`: it is compiled, or found, here.

    None without a numba that works or a folder to keep it in, or where a file was cut short.
    """
    try:
        run = module(text, title)
        run(*given)
    except Exception:
        forget(text)
        return None
    return run


def rows(asked: Asked) -> Plan | None:
    """An activation, a slope or a loss as one walk from row to row; None where numba cannot be
    used, where NumPy is faster, or for arrays of other shapes."""
    try:
        wanted, found = placed(asked)
        written = PythonRows(asked.program, asked.values)
    except UntraceableError:
        return None
    if not wanted or written.rows * written.width > FEW:
        return None
    text = written.text(wanted, asked.name)
    numbers = np.array([*map(float, written.numbers)], dtype=asked.values[0].dtype)
    made = tuple((written.shapes[v.at], np.dtype(written.dtypes[v.at])) for v in wanted)
    ones = [np.ones((1,) * a.ndim, dtype=a.dtype) for a in asked.values]
    places = [np.ones((1,) * len(shape), dtype=dtype) for shape, dtype in made]
    run = tried(text, asked.name, numbers, 1, 1, *ones, *places)
    if run is None:
        return None
    return Plan(partial(run, numbers, written.rows, written.width), made, found)


class PythonRows(RowSource):
    """Writes the loops over rows `i` and columns `j` in what numba compiles."""

    WIDEST = float("inf")
    READ: ClassVar = {
        "one": "x{at}",
        "each": "x{at}[i, j]",
        "across": "x{at}[j]",
        "down": "x{at}[i]",
    }
    SEEN: ClassVar = {"one": "item()", "each": "reshape((rows, width))", "across": "reshape(width)",
            "down": "reshape(rows)"}  # fmt: skip

    def __init__(self, program: Program, given: Sequence[Array]) -> None:
        self.numbers: dict[str, int] = {}  # as they are written; 0.0 is not -0.0
        super().__init__(program, given)

    def literal(self, number: float, kind: str) -> str:
        return f"c[{self.numbers.setdefault(repr(number), len(self.numbers))}]"

    def line(self, index: int) -> str:
        name, inputs = self.program.operations[index]
        if name == "cast" and self.program.cast not in (None, self.dtypes[0]):
            raise UntraceableError("it casts to another dtype")
        read = [self.names[v.at] if v.at >= 0 else self.literal(v.constant, "") for v in inputs]
        return f"{self.names[self.first + index]} = {expression(name, read)}"

    def looped(self, lines: Sequence[str]) -> Iterator[str]:
        yield "for j in range(width):"
        yield from (f"    {line}" for line in lines)

    def begun(self, at: int, number: float) -> str:
        return f"{self.names[at]} = {self.literal(number, '')}"

    def added(self, total: str, x: str) -> str:
        return f"{total} += {x}"

    def larger(self, total: str, x: str) -> str:
        return f"{total} = {x} if {x} != {x} or {x} > {total} else {total}"

    def written(self, r: int, at: int) -> str:
        return f"y{r}[i, j] = {self.names[at]}" if self.along[at] else f"y{r}[i] = {self.names[at]}"

    def text(self, results: Sequence[Value], title: str) -> str:
        """The module that holds the loops."""
        inside = self.by_rows(results).splitlines()
        lines = [f"x{at} = a{at}.{self.SEEN[how]}" for at, how in enumerate(self.held)]
        for r, value in enumerate(results):
            lines.append(f"y{r} = r{r}.{self.SEEN['each' if self.along[value.at] else 'down']}")
        lines += ["for i in range(rows):", *(f"    {line}" for line in inside)]
        parameters = ["c", "rows", "width", *(f"a{i}" for i in range(self.first))]
        parameters += [f"r{r}" for r in range(len(results))]
        head = HEAD.format(title=title, parameters=", ".join(parameters), dtype=self.dtypes[0])
        return head + "".join(f"    {line}\n" for line in lines)


def loop(asked: Asked) -> Plan | None:
    """A rule as one pass over the parameters; None where numba cannot be used."""
    program, given, into, aliases, title = asked
    numbers = np.array(
        [v.constant for o in program.operations for v in o.inputs if v.at < 0], dtype=into[0].dtype
    )
    if any(value.at < 0 for value in program.results):
        raise UntraceableError("it gives a constant")
    single = [a.size == 1 for a in given]
    text = source(program, single, aliases, str(into[0].dtype), title)
    one = np.ones(1, dtype=into[0].dtype)
    run = tried(text, title, numbers, *[one.copy() for _ in (*given, *into)])
    if run is None:
        return None

    def planned(*arrays: Array) -> None:
        run(numbers, *[a.reshape(-1) for a in arrays])

    return Plan(planned, (), ())


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
