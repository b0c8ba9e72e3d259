"""Traced functions compiled by numba into one pass (extra: fast).

A function is one walk from row to row: over the members of a population for a rule, over the rows
of a batch for an activation, a slope or a loss. The loop is written out from the program, kept in
the user's cache directory, and compiled once per function and dtype: hyper-parameters and sizes
are arguments.
"""

import hashlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xpmlp.recording.codegen import RowSource, placed
from xpmlp.recording.plans import Asked, Plan
from xpmlp.recording.tracing import REDUCTIONS, UntraceableError, Value

PAYS_FROM = 2**15  # parameters; loading numba takes half a second, and ufuncs are fast below
MANY = 350_000  # operations over all steps: each saves under a microsecond, together that time
# nanoseconds that a ufunc takes and a compiled operation does not: a call, an element, and an
# inner loop of its own for each row that it sums or spreads; and what an element of COSTLY loses
CALL, ELEMENT, ROW, LOST = 500, 0.2, 14, 3
COSTLY = ("exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "power")  # NumPy has vectors of it
INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "greater": ">",
    "less": "<", "greater_equal": ">=", "less_equal": "<=", "logical_and": "&",
}  # fmt: skip
FORMS = {"negative": "-{}", "abs": "abs({})", "where": "{1} if {0} else {2}"}
FORMS |= {"cast": "one if {} else zero", "logical_not": "not {}"}
# np.maximum hands a NaN on; a branch, as of `or`, would keep the compiler from using vectors
FORMS |= {
    "maximum": "{1} if ({0} < {1}) | ({1} != {1}) else {0}",
    "minimum": "{1} if ({0} > {1}) | ({1} != {1}) else {0}",
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


def plan(asked: Asked, steps: int) -> Plan | None:
    """The compiled plan; None where numba cannot be used, where it will not pay in so many steps,
    and for arrays of other shapes."""
    every = (*asked.values, *asked.into)
    if any(a.dtype.kind != "f" for a in every) or not every:
        return None
    long = bool(asked.into) and max(a.size for a in every) >= PAYS_FROM
    if not (long or len(asked.program.operations) * steps >= MANY) or not available():
        return None
    try:
        wanted, found = placed(asked)
        written = PythonRows(asked)
    except UntraceableError:
        return None
    if not wanted or not written.pays:
        return None
    text = written.text(wanted, asked.name)
    made = tuple((written.shapes[v.at], np.dtype(written.dtypes[v.at])) for v in wanted)
    numbers = np.array([*map(float, written.numbers)], dtype=asked.values[0].dtype)
    first = (numbers, written.rows, written.width)
    places = asked.into or [np.empty(shape, dtype=dtype) for shape, dtype in made]
    run = tried(text, asked.name, *first, *asked.values, *places)
    if run is None:
        return None
    return Plan(partial(run, *first), () if asked.into else made, () if asked.into else found)


def tried(text: str, title: str, *given: Any) -> Callable[..., None] | None:
    """The compiled function of a source, for arguments like these: it is compiled, or found, here.

    None without a numba that works or a folder to keep it in, or where a file was cut short.
    """
    try:
        run = module(text, title)
        compiles: Any = run
        compiles.compile(tuple(map(importlib.import_module("numba").typeof, given)))
    except Exception:
        forget(text)
        return None
    return run


class PythonRows(RowSource):
    """Writes the loops over rows `i` and columns `j` in what numba compiles."""

    WIDEST = float("inf")
    COSTLY = COSTLY
    READ: ClassVar = {
        "one": "x{at}",
        "each": "x{at}[i, j]",
        "across": "x{at}[j]",
        "down": "x{at}[i]",
        "block": "x{at}[i // e{at}, 0, j]",
        "corner": "x{at}[i // e{at}, 0, 0]",
    }
    SEEN: ClassVar = {
        "one": "{x} = {a}.item()",
        "each": "{x} = {a}.reshape((rows, width))",
        "across": "{x} = {a}.reshape(width)",
        "down": "{x} = {a}.reshape(rows)",
        "block": "{x}, {e} = {a}.copy(), rows // {a}.shape[0]",
        "corner": "{x}, {e} = {a}, rows // {a}.shape[0]",
    }

    def __init__(self, asked: Asked) -> None:
        self.numbers: dict[str, int] = {}  # as they are written; 0.0 is not -0.0
        self.aliases = asked.aliases
        super().__init__(asked.program, asked.values)
        held = zip(asked.values, self.held, strict=True)
        whole = [a for a, how in held if how not in ("block", "corner")]
        if not all(a.flags.c_contiguous for a in (*whole, *asked.into)):
            raise UntraceableError("it has an array that is a part of another")
        for place, value in zip(asked.into, asked.program.results, strict=False):
            if place.size != self.rows * (self.width if self.along[value.at] else 1):
                raise UntraceableError("it gives one number for many places")

    @property
    def pays(self) -> bool:
        """Whether NumPy would take longer."""
        operations = self.program.operations
        if len(operations) < 2:
            return False
        names = [name for (name, _), along in zip(operations, self.along[self.first :], strict=True)
                 if along or name in REDUCTIONS]  # fmt: skip
        spread = [name for name in names if name in REDUCTIONS] + [
            how for how in self.held if how == "block"
        ]
        elements, costly = self.rows * self.width, sum(name in COSTLY for name in names)
        gained = len(operations) * CALL + (len(names) - costly) * ELEMENT * elements
        return gained + len(spread) * ROW * self.rows > costly * LOST * elements

    def literal(self, number: float, kind: str) -> str:
        return f"c[{self.numbers.setdefault(repr(number), len(self.numbers))}]"

    def line(self, index: int) -> str:
        name, inputs = self.program.operations[index]
        if name == "cast" and self.dtypes[self.first + index] != self.dtypes[0]:
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
        return f"{total} = {x} if ({x} > {total}) | ({x} != {x}) else {total}"

    def place_of(self, at: int) -> str:
        return f"m{at}[j]"

    def written(self, r: int, at: int) -> str:
        return f"y{r}[i, j] = {self.names[at]}" if self.along[at] else f"y{r}[i] = {self.names[at]}"

    def place(self, r: int, value: Value) -> str:
        """Where a result goes. By another name than the argument's that lies there the compiler
        would have to allow for any overlap, and the loop would be four times slower."""
        old = self.aliases[r] if self.aliases else -1
        seen = "each" if self.along[value.at] else "down"
        if old >= 0 and self.held[old] == seen:
            return f"y{r} = x{old}"
        return self.SEEN[seen].format(x=f"y{r}", a=f"r{r}")

    def text(self, results: Sequence[Value], title: str) -> str:
        """The module that holds the loops."""
        inside = self.by_rows(results).splitlines()
        lines = [
            self.SEEN[how].format(x=f"x{at}", a=f"a{at}", e=f"e{at}")
            for at, how in enumerate(self.held)
        ]
        lines += [self.place(r, value) for r, value in enumerate(results)]
        lines += [f"m{at} = np.empty(width, np.{self.dtypes[0]})" for at in sorted(self.kept)]
        lines += ["for i in range(rows):", *(f"    {line}" for line in inside)]
        parameters = ["c", "rows", "width", *(f"a{i}" for i in range(self.first))]
        parameters += [f"r{r}" for r in range(len(results))]
        head = HEAD.format(title=title, parameters=", ".join(parameters), dtype=self.dtypes[0])
        return head + "".join(f"    {line}\n" for line in lines)


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
        unfinished = path.with_suffix(f".{secrets.token_hex(6)}")
        try:
            unfinished.write_text(text)
            unfinished.replace(path)  # another process finds it whole or not at all
        finally:
            unfinished.unlink(missing_ok=True)
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
