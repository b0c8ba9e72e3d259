"""A step on NumPy as a list of calls: stand-ins for its arrays note each call that is made.

Every result has its place. What differs from step to step is the minibatch. A step that reads a
value or calls a function of the user's is not noted.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from xpmlp.apply import plain
from xpmlp.recording.numpy_writer import Workspace, cast, chosen, product
from xpmlp.recording.tracing import taken
from xpmlp.types import Array

UNARY: dict[str, Any] = {"__neg__": np.negative, "__invert__": np.invert, "__abs__": np.abs}
BINARY: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power,
    "and": np.bitwise_and, "xor": np.bitwise_xor, "rshift": np.right_shift,
}  # fmt: skip
COMPARED: dict[str, Any] = {
    "__gt__": np.greater, "__lt__": np.less, "__ge__": np.greater_equal, "__le__": np.less_equal,
    "__eq__": np.equal, "__ne__": np.not_equal,
}  # fmt: skip
MADE = ("zeros", "ones", "full", "arange", "zeros_like", "ones_like", "full_like")
EMPTY = ("empty", "empty_like")


class UntapedError(TypeError):
    """A step does what cannot be noted: it reads a value, or calls a function of the user's."""


class Taped:
    """Stands for an array of the step that is noted; it holds the array."""

    __array_ufunc__ = None

    def __init__(self, tape: "Tape", data: Array, name: str, line: int = -1) -> None:
        """line: which of the tape's lines makes it; -1 where it lies still."""
        self.tape, self.data, self.name, self.line = tape, data, name, line
        self.shape, self.dtype, self.ndim, self.device = data.shape, data.dtype, data.ndim, "cpu"
        self.size = data.size

    @property
    def mT(self) -> "Taped":
        return self.tape.view(self, ".mT", self.data.mT)

    def __getitem__(self, key: Any) -> "Taped":
        return self.tape.view(self, f"[{self.tape.hold(key)}]", self.data[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is ...:
            self.tape.write(self, value)
        elif self.name in self.tape.blank:
            self.tape.write(self[key], value)
        else:
            raise UntapedError("it writes a part of an array")

    def refuse(self, *_: Any) -> Any:
        raise UntapedError("it reads a value")

    __bool__ = __float__ = __int__ = __index__ = __iter__ = __len__ = __array__ = refuse
    __hash__ = object.__hash__


def operator(ufunc: np.ufunc, *, swapped: bool = False) -> Callable[..., Any]:
    if ufunc.nin == 1:
        return lambda self: self.tape.ufunc(ufunc, self)
    if swapped:
        return lambda self, other: self.tape.ufunc(ufunc, other, self)
    return lambda self, other: self.tape.ufunc(ufunc, self, other)


for magic, one in (UNARY | COMPARED).items():
    setattr(Taped, magic, operator(one))
for short, one in BINARY.items():
    setattr(Taped, f"__{short}__", operator(one))
    setattr(Taped, f"__r{short}__", operator(one, swapped=True))


class Line(NamedTuple):
    """One call, as Python; {out} stands for the name of its result."""

    text: str
    touched: list[Any]  # what it reads, then what it writes
    result: str = ""  # the name of what it writes, where that may be another place
    elementwise: bool = False


class Tape:
    """The namespace and the `apply` of the step that is noted."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.lines: list[Line] = []
        self.held: dict[str, Any] = {}  # what the lines refer to, by name
        self.names: dict[int, str] = {}
        self.constants: set[str] = set()  # results that no line makes again
        self.blank: set[str] = set()  # arrays that hold nothing yet, for lines to write into
        self.viewed: set[str] = set()  # of what parts were taken: it must stay where it is
        own = {
            name: getattr(self, name)
            for name in ("matmul", "vecdot", "sum", "max", "where", "astype", "concat")
        }
        own |= {name: self.making(getattr(np, name), self.constants) for name in MADE}
        own |= {name: self.making(getattr(np, name), self.blank) for name in EMPTY}
        ufuncs = {
            name: self.calling(getattr(np, name))
            for name in dir(np)
            if isinstance(getattr(np, name), np.ufunc)
        }
        others = {name: self.viewing(getattr(np, name)) for name in ("reshape", "broadcast_to")}
        others["asarray"] = self.asarray
        types = {
            name: getattr(np, name) for name in ("finfo", "float32", "float64", "int64", "uint32")
        }
        self.xp: Any = SimpleNamespace(**ufuncs | types | others | own)

    # what a line refers to

    def hold(self, value: Any) -> str:
        """The name of something that stays as it is."""
        known = self.names.get(id(value))
        if known is None:
            known = self.names[id(value)] = f"k{len(self.held)}"
            self.held[known] = value
        return known

    def taped(self, given: Any) -> Any:
        """Something with stand-ins for the arrays in it."""
        if isinstance(given, np.ndarray):
            return Taped(self, given, self.hold(given))
        if isinstance(given, SimpleNamespace):
            return SimpleNamespace(**self.taped(vars(given)))
        if isinstance(given, dict):
            return {name: self.taped(value) for name, value in given.items()}
        if isinstance(given, tuple) and hasattr(given, "_fields"):
            return type(given)(*map(self.taped, given))
        return tuple(map(self.taped, given)) if isinstance(given, tuple) else given

    def raw(self, given: Any) -> Any:
        """The same with the arrays themselves."""
        if isinstance(given, Taped):
            return given.data
        if isinstance(given, SimpleNamespace):
            return SimpleNamespace(**{name: self.raw(one) for name, one in vars(given).items()})
        if isinstance(given, np.ndarray):
            raise UntapedError("it makes an array of its own")
        return given

    def name(self, given: Any) -> str:
        return given.name if isinstance(given, Taped) else self.hold(given)

    # what becomes a line

    def note(
        self, form: str, inputs: Sequence[Any], result: Array, *, elementwise: bool = False
    ) -> Taped:
        """A line that makes `result`, here in new memory, from the inputs; {out} is its place."""
        result = np.asarray(result)
        name, touched = self.hold(result), [*map(self.raw, inputs), result]
        text = form.format(*map(self.name, inputs), out="{out}")
        self.lines.append(Line(text, touched, name, elementwise))
        return Taped(self, result, name, len(self.lines) - 1)

    def view(self, of: Taped, text: str, found: Array) -> Taped:
        """A part of an array: the same memory for ever, or of every step's own."""
        self.viewed.add(of.name)
        if not of.name.startswith("m"):
            return Taped(self, found, self.hold(found))
        name = f"m{len(self.lines)}"
        self.lines.append(Line(f"{name} = {of.name}{text}", [of.data]))
        return Taped(self, found, name, len(self.lines) - 1)

    def write(self, target: Taped, value: Any) -> None:
        """target[...] = value: where the line that makes it may, it makes it there."""
        if target.name in self.constants:
            raise UntapedError("it writes into an array of its own")
        if isinstance(value, Taped) and value.line >= 0 and self.may_lie(target, value):
            line = self.lines[value.line]
            touched = [*line.touched[:-1], target.data]
            self.lines[value.line] = line._replace(result=target.name, touched=touched)
            target.data[...] = value.data
            value.name, value.data, value.line = target.name, target.data, -1
            return
        target.data[...] = self.raw(value)
        text = f"{self.hold(np.copyto)}({target.name}, {self.name(value)})"
        self.lines.append(Line(text, [self.raw(value), target.data]))

    def may_lie(self, target: Taped, value: Taped) -> bool:
        """Whether a value may be made in the target's place: alike, and nothing is in the way."""
        line, later = self.lines[value.line], self.lines[value.line + 1 :]
        if line.result != value.name or value.name in self.viewed:
            return False
        if (target.shape, target.dtype) != (value.shape, value.dtype):
            return False
        # elementwise a result may lie where an argument does
        read = [x for x in line.touched[:-1] if not (line.elementwise and x is target.data)]
        between = [x for each in later for x in each.touched]
        pairs = [(x, target.data) for x in (*read, *between)] + [(x, value.data) for x in between]
        return not any(isinstance(x, np.ndarray) and np.may_share_memory(x, y) for x, y in pairs)

    def ufunc(self, ufunc: np.ufunc, *inputs: Any) -> Taped:
        form = f"{self.hold(ufunc)}({', '.join('{}' for _ in inputs)}, out={{out}})"
        return self.note(form, inputs, ufunc(*map(self.raw, inputs)), elementwise=True)

    def calling(self, ufunc: np.ufunc) -> Callable[..., Taped]:
        return lambda *inputs: self.ufunc(ufunc, *inputs)

    def making(self, function: Callable[..., Array], known: set[str]) -> Callable[..., Taped]:
        """An array that depends on no value: it is made once. known: where its name goes."""

        def make(*given: Any, **named: Any) -> Taped:
            made = np.asarray(function(*map(self.raw, given), **named))
            known.add(self.hold(made))
            return Taped(self, made, self.hold(made))

        return make

    def viewing(self, function: Callable[..., Array]) -> Callable[..., Taped]:
        """An array in another shape."""

        def viewed(x: Taped, shape: tuple[int, ...]) -> Taped:
            found = function(x.data, shape)
            if not np.may_share_memory(found, x.data):
                raise UntapedError("it copies an array into another shape")
            if x.name.startswith("m"):
                raise UntapedError("it gives a minibatch another shape")
            return self.view(x, "", found)

        return viewed

    def reduce(self, ufunc: np.ufunc, x: Taped, axis: int | None, keepdims: bool) -> Taped:
        form = f"{self.hold(ufunc.reduce)}({{}}, {axis}, None, {{out}}, {keepdims})"
        return self.note(form, [x], ufunc.reduce(x.data, axis=axis, keepdims=keepdims))

    def max(self, x: Taped, *, axis: int | None = None, keepdims: bool = False) -> Taped:
        return self.reduce(np.maximum, x, axis, keepdims)

    def sum(self, x: Taped, *, axis: int | None = None, keepdims: bool = False) -> Taped:
        if axis == -2 and keepdims:
            ones = np.ones((*x.shape[:-2], 1, x.shape[-2]), dtype=x.dtype)
            return self.matmul(Taped(self, ones, self.hold(ones)), x)
        return self.reduce(np.add, x, axis, keepdims)

    def matmul(self, a: Taped, b: Taped) -> Taped:
        multiply = product(a.data, b.data)
        form = f"{self.hold(multiply)}({{}}, {{}}, {{out}})"
        return self.note(form, [a, b], multiply(a.data, b.data))

    def vecdot(self, a: Taped, b: Taped) -> Taped:
        form = f"{self.hold(np.vecdot)}({{}}, {{}}, out={{out}})"
        return self.note(form, [a, b], np.vecdot(a.data, b.data))

    def concat(self, parts: Sequence[Taped], *, axis: int) -> Taped:
        form = f"{self.hold(np.concatenate)}(({'{}, ' * len(parts)}), {axis}, {{out}})"
        return self.note(form, parts, np.concatenate([part.data for part in parts], axis=axis))

    def where(self, condition: Any, one: Any, other: Any) -> Taped:
        inputs = [condition, one, other]
        form = f"{self.hold(chosen)}({{}}, {{}}, {{}}, {{out}})"
        return self.note(form, inputs, np.where(*map(self.raw, inputs)))

    def astype(self, x: Taped, dtype: Any, *, copy: bool = True) -> Taped:
        return self.note(f"{self.hold(cast)}({{}}, {{out}})", [x], x.data.astype(dtype))

    def asarray(self, x: Taped, *, copy: bool | None = None, **_: Any) -> Taped:
        return self.astype(x, x.dtype) if copy else x

    def apply(
        self, function: Callable[..., Any], xp: Any, *given: Any, into: Sequence[Taped] = ()
    ) -> Any:
        values, places = tuple(map(self.raw, given)), [one.data for one in into]
        call = self.workspace.first(function, values, places)
        if call.yours:
            raise UntapedError("it calls a function of yours")
        if call.plan is None:
            return plain(function, self.xp, *given, into=into)
        plan = call.plan
        inputs = taken(given, call.pick)
        made = [np.empty(shape, dtype=dtype) for shape, dtype in plan.made if not into]
        results = [*into, *(Taped(self, one, self.hold(one)) for one in made)]
        plan.run(*map(self.raw, inputs), *(one.data for one in results))
        names = ", ".join(map(self.name, (*inputs, *results)))
        touched = [self.raw(one) for one in (*inputs, *results)]
        self.lines.append(Line(f"{self.hold(plan.run)}({names})", touched))
        if into:
            return None
        found = [(*inputs, *results)[at] for at in plan.results]
        return found[0] if len(found) == 1 else tuple(found)

    def function(self, parameters: Sequence[str]) -> Callable[..., None]:
        """The noted lines as a function of the minibatch's arrays."""
        body = "\n        ".join(line.text.replace("{out}", line.result) for line in self.lines)
        text = (
            f"def made({', '.join(self.held)}):\n"
            f"    def replay({', '.join(parameters)}):\n        {body}\n    return replay\n"
        )
        space: dict[str, Any] = {}
        exec(text, space)
        replay: Callable[..., None] = space["made"](**self.held)
        return replay
