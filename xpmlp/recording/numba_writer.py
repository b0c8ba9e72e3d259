"""Traced functions compiled by numba into one pass (extra: fast).

A function is one loop over rows: the members of a population for a rule, the rows of a batch for
an activation, a slope or a loss. The loop is generated from the program, stored in the user's
cache folder, and compiled once per function and dtype: hyper-parameters and sizes are arguments.
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

from xpmlp.recording.codegen import RowSource, output_values
from xpmlp.recording.plans import CompileRequest, Plan
from xpmlp.recording.tracing import REDUCTIONS, UntraceableError, Value

MIN_SIZE = 2**15  # parameters; loading numba takes half a second, and ufuncs are fast below
MANY = 350_000  # operations over all steps, from which under a microsecond each pays for loading
# nanoseconds that a compiled operation saves over a ufunc: per call, per element, and per row for
# the inner loop of each row that a ufunc reduces or broadcasts; and that an element of COSTLY loses
CALL_NS, ELEMENT_NS, ROW_NS, COSTLY_NS = 500, 0.2, 14, 3
COSTLY = (
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "sin",
    "cos",
    "power",
)  # NumPy has them vectorized
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


def compile_plan(request: CompileRequest, steps: int) -> Plan | None:
    """The compiled plan; None where numba cannot be used, where it will not pay in so many steps,
    and for arrays of unsupported shapes."""
    all_arrays = (*request.arguments, *request.into)
    if any(a.dtype.kind != "f" for a in all_arrays) or not all_arrays:
        return None
    is_large = bool(request.into) and max(a.size for a in all_arrays) >= MIN_SIZE
    is_frequent = len(request.program.operations) * steps >= MANY
    if not (is_large or is_frequent) or not available():
        return None
    try:
        outputs, result_indices = output_values(request)
        source = PythonRowSource(request)
    except UntraceableError:
        return None
    if not outputs or not source.is_faster:
        return None
    text = source.text(outputs, request.name)
    types = tuple((source.shapes[v.at], np.dtype(source.dtypes[v.at])) for v in outputs)
    numbers = np.array([*map(float, source.numbers)], dtype=request.arguments[0].dtype)
    first = (numbers, source.rows, source.width)
    buffers = request.into or [np.empty(shape, dtype=dtype) for shape, dtype in types]
    run = compile_source(text, request.name, *first, *request.arguments, *buffers)
    if run is None:
        return None
    if request.into:
        types, result_indices = (), ()
    return Plan(partial(run, *first), types, result_indices)


def compile_source(text: str, title: str, *args: Any) -> Callable[..., None] | None:
    """The compiled function of a source, for arguments like these: compiled, or loaded, here.

    None without a working numba or a writable cache folder, or where a file is truncated.
    """
    try:
        run = load_function(text, title)
        dispatcher: Any = run
        dispatcher.compile(tuple(map(importlib.import_module("numba").typeof, args)))
    except Exception:
        remove_cached(text)
        return None
    return run


class PythonRowSource(RowSource):
    """Writes the loops over rows `i` and columns `j` in what numba compiles."""

    MAX_COLUMNS = float("inf")
    COSTLY = COSTLY
    LOADS: ClassVar = {
        "scalar": "x{at}",
        "matrix": "x{at}[i, j]",
        "row": "x{at}[j]",
        "column": "x{at}[i]",
        "row per block": "x{at}[i // e{at}, 0, j]",
        "scalar per block": "x{at}[i // e{at}, 0, 0]",
    }
    VIEWS: ClassVar = {
        "scalar": "{x} = {a}.item()",
        "matrix": "{x} = {a}.reshape((rows, width))",
        "row": "{x} = {a}.reshape(width)",
        "column": "{x} = {a}.reshape(rows)",
        "row per block": "{x}, {e} = {a}.copy(), rows // {a}.shape[0]",
        "scalar per block": "{x}, {e} = {a}, rows // {a}.shape[0]",
    }

    def __init__(self, request: CompileRequest) -> None:
        self.numbers: dict[str, int] = {}  # as they are written; 0.0 is not -0.0
        self.aliases = request.aliases
        super().__init__(request.program, request.arguments)
        pairs = zip(request.arguments, self.layouts, strict=True)
        reshaped = [a for a, layout in pairs if not layout.endswith("per block")]
        if not all(a.flags.c_contiguous for a in (*reshaped, *request.into)):
            raise UntraceableError("it has an array that is not contiguous")
        for buffer, value in zip(request.into, request.program.results, strict=False):
            if buffer.size != self.rows * (self.width if self.varies[value.at] else 1):
                raise UntraceableError("a result is broadcast to its buffer")

    @property
    def is_faster(self) -> bool:
        """Whether NumPy would take longer."""
        operations = self.program.operations
        if len(operations) < 2:
            return False
        pairs = zip(operations, self.varies[self.n_arguments :], strict=True)
        names = [name for (name, _), varies in pairs if varies or name in REDUCTIONS]
        n_row_loops = sum(name in REDUCTIONS for name in names)
        n_row_loops += self.layouts.count("row per block")
        elements, n_costly = self.rows * self.width, sum(name in COSTLY for name in names)
        saved = len(operations) * CALL_NS + (len(names) - n_costly) * ELEMENT_NS * elements
        return saved + n_row_loops * ROW_NS * self.rows > n_costly * COSTLY_NS * elements

    def literal(self, number: float, kind: str) -> str:
        return f"c[{self.numbers.setdefault(repr(number), len(self.numbers))}]"

    def line(self, index: int) -> str:
        name, inputs = self.program.operations[index]
        if name == "cast" and self.dtypes[self.n_arguments + index] != self.dtypes[0]:
            raise UntraceableError("it casts to another dtype")
        operands = [self.names[v.at] if v.at >= 0 else self.literal(v.constant, "") for v in inputs]
        return f"{self.names[self.n_arguments + index]} = {expression(name, operands)}"

    def column_loop(self, lines: Sequence[str]) -> Iterator[str]:
        yield "for j in range(width):"
        yield from (f"    {line}" for line in lines)

    def initialize(self, at: int, number: float) -> str:
        return f"{self.names[at]} = {self.literal(number, '')}"

    def update_sum(self, total: str, x: str) -> str:
        return f"{total} += {x}"

    def update_max(self, total: str, x: str) -> str:
        return f"{total} = {x} if ({x} > {total}) | ({x} != {x}) else {total}"

    def row_buffer(self, at: int) -> str:
        return f"m{at}[j]"

    def store(self, r: int, at: int) -> str:
        element = "i, j" if self.varies[at] else "i"
        return f"y{r}[{element}] = {self.names[at]}"

    def output_view(self, r: int, value: Value) -> str:
        """Where a result is written. By another name than that of the argument in the same memory
        the compiler would have to allow for any overlap, and the loop would be four times slower.
        """
        old = self.aliases[r] if self.aliases else -1
        layout = "matrix" if self.varies[value.at] else "column"
        if old >= 0 and self.layouts[old] == layout:
            return f"y{r} = x{old}"
        return self.VIEWS[layout].format(x=f"y{r}", a=f"r{r}")

    def text(self, results: Sequence[Value], title: str) -> str:
        """The module that holds the loops."""
        row_body = self.by_rows(results).splitlines()
        lines = [
            self.VIEWS[layout].format(x=f"x{at}", a=f"a{at}", e=f"e{at}")
            for at, layout in enumerate(self.layouts)
        ]
        lines += [self.output_view(r, value) for r, value in enumerate(results)]
        lines += [f"m{at} = np.empty(width, np.{self.dtypes[0]})" for at in sorted(self.buffered)]
        lines += ["for i in range(rows):", *(f"    {line}" for line in row_body)]
        parameters = ["c", "rows", "width", *(f"a{i}" for i in range(self.n_arguments))]
        parameters += [f"r{r}" for r in range(len(results))]
        head = HEAD.format(title=title, parameters=", ".join(parameters), dtype=self.dtypes[0])
        return head + "".join(f"    {line}\n" for line in lines)


def expression(name: str, operands: Sequence[str]) -> str:
    if name in INFIX:
        return f" {INFIX[name]} ".join(operands)
    return FORMS.get(name, f"np.{name}({', '.join('{}' for _ in operands)})").format(*operands)


@cache
def load_function(text: str, title: str) -> Callable[..., None]:
    """The compiled loop of a source, whose module is written to the cache folder if need be."""
    path = cache_path(text)
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{secrets.token_hex(6)}")
        try:
            unfinished.write_text(text)
            unfinished.replace(path)  # atomic for another process
        finally:
            unfinished.unlink(missing_ok=True)
        print(f"xpmlp: compiling {title} once, kept in {path.parent}", file=sys.stderr)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba's cache looks the module up by its name
    spec.loader.exec_module(module)
    run: Callable[..., None] = module.run
    return run


def remove_cached(text: str) -> None:
    """Delete a loop that does not run from the cache: the next process writes it again."""
    with suppress(Exception):
        path = cache_path(text)
        for part in (path, *path.parent.glob(f"__pycache__/{path.stem}*")):
            part.unlink(missing_ok=True)


def cache_path(text: str) -> Path:
    """The file of a source's module."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_folder() / f"xpmlp_{digest}.py"


def cache_folder() -> Path:
    """The folder of compiled loops: $XDG_CACHE_HOME/xpmlp, or ~/.cache/xpmlp."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "xpmlp"
