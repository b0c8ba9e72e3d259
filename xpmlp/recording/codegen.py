"""A traced program written out as text: for one element, or for one row at a time.

What is written here is C, for kernels; another language changes how a line, a number and a loop
are written (`compiled` has Python's).
"""

from collections.abc import Container, Iterator, Sequence
from math import isfinite, prod
from typing import ClassVar

from xpmlp.recording.plans import Asked, reach
from xpmlp.recording.tracing import REDUCTIONS, Program, UntraceableError, Value
from xpmlp.types import Array

TYPES = {"float32": "float", "float64": "double", "uint32": "unsigned int", "int64": "long long"}
FORMS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "greater": "{} > {}", "less": "{} < {}", "greater_equal": "{} >= {}", "less_equal": "{} <= {}",
    "logical_and": "{} && {}", "logical_not": "!{}", "negative": "-{}", "abs": "fabs({})",
    "where": "{} ? {} : {}", "cast": "{}", "power": "pow({}, {})",
    "bitwise_and": "{} & {}", "bitwise_xor": "{} ^ {}", "right_shift": "{} >> {}",
    # fmax and fmin drop a NaN; the Array API hands it on
    "maximum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmax({0}, {1})",
    "minimum": "{0} != {0} ? {0} : {1} != {1} ? {1} : fmin({0}, {1})",
}  # fmt: skip
WIDEST = 64  # outputs in a row that one thread walks along


def placed(asked: Asked) -> tuple[list[Value], tuple[int, ...]]:
    """The values that need a place, and where each result then is among arguments and places.

    Equal new results are one array, and an argument needs no place.
    """
    program = asked.program
    if any(value.at < 0 for value in program.results):
        raise UntraceableError("it gives a constant")
    for value, old in zip(program.results, asked.aliases, strict=False):
        if value.at < program.arguments and value.at != old:
            raise UntraceableError("it gives an argument, which may be written over by then")
    wanted = list(program.results)
    if not asked.into:
        wanted = list(dict.fromkeys(v for v in wanted if v.at >= program.arguments))
    places = {value: program.arguments + r for r, value in enumerate(wanted)}
    return wanted, tuple(places.get(value, value.at) for value in program.results)


class Source:
    """Writes the body of a kernel: arguments a0, a1, ..., results r0, r1, ...

    Elementwise nothing is written before all is read: a result may lie where an argument does.
    """

    def __init__(self, program: Program, given: Sequence[Array]) -> None:
        self.program, self.first = program, len(given)
        self.shapes = [tuple(a.shape) for a in given]  # of every value, as the dtypes
        self.dtypes = [*(str(a.dtype) for a in given), *program.dtypes]
        if not {*self.dtypes[: self.first]} <= {*TYPES}:
            raise UntraceableError(f"its arguments are of {', '.join(self.dtypes[: self.first])}")
        for name, inputs in program.operations:
            known = [v.at for v in inputs if v.at >= 0]
            self.shapes.append(reach(name, [self.shapes[at] for at in known]))
        self.names = [f"a{i}" for i in range(self.first)]
        self.names += [f"v{self.first + i}" for i in range(len(program.operations))]

    def literal(self, number: float, kind: str) -> str:
        """A number in C: as exact as Python has it, then rounded to the kernel's type."""
        if not isfinite(number):
            return f"({kind})({'-' if number < 0 else ''}1.0 / 0.0)"
        return f"({kind})({number!r}{'u' if kind == 'unsigned int' else ''})"

    def line(self, index: int) -> str:
        """The declaration of what operation number `index` gives."""
        name, inputs = self.program.operations[index]
        own = self.dtypes[self.first + index]
        around = next((self.dtypes[v.at] for v in inputs if self.of_number(v)), own)
        kind = TYPES[around if around in TYPES else self.dtypes[0]]
        read = [self.names[v.at] if v.at >= 0 else self.literal(v.constant, kind) for v in inputs]
        form = FORMS.get(name, f"{name}({', '.join('{}' for _ in inputs)})").format(*read)
        if name == "cast":
            form = f"({TYPES[own]})({form})"
        return f"const {TYPES.get(own, own)} {self.names[self.first + index]} = {form};"

    def of_number(self, value: Value) -> bool:
        return value.at >= 0 and self.dtypes[value.at] != "bool"

    def elementwise(self, results: Sequence[Value], single: Container[int] = ()) -> str:
        """single: those of the results that are one number for all elements."""
        lines = [self.line(i) for i in range(len(self.program.operations))]
        lines += [
            f"if (i == 0) r{r}[0] = {self.names[value.at]};"
            if r in single
            else f"r{r} = {self.names[value.at]};"
            for r, value in enumerate(results)
        ]
        return "\n".join(lines)


class RowSource(Source):
    """Writes the body for one row: `i` is the row, `j` goes along it, as often as sums ask."""

    WIDEST: float = WIDEST
    COSTLY: ClassVar[tuple[str, ...]] = ()  # what is kept for a later walk along the row
    READ: ClassVar = {"one": "a{at}[0]", "each": "a{at}[i * {width} + j]", "across": "a{at}[j]",
            "down": "a{at}[i]"}  # fmt: skip

    def __init__(self, program: Program, given: Sequence[Array]) -> None:
        super().__init__(program, given)
        shapes = self.shapes[: self.first]
        depth = max(map(len, shapes))
        self.width = max(shape[-1] if depth else 1 for shape in shapes if len(shape) == depth)
        self.lines = reach("add", [s[:-1] for s in shapes if len(s) > 1])
        self.rows = prod(self.lines)
        if self.width > self.WIDEST:
            raise UntraceableError(f"its rows have {self.width} columns")
        # an argument of one row is spread over all of them, and lacks no axis
        row = [at < self.first and s == (self.width,) for at, s in enumerate(self.shapes)]
        self.flat = [
            len(s) == depth - 1 > 0 and not one for s, one in zip(self.shapes, row, strict=True)
        ]
        self.along = [
            self.width > 1 and (one or (len(s) == depth and s[-1] > 1))
            for s, one in zip(self.shapes, row, strict=True)
        ]
        self.level = [0] * self.first  # of every value: how many sums it waits for
        for at, (name, inputs) in enumerate(program.operations, self.first):
            known = [v.at for v in inputs if v.at >= 0]
            if any(self.flat[k] for k in known) and not all(self.flat[k] for k in known):
                raise UntraceableError("it mixes rows with and without their last axis")
            self.level.append(max(self.level[k] for k in known) + (name in REDUCTIONS))
            if name in REDUCTIONS:
                self.along[at] = False
        self.held = [self.holds(at) for at in range(self.first)]
        for at, how in enumerate(self.held):
            self.names[at] = self.READ[how].format(at=at, width=self.width)

    def holds(self, at: int) -> str:
        """What an argument holds: "one" number, or a number of its own for "each" element, for
        each column "across" or for each row "down"; for each block of rows, such as a member's,
        a row ("block") or a number ("corner")."""
        size, shape = prod(self.shapes[at]), self.shapes[at]
        if size == 1:
            return "one"
        if self.along[at] and size == self.rows * self.width:
            return "each"
        if self.along[at] and size == self.width:
            return "across"
        if not self.along[at] and size == self.rows and shape[-1] == 1:
            return "down"
        if "block" in self.READ and len(shape) == 3 and shape[:2] == (self.lines[0], 1):
            return "block" if self.along[at] and shape[2] == self.width else "corner"
        raise UntraceableError(f"it has an argument of shape {shape}")

    # how this language writes it

    def looped(self, lines: Sequence[str]) -> Iterator[str]:
        """Lines for every column of the row."""
        yield f"for (int j = 0; j < {self.width}; ++j) {{"
        yield from (f"  {line}" for line in lines)
        yield "}"

    def begun(self, at: int, number: float) -> str:
        kind = TYPES[self.dtypes[at]]
        return f"{kind} {self.names[at]} = {self.literal(number, kind)};"

    def added(self, total: str, x: str) -> str:
        return f"{total} += {x};"

    def larger(self, total: str, x: str) -> str:
        return f"{total} = ({x} != {x} || {x} > {total}) ? {x} : {total};"

    def written(self, r: int, at: int) -> str:
        place = f"r{r}[i * {self.width} + j]" if self.along[at] else f"r{r}[i]"
        return f"{place} = {self.names[at]};"

    def place_of(self, at: int) -> str:
        """Where a value that is kept lies, for every column."""
        raise NotImplementedError

    # the walk along a row

    def needed(self, ends: Sequence[int]) -> list[int]:
        """The operations that change along the row and that these values are made of, in order."""
        found: set[int] = set()
        waiting = [at for at in ends if at >= self.first and self.along[at]]
        while waiting:
            at = waiting.pop()
            if at in found or at in self.walked:
                continue
            found.add(at)
            inputs = self.program.operations[at - self.first].inputs
            waiting += [v.at for v in inputs if v.at >= self.first and self.along[v.at]]
        return sorted(found)

    def loop(self, ends: Sequence[int], body: Sequence[str]) -> Iterator[str]:
        lines, needed = [], self.needed(ends)
        for at in needed:
            lines.append(self.line(at - self.first))
            if at in self.kept:
                lines.append(f"{self.place_of(at)} = {self.names[at]}")
        yield from self.looped([*lines, *body])
        for at in self.kept.intersection(needed):
            self.walked.add(at)
            self.names[at] = self.place_of(at)

    def summed(self, level: int) -> list[tuple[int, str, int]]:
        """The sums and maxima of a level: each with its name and what it is of."""
        return [
            (at, name, inputs[0].at)
            for at, (name, inputs) in enumerate(self.program.operations, self.first)
            if name in REDUCTIONS and self.level[at] == level
        ]

    def sums(self, level: int) -> Iterator[str]:
        """The sums and maxima of a level, all in one walk along the row."""
        body = []
        for at, name, of in self.summed(level):
            adds = name.startswith("sum")
            yield self.begun(at, 0.0 if adds else -float("inf"))
            body.append((self.added if adds else self.larger)(self.names[at], self.names[of]))
        if body:
            yield from self.loop([of for _, _, of in self.summed(level)], body)

    def keep(self, results: Sequence[Value]) -> None:
        """Choose what is costly and needed by more than one walk."""
        self.walked: set[int] = set()  # what is kept already
        levels = range(max(self.level) + 1)
        walks = [self.needed([of for _, _, of in self.summed(level)]) for level in levels]
        walks.append(self.needed([value.at for value in results]))
        operations = enumerate(self.program.operations, self.first)
        costly = {at for at, (name, _) in operations if name in self.COSTLY}
        self.kept = {at for at in costly if sum(at in walk for walk in walks) > 1}

    def by_rows(self, results: Sequence[Value]) -> str:
        lines: list[str] = []
        self.keep(results)
        for level in range(max(self.level) + 1):
            lines += self.sums(level)
            lines += [
                self.line(at - self.first)
                for at, (name, _) in enumerate(self.program.operations, self.first)
                if self.level[at] == level and not self.along[at] and name not in REDUCTIONS
            ]
        wide = {r: v.at for r, v in enumerate(results) if self.along[v.at]}
        body = [self.written(r, at) for r, at in wide.items()]
        lines += self.loop(list(wide.values()), body) if wide else ()
        lines += [self.written(r, v.at) for r, v in enumerate(results) if r not in wide]
        return "\n".join(lines)
