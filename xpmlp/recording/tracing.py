"""A small function of the core, traced once into a program of elementwise operations.

A namespace cannot see operators: `beta * m` never passes through `xp`. So the function is called
once with proxies that record every operator and every call on `xp`. The result is a Program: the
formula as a list of operations, which every backend compiles its own way.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from xpmlp.layers.layer import Layer

OPERATORS = {
    "__add__": "add", "__sub__": "subtract", "__mul__": "multiply", "__truediv__": "divide",
    "__pow__": "power", "__gt__": "greater", "__lt__": "less", "__ge__": "greater_equal",
    "__le__": "less_equal", "__xor__": "bitwise_xor", "__rshift__": "right_shift",
}  # fmt: skip
CALLS = {
    "abs": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "tanh": 1, "sin": 1, "cos": 1,
    "floor": 1, "maximum": 2, "minimum": 2, "add": 2, "subtract": 2, "multiply": 2, "divide": 2,
    "greater": 2, "less": 2, "where": 3,
}  # fmt: skip
REDUCTIONS = ("sum", "max", "sum_flat", "max_flat")  # over the last axis; flat: without keepdims
DTYPES = ("float32", "float64", "uint32", "int64")
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}  # from 1 to the next float
PREDICATES = ("greater", "less", "greater_equal", "less_equal", "logical_and", "logical_not")


class UntraceableError(TypeError):
    """The function does something that a proxy does not support."""


class Value(NamedTuple):
    """An operand: an argument, an earlier result or a constant."""

    at: int  # index: arguments first, then one per operation; -1 for a constant
    constant: float = 0.0  # an int where the arguments are integers


class Operation(NamedTuple):
    """One operation on whole arrays."""

    name: str  # the Array API's, or of REDUCTIONS; "cast" is astype
    inputs: tuple[Value, ...]


class Program(NamedTuple):
    """A traced function: its operations in order."""

    n_arguments: int
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    dtypes: tuple[str, ...]  # of each operation's result


class TracedArray:
    """Proxy for an array: an argument of the function, or computed from them."""

    __array_ufunc__ = None  # NumPy's operators defer to ours

    def __init__(self, tracer: "Tracer", value: Value) -> None:
        self.tracer, self.value = tracer, value

    @property
    def dtype(self) -> str:
        return self.tracer.dtype(self.value)

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tracer.shapes[self.value.at]

    def __getitem__(self, key: Any) -> "TracedArray":
        if key != (..., slice(None, 1), slice(None)):
            raise UntraceableError(f"it takes a part of an array: {key!r}")
        return self  # one row stands for all: what is computed from it broadcasts

    def __and__(self, other: Any) -> "TracedArray":
        is_bool = self.dtype == "bool"
        return self.tracer.record("logical_and" if is_bool else "bitwise_and", self, other)

    def __neg__(self) -> "TracedArray":
        return self.tracer.record("negative", self)

    def __invert__(self) -> "TracedArray":
        return self.tracer.record("logical_not", self)

    def __bool__(self) -> bool:
        raise UntraceableError("it reads a value")


def operator(name: str, *, reflected: bool = False) -> Callable[..., Any]:
    def method(self: TracedArray, other: Any) -> Any:
        pair = (other, self) if reflected else (self, other)
        return self.tracer.record(name, *pair)

    return method


for method_name, operation_name in OPERATORS.items():
    setattr(TracedArray, method_name, operator(operation_name))
    setattr(TracedArray, "__r" + method_name[2:], operator(operation_name, reflected=True))


class Tracer:
    """Records what is done to the proxies; it is the `xp` of the traced function."""

    def __init__(self, arguments: list[Any]) -> None:
        self.n_arguments = len(arguments)
        self.shapes = [tuple(a.shape) for a in arguments]
        self.dtypes = [str(a.dtype).rpartition(".")[2] for a in arguments]  # of every value
        self.operations: list[Operation] = []
        self.indices: dict[str, int] = {}  # of the operations, by their repr

    def __getattr__(self, name: str) -> Any:
        if name in DTYPES:
            return name
        if name not in CALLS:
            raise UntraceableError(f"it calls xp.{name}")
        return lambda *inputs: self.record(name, *inputs)

    def dtype(self, value: Value) -> str:
        return self.dtypes[max(0, value.at)]  # a constant has the arguments' dtype

    def value(self, x: Any) -> Value:
        if isinstance(x, TracedArray):
            return x.value
        if isinstance(x, bool) or not isinstance(x, int | float):
            raise UntraceableError(f"it uses a {type(x).__name__}")
        return Value(-1, x)

    def record(self, name: str, *inputs: Any) -> TracedArray:
        if name in CALLS and len(inputs) != CALLS[name]:
            raise UntraceableError(f"it calls xp.{name} with {len(inputs)} arguments")
        values = [self.value(x) for x in inputs]
        dtypes = {self.dtypes[v.at] for v in values if v.at >= 0} - {"bool"}
        if len(dtypes) > 1:
            raise UntraceableError(f"it mixes {' and '.join(sorted(dtypes))}")
        dtype = dtypes.pop() if dtypes else self.dtypes[0]
        if "int" not in dtype:
            values = [v if v.at >= 0 else Value(-1, float(v.constant)) for v in values]
        unchanged = unchanged_operand(name, tuple(values))
        if unchanged is not None:
            return TracedArray(self, unchanged)
        return self.append(Operation(name, tuple(values)), "bool" if name in PREDICATES else dtype)

    def append(self, operation: Operation, dtype: str) -> TracedArray:
        """An operation's result; equal operations are computed once."""
        # in a repr, 0.0 is not -0.0
        index = self.indices.setdefault(f"{operation!r} {dtype}", len(self.operations))
        if index == len(self.operations):
            self.operations.append(operation)
            self.dtypes.append(dtype)
        return TracedArray(self, Value(self.n_arguments + index))

    def astype(self, x: TracedArray, dtype: Any, *, copy: bool = True) -> Any:
        name = str(dtype).rpartition(".")[2]
        if name == x.dtype:
            return x
        if name not in DTYPES:
            raise UntraceableError(f"it casts to {name}")
        return self.append(Operation("cast", (x.value,)), name)

    def asarray(self, x: TracedArray) -> TracedArray:
        return x

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("sum", x, axis, keepdims)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("max", x, axis, keepdims)

    def reduce(self, name: str, x: TracedArray, axis: Any, keepdims: bool) -> TracedArray:
        if axis != -1:
            raise UntraceableError(f"it takes the {name} over axis {axis}")
        return self.record(name if keepdims else f"{name}_flat", x)

    def finfo(self, dtype: Any) -> SimpleNamespace:
        return SimpleNamespace(eps=EPS[dtype])

    def full_like(self, like: TracedArray, fill_value: float) -> TracedArray:
        return TracedArray(self, Value(-1, float(fill_value)))

    def ones_like(self, like: TracedArray) -> TracedArray:
        return self.full_like(like, 1.0)

    def zeros_like(self, like: TracedArray) -> TracedArray:
        return self.full_like(like, 0.0)


def unchanged_operand(name: str, inputs: tuple[Value, ...]) -> Value | None:
    """x where an operation is x * 1 or 1 * x, which have its bits; else None."""
    if name != "multiply":
        return None
    one = Value(-1, 1.0)
    if inputs[0] == one:
        return inputs[1]
    return inputs[0] if inputs[1] == one else None


def trace(function: Callable[..., Any], *args: Any) -> Program:
    """The program of function(xp, *args).

    args: arrays, Python numbers, or a namespace of both (hyper-parameters). The program's
    arguments are the arrays in order, those of a namespace sorted by name; numbers are constants.
    Raises UntraceableError where the function is not made of known operations alone.
    """
    tracer = Tracer(arrays(args))
    count = 0

    def proxy(x: Any) -> Any:
        nonlocal count
        if isinstance(x, SimpleNamespace):
            return SimpleNamespace(**{name: proxy(vars(x)[name]) for name in sorted(vars(x))})
        if is_static(x):
            return x
        count += 1
        return TracedArray(tracer, Value(count - 1))

    try:
        output = function(tracer, *map(proxy, args))
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UntraceableError(str(error)) from error
    results = tuple(map(tracer.value, output if isinstance(output, tuple) else (output,)))
    dtypes = tuple(tracer.dtypes[tracer.n_arguments :])
    return prune(Program(tracer.n_arguments, tuple(tracer.operations), results, dtypes))


def prune(program: Program) -> Program:
    """The program without the operations that no result depends on."""
    n_arguments = program.n_arguments
    live = {value.at for value in program.results}
    for i in reversed(range(len(program.operations))):
        if n_arguments + i in live:
            live |= {value.at for value in program.operations[i].inputs}
    kept = [i for i in range(len(program.operations)) if n_arguments + i in live]
    new_index = {n_arguments + i: n_arguments + k for k, i in enumerate(kept)}

    def renumber(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(value._replace(at=new_index.get(value.at, value.at)) for value in values)

    operations = (program.operations[i] for i in kept)
    renumbered = tuple(each._replace(inputs=renumber(each.inputs)) for each in operations)
    dtypes = tuple(program.dtypes[i] for i in kept)
    return Program(n_arguments, renumbered, renumber(program.results), dtypes)


Positions = tuple[tuple[int, str | None], ...]


def array_positions(args: tuple[Any, ...]) -> Positions:
    """Where the arrays are among a function's arguments, in the order of a program's: the index of
    the argument, and for an array in a namespace its name there."""
    positions: list[tuple[int, str | None]] = []
    for i, x in enumerate(args):
        if isinstance(x, SimpleNamespace):
            values = vars(x)
            positions += [(i, name) for name in sorted(values) if not is_constant(values[name])]
        elif not is_static(x):
            positions.append((i, None))
    return tuple(positions)


def select(args: Sequence[Any], positions: Positions) -> list[Any]:
    """The values at those positions."""
    return [args[i] if name is None else getattr(args[i], name) for i, name in positions]


def arrays(args: tuple[Any, ...]) -> list[Any]:
    """The arrays among a function's arguments, in the order of a program's."""
    return select(args, array_positions(args))


def is_constant(x: Any) -> bool:
    """Whether it is a Python number, the name of a dtype, or None: a part of the program."""
    return x is None or (isinstance(x, int | float | str) and not hasattr(x, "dtype"))


def is_static(x: Any) -> bool:
    """Whether it is a constant, a function or a layer: a part of the program."""
    return is_constant(x) or callable(x) or isinstance(x, Layer | tuple)


def constants(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The numbers and functions among the arguments, on which a program depends."""
    return tuple(
        tuple((name, repr(x)) for name, x in sorted(vars(each).items()) if is_constant(x))
        if isinstance(each, SimpleNamespace)
        else repr(each)
        if is_constant(each)
        else each
        for each in args
        if isinstance(each, SimpleNamespace) or is_static(each)
    )
