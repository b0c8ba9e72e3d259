"""Code generation from a traced program: the body for one element, or for one row at a time.

The base classes generate CUDA C; `numba_writer` overrides lines, numbers and loops for Python.
"""

from collections.abc import Container, Iterator, Sequence
from math import isfinite, prod
from typing import ClassVar

from xpmlp.recording.plans import CompileRequest, broadcast_shape
from xpmlp.recording.tracing import REDUCTIONS, Program, UntraceableError, Value
from xpmlp.types import Array

TYPES = {"float32": "float", "float64": "double", "uint32": "unsigned int", "int64": "long long"}
FORMS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "greater": "{} > {}", "less": "{} < {}", "greater_equal": "{} >= {}", "less_equal": "{} <= {}",
    "logical_and": "{} && {}", "logical_not": "!{}", "negative": "-{}", "abs": "fabs({})",
    "where": "{} ? {} : {}", "cast": "{}", "power": "pow({}, {})",
    "bitwise_and": "{} & {}", "bitwise_xor": "{} ^ {}", "right_shift": "{} >> {}",
    # fmax and fmin drop a NaN; the Array API propagates it
    "maximum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmax({0}, {1})",
    "minimum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmin({0}, {1})",
}  # fmt: skip
MAX_COLUMNS = 64  # of a row that one thread loops over


def output_values(request: CompileRequest) -> tuple[list[Value], tuple[int, ...]]:
    """The values that need an output array, and the index of each result among arguments and
    outputs.

    Equal new results share an array, and an argument needs none.
    """
    program = request.program
    if any(value.at < 0 for value in program.results):
        raise UntraceableError("a result is a constant")
    for value, old in zip(program.results, request.aliases, strict=False):
        if value.at < program.n_arguments and value.at != old:
            raise UntraceableError("a result is an argument, which may be overwritten by then")
    outputs = list(program.results)
    if not request.into:
        outputs = list(dict.fromkeys(v for v in outputs if v.at >= program.n_arguments))
    indices = {value: program.n_arguments + r for r, value in enumerate(outputs)}
    return outputs, tuple(indices.get(value, value.at) for value in program.results)


class Source:
    """The body of a kernel: arguments a0, a1, ..., results r0, r1, ...

    All inputs of an element are read before any result is written: buffers may be shared.
    """

    def __init__(self, program: Program, arguments: Sequence[Array]) -> None:
        self.program, self.n_arguments = program, len(arguments)
        self.shapes = [tuple(a.shape) for a in arguments]  # of every value, as the dtypes
        self.dtypes = [*(str(a.dtype) for a in arguments), *program.dtypes]
        argument_dtypes = self.dtypes[: self.n_arguments]
        if not {*argument_dtypes} <= {*TYPES}:
            raise UntraceableError(f"its arguments are of {', '.join(argument_dtypes)}")
        for name, inputs in program.operations:
            shapes = [self.shapes[v.at] for v in inputs if v.at >= 0]
            self.shapes.append(broadcast_shape(name, shapes))
        self.names = [f"a{i}" for i in range(self.n_arguments)]
        self.names += [f"v{self.n_arguments + i}" for i in range(len(program.operations))]

    def literal(self, number: float, kind: str) -> str:
        """A number in C: in double precision, then rounded to the kernel's type."""
        if not isfinite(number):
            return f"({kind})({'-' if number < 0 else ''}1.0 / 0.0)"
        return f"({kind})({number!r}{'u' if kind == 'unsigned int' else ''})"

    def line(self, index: int) -> str:
        """The declaration of the result of operation number `index`."""
        name, inputs = self.program.operations[index]
        own = self.dtypes[self.n_arguments + index]
        operand = next((self.dtypes[v.at] for v in inputs if self.is_number(v)), own)
        c_type = TYPES[operand if operand in TYPES else self.dtypes[0]]
        operands = [
            self.names[v.at] if v.at >= 0 else self.literal(v.constant, c_type) for v in inputs
        ]
        form = FORMS.get(name, f"{name}({', '.join('{}' for _ in inputs)})").format(*operands)
        if name == "cast":
            form = f"({TYPES[own]})({form})"
        return f"const {TYPES.get(own, own)} {self.names[self.n_arguments + index]} = {form};"

    def is_number(self, value: Value) -> bool:
        return value.at >= 0 and self.dtypes[value.at] != "bool"

    def elementwise(self, results: Sequence[Value], scalars: Container[int] = ()) -> str:
        """scalars: indices of the results that are one number for all elements."""
        lines = [self.line(i) for i in range(len(self.program.operations))]
        lines += [
            f"if (i == 0) r{r}[0] = {self.names[value.at]};"
            if r in scalars
            else f"r{r} = {self.names[value.at]};"
            for r, value in enumerate(results)
        ]
        return "\n".join(lines)


class RowSource(Source):
    """The body for one row: `i` is the row, and loops over its columns count `j`."""

    MAX_COLUMNS: float = MAX_COLUMNS
    COSTLY: ClassVar[tuple[str, ...]] = ()  # operations whose results are buffered between loops
    LOADS: ClassVar = {"scalar": "a{at}[0]", "matrix": "a{at}[i * {width} + j]", "row": "a{at}[j]",
            "column": "a{at}[i]"}  # fmt: skip

    def __init__(self, program: Program, arguments: Sequence[Array]) -> None:
        super().__init__(program, arguments)
        shapes = self.shapes[: self.n_arguments]
        depth = max(map(len, shapes))
        self.width = max(shape[-1] if depth else 1 for shape in shapes if len(shape) == depth)
        self.lead_shape = broadcast_shape("add", [s[:-1] for s in shapes if len(s) > 1])
        self.rows = prod(self.lead_shape)
        if self.width > self.MAX_COLUMNS:
            raise UntraceableError(f"its rows have {self.width} columns")
        # an argument of one row is broadcast to all of them, and lacks no axis
        is_row = [at < self.n_arguments and s == (self.width,) for at, s in enumerate(self.shapes)]
        self.flat = [  # whether a value lacks the last axis
            len(s) == depth - 1 > 0 and not row for s, row in zip(self.shapes, is_row, strict=True)
        ]
        self.varies = [  # whether a value varies along a row
            self.width > 1 and (row or (len(s) == depth and s[-1] > 1))
            for s, row in zip(self.shapes, is_row, strict=True)
        ]
        self.level = [0] * self.n_arguments  # of every value: how many nested reductions it needs
        for at, (name, inputs) in enumerate(program.operations, self.n_arguments):
            operands = [v.at for v in inputs if v.at >= 0]
            if any(self.flat[k] for k in operands) and not all(self.flat[k] for k in operands):
                raise UntraceableError("it mixes rows with and without their last axis")
            self.level.append(max(self.level[k] for k in operands) + (name in REDUCTIONS))
            if name in REDUCTIONS:
                self.varies[at] = False
        self.layouts = [self.argument_layout(at) for at in range(self.n_arguments)]
        for at, layout in enumerate(self.layouts):
            self.names[at] = self.LOADS[layout].format(at=at, width=self.width)

    def argument_layout(self, at: int) -> str:
        """What an argument holds: a "scalar", a "matrix" of a number per element, a "row" of one
        per column, a "column" of one per row, or for each block of rows, such as a member's, a
        row ("row per block") or a number ("scalar per block")."""
        size, shape = prod(self.shapes[at]), self.shapes[at]
        if size == 1:
            return "scalar"
        if self.varies[at] and size == self.rows * self.width:
            return "matrix"
        if self.varies[at] and size == self.width:
            return "row"
        if not self.varies[at] and size == self.rows and shape[-1] == 1:
            return "column"
        has_blocks = len(shape) == 3 and shape[:2] == (self.lead_shape[0], 1)
        if "row per block" in self.LOADS and has_blocks:
            is_row = self.varies[at] and shape[2] == self.width
            return "row per block" if is_row else "scalar per block"
        raise UntraceableError(f"it has an argument of shape {shape}")

    # the syntax, which a subclass for another language overrides

    def column_loop(self, lines: Sequence[str]) -> Iterator[str]:
        """Lines for every column of the row."""
        yield f"for (int j = 0; j < {self.width}; ++j) {{"
        yield from (f"  {line}" for line in lines)
        yield "}"

    def initialize(self, at: int, number: float) -> str:
        c_type = TYPES[self.dtypes[at]]
        return f"{c_type} {self.names[at]} = {self.literal(number, c_type)};"

    def update_sum(self, total: str, x: str) -> str:
        return f"{total} += {x};"

    def update_max(self, total: str, x: str) -> str:
        return f"{total} = ({x} != {x} || {x} > {total}) ? {x} : {total};"

    def store(self, r: int, at: int) -> str:
        element = f"i * {self.width} + j" if self.varies[at] else "i"
        return f"r{r}[{element}] = {self.names[at]};"

    def row_buffer(self, at: int) -> str:
        """The element of a buffered value for column j."""
        raise NotImplementedError

    # loops over the columns of a row

    def dependencies(self, values: Sequence[int]) -> list[int]:
        """The operations that vary along the row and that these values depend on, in order."""
        found: set[int] = set()
        pending = [at for at in values if at >= self.n_arguments and self.varies[at]]
        while pending:
            at = pending.pop()
            if at in found or at in self.stored:
                continue
            found.add(at)
            inputs = self.program.operations[at - self.n_arguments].inputs
            pending += [v.at for v in inputs if v.at >= self.n_arguments and self.varies[v.at]]
        return sorted(found)

    def loop(self, values: Sequence[int], body: Sequence[str]) -> Iterator[str]:
        lines, operations = [], self.dependencies(values)
        for at in operations:
            lines.append(self.line(at - self.n_arguments))
            if at in self.buffered:
                lines.append(f"{self.row_buffer(at)} = {self.names[at]}")
        yield from self.column_loop([*lines, *body])
        for at in self.buffered.intersection(operations):
            self.stored.add(at)
            self.names[at] = self.row_buffer(at)

    def reductions(self, level: int) -> list[tuple[int, str, int]]:
        """The sums and maxima of a level: value, name and operand."""
        return [
            (at, name, inputs[0].at)
            for at, (name, inputs) in enumerate(self.program.operations, self.n_arguments)
            if name in REDUCTIONS and self.level[at] == level
        ]

    def reduction_loop(self, level: int) -> Iterator[str]:
        """The sums and maxima of a level, all in one loop over the columns."""
        body, reductions = [], self.reductions(level)
        for at, name, operand in reductions:
            is_sum = name.startswith("sum")
            yield self.initialize(at, 0.0 if is_sum else -float("inf"))
            update = self.update_sum if is_sum else self.update_max
            body.append(update(self.names[at], self.names[operand]))
        if body:
            yield from self.loop([operand for _, _, operand in reductions], body)

    def choose_buffered(self, results: Sequence[Value]) -> None:
        """Buffer what is costly and used by more than one loop."""
        self.stored: set[int] = set()  # values whose row buffer is filled already
        levels = range(max(self.level) + 1)
        loops = [
            self.dependencies([operand for _, _, operand in self.reductions(level)])
            for level in levels
        ]
        loops.append(self.dependencies([value.at for value in results]))
        operations = enumerate(self.program.operations, self.n_arguments)
        costly = {at for at, (name, _) in operations if name in self.COSTLY}
        self.buffered = {at for at in costly if sum(at in loop for loop in loops) > 1}

    def by_rows(self, results: Sequence[Value]) -> str:
        lines: list[str] = []
        self.choose_buffered(results)
        for level in range(max(self.level) + 1):
            lines += self.reduction_loop(level)
            lines += [
                self.line(at - self.n_arguments)
                for at, (name, _) in enumerate(self.program.operations, self.n_arguments)
                if self.level[at] == level and not self.varies[at] and name not in REDUCTIONS
            ]
        per_column = {r: v.at for r, v in enumerate(results) if self.varies[v.at]}
        body = [self.store(r, at) for r, at in per_column.items()]
        lines += self.loop(list(per_column.values()), body) if per_column else ()
        lines += [self.store(r, v.at) for r, v in enumerate(results) if r not in per_column]
        return "\n".join(lines)
