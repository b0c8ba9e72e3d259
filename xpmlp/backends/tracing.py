"""A small function of the core, traced once into the operations that it comes to.

A namespace cannot see operators: `beta * m` never passes through `xp`. So the function is called
once with stand-ins that note every operator and every call on `xp`. What comes of it is a
Program: the one formula as a list, which a backend runs its own way.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

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
REAL = ("float32", "float64")
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
    cast: str | None = None  # the dtype that truths are cast to, if it is not the arguments'


class Traced:
    """Stands for an array of the function's arguments, or made of them."""

    __array_ufunc__ = None  # NumPy leaves its operators to ours

    def __init__(self, tracer: "Tracer", value: Value) -> None:
        self.tracer, self.value = tracer, value

    @property
    def dtype(self) -> str:
        """Stands for the dtype that all floats of a function share."""
        return "own"

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tracer.shapes[self.value.at]

    def __getitem__(self, key: Any) -> "Traced":
        if key != (..., slice(None, 1), slice(None)):
            raise UntraceableError(f"it takes a part of an array: {key!r}")
        return self  # a row like the others: what is made of it broadcasts

    def __and__(self, other: Any) -> "Traced":
        truths = self.tracer.is_truth(self)
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
        """given: the arguments' arrays, all of one dtype."""
        self.arguments = len(given)
        self.shapes = [tuple(one.shape) for one in given]
        self.dtype = str(given[0].dtype).rpartition(".")[2] if given else ""
        self.whole = "int" in self.dtype
        self.cast: str | None = None
        self.operations: list[Operation] = []
        self.known: dict[str, int] = {}  # which operation it was, by how it is written

    def __getattr__(self, name: str) -> Any:
        if name in REAL:
            return name
        if name not in CALLS:
            raise UntraceableError(f"it calls xp.{name}")
        return lambda *inputs: self.note(name, *inputs)

    def value(self, given: Any) -> Value:
        if isinstance(given, Traced):
            return given.value
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise UntraceableError(f"it uses a {type(given).__name__}")
        return Value(-1, given if self.whole else float(given))

    def is_truth(self, given: Traced) -> bool:
        last = given.value.at - self.arguments
        return last >= 0 and self.operations[last].name in TRUTHS

    def note(self, name: str, *inputs: Any) -> Traced:
        if name in CALLS and len(inputs) != CALLS[name]:
            raise UntraceableError(f"it calls xp.{name} with {len(inputs)} arguments")
        values = tuple(self.value(one) for one in inputs)
        if (same := neutral(name, values)) is not None:
            return Traced(self, same)
        operation = Operation(name, values)
        # what was computed once is not computed again; written out, 0.0 is not -0.0
        index = self.known.setdefault(repr(operation), len(self.operations))
        if index == len(self.operations):
            self.operations.append(operation)
        return Traced(self, Value(self.arguments + index))

    def astype(self, given: Traced, dtype: Any, *, copy: bool = True) -> Any:
        truths = self.is_truth(given)
        if dtype != "own":
            if not truths or dtype not in REAL:
                raise UntraceableError(f"it casts to {dtype}")
            self.cast = dtype
        return self.note("cast", given) if truths else given

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("sum", x, axis, keepdims)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
        return self.reduce("max", x, axis, keepdims)

    def reduce(self, name: str, x: Traced, axis: Any, keepdims: bool) -> Traced:
        if axis != -1:
            raise UntraceableError(f"it takes the {name} over axis {axis}")
        return self.note(name if keepdims else f"{name}_flat", x)

    def finfo(self, dtype: Any) -> SimpleNamespace:
        return SimpleNamespace(eps=EPS[self.dtype if dtype == "own" else dtype])

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
        if number(one) or callable(one):
            return one
        count += 1
        return Traced(tracer, Value(count - 1))

    try:
        found = function(tracer, *map(stand_in, given))
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UntraceableError(str(error)) from error
    results = tuple(map(tracer.value, found if isinstance(found, tuple) else (found,)))
    return Program(tracer.arguments, tuple(tracer.operations), results, tracer.cast)


Places = tuple[tuple[int, str | None], ...]


def picked(given: tuple[Any, ...]) -> Places:
    """Where the arrays are among what a function is given, in the order of a program's arguments:
    which one, and for a namespace its name there."""
    found: list[tuple[int, str | None]] = []
    for i, one in enumerate(given):
        if isinstance(one, SimpleNamespace):
            held = vars(one)
            found += [(i, name) for name in sorted(held) if not number(held[name])]
        elif not (number(one) or callable(one)):
            found.append((i, None))
    return tuple(found)


def taken(given: Sequence[Any], places: Places) -> list[Any]:
    """What is in those places."""
    return [given[i] if name is None else getattr(given[i], name) for i, name in places]


def arrays(given: tuple[Any, ...]) -> list[Any]:
    """The arrays among what a function is given, in the order of a program's arguments."""
    return taken(given, picked(given))


def number(one: Any) -> bool:
    """Whether it is part of the program: a number of Python's, or the name of a dtype."""
    return isinstance(one, int | float | str) and not hasattr(one, "dtype")  # as NumPy's have


def constants(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The numbers and functions among them: what a program holds, and so depends on."""
    return tuple(
        tuple((name, repr(one)) for name, one in sorted(vars(each).items()) if number(one))
        if isinstance(each, SimpleNamespace)
        else each
        if callable(each)
        else repr(each)
        for each in given
        if isinstance(each, SimpleNamespace) or number(each) or callable(each)
    )
