"""A step on NumPy as a list of calls: proxies for its arrays record each call.

Every result has its own buffer; only the minibatch differs from step to step. A step that reads a
value or calls a user's own function cannot be recorded.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from xpmlp.apply import plain
from xpmlp.recording.numpy_writer import NumpyBackend, cast_into, product_function, where_into
from xpmlp.recording.tracing import select
from xpmlp.types import Array

UNARY: dict[str, Any] = {"__neg__": np.negative, "__invert__": np.invert, "__abs__": np.abs}
BINARY: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power,
    "and": np.bitwise_and, "xor": np.bitwise_xor, "rshift": np.right_shift,
}  # fmt: skip
COMPARISONS: dict[str, Any] = {
    "__gt__": np.greater, "__lt__": np.less, "__ge__": np.greater_equal, "__le__": np.less_equal,
    "__eq__": np.equal, "__ne__": np.not_equal,
}  # fmt: skip
CREATION = ("zeros", "ones", "full", "arange", "zeros_like", "ones_like", "full_like")
EMPTY = ("empty", "empty_like")


class UntapeableError(TypeError):
    """A step cannot be recorded: it reads a value, or calls a user's own function."""


class TapedArray:
    """Proxy for an array of a recorded step; it holds the array."""

    __array_ufunc__ = None

    def __init__(self, tape: "Tape", data: Array, name: str, line: int = -1) -> None:
        """line: which of the tape's lines computes it; -1 for an array that stays the same."""
        self.tape, self.data, self.name, self.line = tape, data, name, line
        self.shape, self.dtype, self.ndim, self.device = data.shape, data.dtype, data.ndim, "cpu"
        self.size = data.size

    @property
    def mT(self) -> "TapedArray":
        return self.tape.view(self, ".mT", self.data.mT)

    def __getitem__(self, key: Any) -> "TapedArray":
        return self.tape.view(self, f"[{self.tape.bind(key)}]", self.data[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is ...:
            self.tape.write(self, value)
        elif self.name in self.tape.uninitialized:
            self.tape.write(self[key], value)
        else:
            raise UntapeableError("it writes a part of an array")

    def refuse(self, *_: Any) -> Any:
        raise UntapeableError("it reads a value")

    __bool__ = __float__ = __int__ = __index__ = __iter__ = __len__ = __array__ = refuse
    __hash__ = object.__hash__


def operator(ufunc: np.ufunc, *, reflected: bool = False) -> Callable[..., Any]:
    if ufunc.nin == 1:
        return lambda self: self.tape.ufunc(ufunc, self)
    if reflected:
        return lambda self, other: self.tape.ufunc(ufunc, other, self)
    return lambda self, other: self.tape.ufunc(ufunc, self, other)


for method, ufunc in (UNARY | COMPARISONS).items():
    setattr(TapedArray, method, operator(ufunc))
for name, ufunc in BINARY.items():
    setattr(TapedArray, f"__{name}__", operator(ufunc))
    setattr(TapedArray, f"__r{name}__", operator(ufunc, reflected=True))


class Line(NamedTuple):
    """One call as Python source; {out} stands for the name of its result."""

    text: str
    operands: list[Any]  # what it reads, then what it writes
    result: str = ""  # the name of what it writes, where another buffer may take its place
    elementwise: bool = False


class Tape:
    """The namespace and the `apply` of a recorded step."""

    def __init__(self, backend: NumpyBackend) -> None:
        self.backend = backend
        self.lines: list[Line] = []
        self.bindings: dict[str, Any] = {}  # what the lines refer to, by name
        self.names: dict[int, str] = {}  # of the bindings, by id
        self.constants: set[str] = set()  # results that no line computes again
        self.uninitialized: set[str] = set()  # new empty arrays, which lines may write into
        self.viewed: set[str] = set()  # arrays with views, which must keep their memory
        own = {
            name: getattr(self, name)
            for name in ("matmul", "vecdot", "sum", "max", "where", "astype", "concat")
        }
        own |= {name: self.wrap_creation(getattr(np, name), self.constants) for name in CREATION}
        own |= {name: self.wrap_creation(getattr(np, name), self.uninitialized) for name in EMPTY}
        ufuncs = {
            name: self.wrap_ufunc(getattr(np, name))
            for name in dir(np)
            if isinstance(getattr(np, name), np.ufunc)
        }
        others = {name: self.wrap_view(getattr(np, name)) for name in ("reshape", "broadcast_to")}
        others["asarray"] = self.asarray
        types = {
            name: getattr(np, name) for name in ("finfo", "float32", "float64", "int64", "uint32")
        }
        self.xp: Any = SimpleNamespace(**ufuncs | types | others | own)

    # what a line refers to

    def bind(self, value: Any) -> str:
        """The name of something that stays the same."""
        name = self.names.get(id(value))
        if name is None:
            name = self.names[id(value)] = f"k{len(self.bindings)}"
            self.bindings[name] = value
        return name

    def wrap(self, value: Any) -> Any:
        """A value with proxies for the arrays in it."""
        if isinstance(value, np.ndarray):
            return TapedArray(self, value, self.bind(value))
        if isinstance(value, SimpleNamespace):
            return SimpleNamespace(**self.wrap(vars(value)))
        if isinstance(value, dict):
            return {name: self.wrap(entry) for name, entry in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.wrap, value))
        return tuple(map(self.wrap, value)) if isinstance(value, tuple) else value

    def unwrap(self, value: Any) -> Any:
        """The value with the arrays of its proxies."""
        if isinstance(value, TapedArray):
            return value.data
        if isinstance(value, SimpleNamespace):
            return SimpleNamespace(**{name: self.unwrap(x) for name, x in vars(value).items()})
        if isinstance(value, np.ndarray):
            raise UntapeableError("it makes an array of its own")
        return value

    def name(self, value: Any) -> str:
        return value.name if isinstance(value, TapedArray) else self.bind(value)

    # what becomes a line

    def record(
        self, form: str, inputs: Sequence[Any], result: Array, *, elementwise: bool = False
    ) -> TapedArray:
        """A line that computes `result`, a new array, from the inputs; {out} is its buffer."""
        result = np.asarray(result)
        name, operands = self.bind(result), [*map(self.unwrap, inputs), result]
        text = form.format(*map(self.name, inputs), out="{out}")
        self.lines.append(Line(text, operands, name, elementwise))
        return TapedArray(self, result, name, len(self.lines) - 1)

    def view(self, base: TapedArray, text: str, data: Array) -> TapedArray:
        """A view of an array: of the same memory at every step, or of a minibatch."""
        self.viewed.add(base.name)
        if not base.name.startswith("m"):
            return TapedArray(self, data, self.bind(data))
        name = f"m{len(self.lines)}"
        self.lines.append(Line(f"{name} = {base.name}{text}", [base.data]))
        return TapedArray(self, data, name, len(self.lines) - 1)

    def write(self, target: TapedArray, value: Any) -> None:
        """target[...] = value: where possible by the line that computes the value."""
        if target.name in self.constants:
            raise UntapeableError("it writes into an array of its own")
        if isinstance(value, TapedArray) and value.line >= 0 and self.can_redirect(target, value):
            line = self.lines[value.line]
            operands = [*line.operands[:-1], target.data]
            self.lines[value.line] = line._replace(result=target.name, operands=operands)
            target.data[...] = value.data
            value.name, value.data, value.line = target.name, target.data, -1
            return
        target.data[...] = self.unwrap(value)
        text = f"{self.bind(np.copyto)}({target.name}, {self.name(value)})"
        self.lines.append(Line(text, [self.unwrap(value), target.data]))

    def can_redirect(self, target: TapedArray, value: TapedArray) -> bool:
        """Whether the line of a value may write to the target: they are alike, and no line since
        then uses the memory of either."""
        line, later = self.lines[value.line], self.lines[value.line + 1 :]
        if line.result != value.name or value.name in self.viewed:
            return False
        if (target.shape, target.dtype) != (value.shape, value.dtype):
            return False
        # an elementwise result may overwrite its argument
        reads = [x for x in line.operands[:-1] if not (line.elementwise and x is target.data)]
        between = [x for each in later for x in each.operands]
        pairs = [(x, target.data) for x in (*reads, *between)] + [(x, value.data) for x in between]
        return not any(isinstance(x, np.ndarray) and np.may_share_memory(x, y) for x, y in pairs)

    def ufunc(self, ufunc: np.ufunc, *inputs: Any) -> TapedArray:
        form = f"{self.bind(ufunc)}({', '.join('{}' for _ in inputs)}, out={{out}})"
        return self.record(form, inputs, ufunc(*map(self.unwrap, inputs)), elementwise=True)

    def wrap_ufunc(self, ufunc: np.ufunc) -> Callable[..., TapedArray]:
        return lambda *inputs: self.ufunc(ufunc, *inputs)

    def wrap_creation(
        self, function: Callable[..., Array], names: set[str]
    ) -> Callable[..., TapedArray]:
        """A function whose array depends on no value: it is called once, now. names: the set that
        the array's name is added to."""

        def create(*args: Any, **kwargs: Any) -> TapedArray:
            array = np.asarray(function(*map(self.unwrap, args), **kwargs))
            names.add(self.bind(array))
            return TapedArray(self, array, self.bind(array))

        return create

    def wrap_view(self, function: Callable[..., Array]) -> Callable[..., TapedArray]:
        """A function that gives an array another shape."""

        def view(x: TapedArray, shape: tuple[int, ...]) -> TapedArray:
            data = function(x.data, shape)
            if not np.may_share_memory(data, x.data):
                raise UntapeableError("it copies an array into another shape")
            if x.name.startswith("m"):
                raise UntapeableError("it gives a minibatch another shape")
            return self.view(x, "", data)

        return view

    def reduce(
        self, ufunc: np.ufunc, x: TapedArray, axis: int | None, keepdims: bool
    ) -> TapedArray:
        form = f"{self.bind(ufunc.reduce)}({{}}, {axis}, None, {{out}}, {keepdims})"
        return self.record(form, [x], ufunc.reduce(x.data, axis=axis, keepdims=keepdims))

    def max(self, x: TapedArray, *, axis: int | None = None, keepdims: bool = False) -> TapedArray:
        return self.reduce(np.maximum, x, axis, keepdims)

    def sum(self, x: TapedArray, *, axis: int | None = None, keepdims: bool = False) -> TapedArray:
        if axis == -2 and keepdims:
            ones = np.ones((*x.shape[:-2], 1, x.shape[-2]), dtype=x.dtype)
            return self.matmul(TapedArray(self, ones, self.bind(ones)), x)
        return self.reduce(np.add, x, axis, keepdims)

    def matmul(self, a: TapedArray, b: TapedArray) -> TapedArray:
        multiply = product_function(a.data, b.data)
        form = f"{self.bind(multiply)}({{}}, {{}}, {{out}})"
        return self.record(form, [a, b], multiply(a.data, b.data))

    def vecdot(self, a: TapedArray, b: TapedArray) -> TapedArray:
        form = f"{self.bind(np.vecdot)}({{}}, {{}}, out={{out}})"
        return self.record(form, [a, b], np.vecdot(a.data, b.data))

    def concat(self, parts: Sequence[TapedArray], *, axis: int) -> TapedArray:
        form = f"{self.bind(np.concatenate)}(({'{}, ' * len(parts)}), {axis}, {{out}})"
        return self.record(form, parts, np.concatenate([part.data for part in parts], axis=axis))

    def where(self, condition: Any, x: Any, y: Any) -> TapedArray:
        inputs = [condition, x, y]
        form = f"{self.bind(where_into)}({{}}, {{}}, {{}}, {{out}})"
        return self.record(form, inputs, np.where(*map(self.unwrap, inputs)))

    def astype(self, x: TapedArray, dtype: Any, *, copy: bool = True) -> TapedArray:
        return self.record(f"{self.bind(cast_into)}({{}}, {{out}})", [x], x.data.astype(dtype))

    def asarray(self, x: TapedArray, *, copy: bool | None = None, **_: Any) -> TapedArray:
        return self.astype(x, x.dtype) if copy else x

    def apply(
        self, function: Callable[..., Any], xp: Any, *args: Any, into: Sequence[TapedArray] = ()
    ) -> Any:
        values, buffers = tuple(map(self.unwrap, args)), [x.data for x in into]
        call = self.backend.new_call(function, values, buffers)
        if call.is_foreign:
            raise UntapeableError("it calls a user's own function")
        if call.plan is None:
            return plain(function, self.xp, *args, into=into)
        plan = call.plan
        inputs = select(args, call.positions)
        created = [np.empty(shape, dtype=dtype) for shape, dtype in plan.outputs if not into]
        outputs = [*into, *(TapedArray(self, x, self.bind(x)) for x in created)]
        plan.run(*map(self.unwrap, inputs), *(x.data for x in outputs))
        names = ", ".join(map(self.name, (*inputs, *outputs)))
        operands = [self.unwrap(x) for x in (*inputs, *outputs)]
        self.lines.append(Line(f"{self.bind(plan.run)}({names})", operands))
        if into:
            return None
        results = [(*inputs, *outputs)[i] for i in plan.result_indices]
        return results[0] if len(results) == 1 else tuple(results)

    def function(self, parameters: Sequence[str]) -> Callable[..., None]:
        """The recorded lines as a function of the minibatch's arrays."""
        body = "\n        ".join(line.text.replace("{out}", line.result) for line in self.lines)
        text = (
            f"def make_replay({', '.join(self.bindings)}):\n"
            f"    def replay({', '.join(parameters)}):\n        {body}\n    return replay\n"
        )
        namespace: dict[str, Any] = {}
        exec(text, namespace)
        replay: Callable[..., None] = namespace["make_replay"](**self.bindings)
        return replay
