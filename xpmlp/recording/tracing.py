"""A small function of the core, traced once into the operations that it comes to.

A namespace cannot see operators: `beta * m` never passes through `xp`. So the function is called
once with stand-ins that note every operator and every call on `xp`. What comes of it is a
Program: the one formula as a list, which a backend runs its own way.
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
TRUTHS = ("greater", "less", "greater_equal", "less_equal", "logical_and", "logical_not")


class UntraceableError(TypeError):
    """The function asks for something that a stand-in does not have."""


class Value(NamedTuple):
    """A number that an operation takes: an argument or an earlier result, or a constant."""

    at: int  # arguments first, then one for each operation; -1 for a constant
    constant: float = 0.0  # whole where the arguments are


class Operation(NamedTuple):
    """One operation on whole arrays."""

    name: str  # the Array API's, or of REDUCTIONS; "cast" makes numbers of truths
    inputs: tuple[Value, ...]


class Program(NamedTuple):
    """What a function comes to, as operations in order."""

    arguments: int
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    dtypes: tuple[str, ...]  # of each operation's result


class Traced:
    """Stands for an array of the function's arguments, or made of them."""

    __array_ufunc__ = None  # NumPy leaves its operators to ours

    def __init__(self, tracer: "Tracer", value: Value) -> None:
        self.tracer, self.value = tracer, value

    @property
    def dtype(self) -> str:
        return self.tracer.dtype(self.value)

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tracer.shapes[self.value.at]

    def __getitem__(self, key: Any) -> "Traced":
        if key != (..., slice(None, 1), slice(None)):
            raise UntraceableError(f"it takes a part of an array: {key!r}")
        return self  # a row like the others: what is made of it broadcasts

    def __and__(self, other: Any) -> "Traced":
        truths = self.dtype == "bool"
        return self.tracer.note("logical_and" if truths else "bitwise_and", self, other)

    def __neg__(self) -> "Traced":
        return self.tracer.note("negative", self)

    def __invert__(self) -> "Traced":
        return self.tracer.note("logical_not", self)

    def __bool__(self) -> bool:
        raise UntraceableError("it reads a value")


def operator(name: str, *, swapped: bool = False) -> Callable[..., Any]:
    def method(self: Traced, other: Any) -> Any:
        pair = (other, self) if swapped else (self, other)
        return self.tracer.note(name, *pair)

    return method


for magic, named in OPERATORS.items():
    setattr(Traced, magic, operator(named))
    setattr(Traced, "__r" + magic[2:], operator(named, swapped=True))


class Tracer:
    """Notes what is done to the stand-ins; it is the `xp` of the function that is traced."""

    def __init__(self, given: list[Any]) -> None:
        """given: the arguments' arrays."""
        self.arguments = len(given)
        self.shapes = [tuple(one.shape) for one in given]
        self.dtypes = [str(one.dtype).rpartition(".")[2] for one in given]  # of every value
        self.operations: list[Operation] = []
        self.known: dict[str, int] = {}  # which operation it was, by how it is written

    def __getattr__(self, name: str) -> Any:
        if name in DTYPES:
            return name
        if name not in CALLS:
            raise UntraceableError(f"it calls xp.{name}")
        return lambda *inputs: self.note(name, *inputs)

    def dtype(self, value: Value) -> str:
        return self.dtypes[max(0, value.at)]  # a constant is of the arguments'

    def value(self, given: Any) -> Value:
        if isinstance(given, Traced):
            return given.value
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise UntraceableError(f"it uses a {type(given).__name__}")
        return Value(-1, given)

    def note(self, name: str, *inputs: Any) -> Traced:
        if name in CALLS and len(inputs) != CALLS[name]:
            raise UntraceableError(f"it calls xp.{name} with {len(inputs)} arguments")
        values = [self.value(one) for one in inputs]
        kinds = {self.dtypes[v.at] for v in values if v.at >= 0} - {"bool"}
        if len(kinds) > 1:
            raise UntraceableError(f"it mixes {' and '.join(sorted(kinds))}")
        kind = kinds.pop() if kinds else self.dtypes[0]
        if "int" not in kind:
            values = [v if v.at >= 0 else Value(-1, float(v.constant)) for v in values]
        same = neutral(name, tuple(values))
        if same is not None:
            return Traced(self, same)
        return self.record(Operation(name, tuple(values)), "bool" if name in TRUTHS else kind)

    def record(self, operation: Operation, dtype: str) -> Traced:
        """An operation's result; what was computed once is not computed again."""
        # written out, 0.0 is not -0.0
        index = self.known.setdefault(f"{operation!r} {dtype}", len(self.operations))
        if index == len(self.operations):
            self.operations.append(operation)
            self.dtypes.append(dtype)
        return Traced(self, Value(self.arguments + index))

    def astype(self, given: Traced, dtype: Any, *, copy: bool = True) -> Any:
        wanted = str(dtype).rpartition(".")[2]
        if wanted == given.dtype:
            return given
        if wanted not in DTYPES:
            raise UntraceableError(f"it casts to {wanted}")
        return self.record(Operation("cast", (given.value,)), wanted)

    def asarray(self, given: Traced) -> Traced:
        return given

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("sum", x, axis, keepdims)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("max", x, axis, keepdims)

    def reduce(self, name: str, x: Traced, axis: Any, keepdims: bool) -> Traced:
        if axis != -1:
            raise UntraceableError(f"it takes the {name} over axis {axis}")
        return self.note(name if keepdims else f"{name}_flat", x)

    def finfo(self, dtype: Any) -> SimpleNamespace:
        return SimpleNamespace(eps=EPS[dtype])

    def full_like(self, like: Traced, fill_value: float) -> Traced:
        return Traced(self, Value(-1, float(fill_value)))

    def ones_like(self, like: Traced) -> Traced:
        return self.full_like(like, 1.0)

    def zeros_like(self, like: Traced) -> Traced:
        return self.full_like(like, 0.0)


def neutral(name: str, inputs: tuple[Value, ...]) -> Value | None:
    """The input that an operation leaves as it is, to the bit: x * 1 and 1 * x, if it is such."""
    if name != "multiply":
        return None
    one = Value(-1, 1.0)
    if inputs[0] == one:
        return inputs[1]
    return inputs[0] if inputs[1] == one else None


def trace(function: Callable[..., Any], *given: Any) -> Program:
    """The program of function(xp, *given).

    given: arrays, Python numbers, or a namespace of both (hyper-parameters). The program's
    arguments are the arrays in order, those of a namespace sorted by name; numbers are constants.
    Raises UntraceableError where the function is not made of known operations alone.
    """
    tracer = Tracer(arrays(given))
    count = 0

    def stand_in(one: Any) -> Any:
        nonlocal count
        if isinstance(one, SimpleNamespace):
            return SimpleNamespace(
                **{name: stand_in(vars(one)[name]) for name in sorted(vars(one))}
            )
        if fixed(one):
            return one
        count += 1
        return Traced(tracer, Value(count - 1))

    try:
        found = function(tracer, *map(stand_in, given))
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UntraceableError(str(error)) from error
    results = tuple(map(tracer.value, found if isinstance(found, tuple) else (found,)))
    dtypes = tuple(tracer.dtypes[tracer.arguments :])
    return used(Program(tracer.arguments, tuple(tracer.operations), results, dtypes))


def used(program: Program) -> Program:
    """The program without the operations that no result is made of."""
    needed = {value.at for value in program.results}
    for at in reversed(range(len(program.operations))):
        if program.arguments + at in needed:
            needed |= {value.at for value in program.operations[at].inputs}
    kept = [at for at in range(len(program.operations)) if program.arguments + at in needed]
    moved = {program.arguments + at: program.arguments + i for i, at in enumerate(kept)}

    def move(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(value._replace(at=moved.get(value.at, value.at)) for value in values)

    operations = (program.operations[at] for at in kept)
    written = tuple(one._replace(inputs=move(one.inputs)) for one in operations)
    dtypes = tuple(program.dtypes[at] for at in kept)
    return Program(program.arguments, written, move(program.results), dtypes)


Places = tuple[tuple[int, str | None], ...]


def picked(given: tuple[Any, ...]) -> Places:
    """Where the arrays are among what a function is given, in the order of a program's arguments:
    which one, and for a namespace its name there."""
    found: list[tuple[int, str | None]] = []
    for i, one in enumerate(given):
        if isinstance(one, SimpleNamespace):
            held = vars(one)
            found += [(i, name) for name in sorted(held) if not number(held[name])]
        elif not fixed(one):
            found.append((i, None))
    return tuple(found)


def taken(given: Sequence[Any], places: Places) -> list[Any]:
    """What is in those places."""
    return [given[i] if name is None else getattr(given[i], name) for i, name in places]


def arrays(given: tuple[Any, ...]) -> list[Any]:
    """The arrays among what a function is given, in the order of a program's arguments."""
    return taken(given, picked(given))


def number(one: Any) -> bool:
    """Whether it is part of the program: a number of Python's, the name of a dtype, or None."""
    return one is None or (isinstance(one, int | float | str) and not hasattr(one, "dtype"))


def fixed(one: Any) -> bool:
    """Whether it is part of the program: a number, a function, a layer."""
    return number(one) or callable(one) or isinstance(one, Layer | tuple)


def constants(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The numbers and functions among them: what a program holds, and so depends on."""
    return tuple(
        tuple((name, repr(one)) for name, one in sorted(vars(each).items()) if number(one))
        if isinstance(each, SimpleNamespace)
        else repr(each)
        if number(each)
        else each
        for each in given
        if isinstance(each, SimpleNamespace) or fixed(each)
    )
