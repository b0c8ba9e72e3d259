"""An ONNX graph as a namespace: what predicts is run on it once, and every call becomes a node.

`forward`, the links and a table's encodings take their `xp`. Here it is a Graph, whose arrays are
Symbols: names of the graph's values, with dtype and shape. So no formula stands here a second
time, but for the functions that ONNX lacks.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.extras import needed
from xpmlp.recording.tracing import CALLS, TRUTHS, Traced, Tracer, UntraceableError
from xpmlp.types import Array

OPERATORS = {  # the Array API's words and ONNX's
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow",
    "negative": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh",
    "sin": "Sin", "cos": "Cos", "floor": "Floor", "maximum": "Max", "minimum": "Min",
    "where": "Where", "greater": "Greater", "less": "Less", "greater_equal": "GreaterOrEqual",
    "less_equal": "LessOrEqual", "logical_and": "And", "logical_not": "Not",
}  # fmt: skip
LOGICAL = ("logical_and", "logical_not")
FLOATS = ("float32", "float64")
TEXT = "string"
TEXTS = "ai.onnx.ml"  # the domain of the operator that reads texts

Shape = tuple[int | str, ...]  # a text is a size that is known when the graph is run


class Symbol(Traced):
    """Stands for an array of the graph; its operators become nodes."""

    shape: tuple[Any, ...] = ()

    def __init__(self, graph: "Graph", name: str, dtype: str, shape: Shape) -> None:
        self.tracer: Graph = graph
        self.name, self.kind, self.shape = name, dtype, shape

    @property
    def dtype(self) -> str:
        return self.kind

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        if key == (..., slice(None, 1), slice(None)):
            return Row(self.dtype)
        if key != (..., 0):
            raise UntraceableError(f"it takes a part of an array: {key!r}")
        first = self.tracer.constant(0, "int64")
        return self.tracer.node("Gather", [self, first], self.dtype, self.shape[:-1], axis=-1)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("it calls NumPy itself, not the xp that it is given")


class Row(NamedTuple):
    """An array's first row, like which others may be made, and nothing else (see `level`)."""

    dtype: str


class Graph(Tracer):
    """The namespace, and what was noted. Raises MissingExtraError where onnx is not installed."""

    float32, float64, int64 = "float32", "float64", "int64"

    def __init__(self) -> None:
        super().__init__([])
        self.onnx = needed("onnx", "onnx")
        self.inputs: dict[str, Symbol] = {}
        self.outputs: dict[str, Symbol] = {}
        self.meanings: dict[str, str] = {}  # of inputs, for people
        self.metadata: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.made: dict[Any, Symbol] = {}  # what is computed or held, so that it is so once

    def input(self, name: str, dtype: str, shape: Shape, meaning: str = "") -> Symbol:
        """An input of the graph. Inputs come first: no node may take their names."""
        if not name:
            raise ValueError("a column without a name cannot be the input of an ONNX graph")
        self.inputs[name], self.meanings[name] = Symbol(self, name, dtype, shape), meaning
        return self.inputs[name]

    def output(self, name: str, value: Symbol) -> None:
        if name in self.inputs:
            raise ValueError(
                f"a column is called {name!r}, as an output of the ONNX graph is: rename it and "
                "train again"
            )
        self.nodes.append(self.onnx.helper.make_node("Identity", [value.name], [name], name))
        self.outputs[name] = Symbol(self, name, value.dtype, value.shape)

    def fresh(self, name: str) -> str:
        while name in self.inputs or name in self.tensors:
            name = f"_{name}"
        return name

    def node(
        self,
        operator: str,
        given: Sequence[Symbol],
        dtype: str,
        shape: Shape,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> Symbol:
        """What an ONNX operator makes of the values given."""
        names = [one.name for one in given]
        key = (operator, *names, repr(attributes))
        if key not in self.made:
            name = self.fresh(f"{operator}.{len(self.nodes)}")
            make = self.onnx.helper.make_node
            self.nodes.append(make(operator, names, [name], name, domain=domain, **attributes))
            self.made[key] = Symbol(self, name, dtype, shape)
        return self.made[key]

    def constant(self, value: Any, dtype: str) -> Symbol:
        """A number, or a list of one, that the graph holds once."""
        key = (dtype, str(value))
        if key not in self.made:
            self.made[key] = self.tensor(value, dtype, f"constant.{len(self.tensors)}")
        return self.made[key]

    def tensor(self, values: Any, dtype: str, name: str) -> Symbol:
        """Numbers or texts that the graph holds; ValueError for a number beyond the dtype."""
        held = np.asarray(values, dtype=object if dtype == TEXT else None)
        if dtype != TEXT:
            with np.errstate(over="ignore"):
                held, given = held.astype(dtype), held
            beyond = np.isfinite(given) & ~np.isfinite(held)
            if beyond.any():
                raise ValueError(f"{name} has {given[beyond].flat[0]:g}, beyond {dtype}")
        name = self.fresh(name)
        self.tensors[name] = self.onnx.numpy_helper.from_array(held, name)
        return Symbol(self, name, dtype, held.shape)

    # the namespace

    def note(self, name: str, *inputs: Any) -> Symbol:
        """An elementwise call, or an operator of the stand-ins."""
        if name in CALLS and len(inputs) != CALLS[name]:
            raise UntraceableError(f"it calls xp.{name} with {len(inputs)} arguments")
        floats = [one.dtype for one in inputs if isinstance(one, Symbol) and one.dtype != "bool"]
        dtype = floats[0] if floats else "float32"
        wanted = ["bool" if name in LOGICAL else dtype] * len(inputs)
        if name == "where":
            wanted[0] = "bool"
        given = [self.symbol(one, kind) for one, kind in zip(inputs, wanted, strict=True)]
        kind = "bool" if name in TRUTHS else dtype
        return self.node(OPERATORS[name], given, kind, broadcast([one.shape for one in given]))

    def symbol(self, given: Any, dtype: str) -> Symbol:
        """A number or a stand-in as one of that dtype; truths are numbers among numbers."""
        if isinstance(given, Real) and given is not True and given is not False:
            return self.constant(float(given), dtype)
        if not isinstance(given, Symbol):
            raise UntraceableError(f"it uses a {type(given).__name__}")
        if given.dtype not in (dtype, "bool"):
            raise UntraceableError(f"it takes {given.dtype} together with {dtype}")
        return self.astype(given, dtype)

    def astype(self, given: Any, dtype: Any, *, copy: bool = True) -> Symbol:
        if dtype not in (*FLOATS, "int64", "bool"):
            raise UntraceableError(f"it casts to {dtype}")
        if given.dtype == dtype:
            return given  # type: ignore[no-any-return]
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", [given], dtype, given.shape, to=int(to))

    def full_like(self, like: Any, fill_value: float) -> Symbol:
        return self.constant(fill_value, like.dtype)  # it broadcasts to what it is like

    def isnan(self, x: Symbol) -> Symbol:
        return self.node("IsNaN", [x], "bool", x.shape)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Symbol:
        shape = reduced(x, axis, keepdims)
        return self.node("ReduceMax", [x], x.dtype, shape, axes=[-1], keepdims=int(keepdims))

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Symbol:
        axes, shape = self.constant([-1], "int64"), reduced(x, axis, keepdims)
        return self.node("ReduceSum", [x, axes], x.dtype, shape, keepdims=int(keepdims))

    def argmax(self, x: Symbol, *, axis: int) -> Symbol:
        return self.node("ArgMax", [x], "int64", reduced(x, axis, False), axis=-1, keepdims=0)

    def matmul(self, a: Symbol, b: Symbol) -> Symbol:
        lead = broadcast([a.shape[:-2], b.shape[:-2]])
        return self.node("MatMul", [a, b], a.dtype, (*lead, a.shape[-2], b.shape[-1]))

    def concat(self, parts: Sequence[Symbol], *, axis: int) -> Symbol:
        width = sum(int(part.shape[-1]) for part in parts)
        shape = (*parts[0].shape[:-1], width)
        return self.node("Concat", parts, parts[0].dtype, shape, axis=axis)

    def column(self, x: Symbol) -> Symbol:
        """x (N,) as (N, 1)."""
        return self.node("Unsqueeze", [x, self.constant([-1], "int64")], x.dtype, (*x.shape, 1))

    def take(self, table: Symbol, index: Symbol) -> Symbol:
        """Rows of a table (n, ...) by their numbers (..., N)."""
        shape = (*index.shape, *table.shape[1:])
        return self.node("Gather", [table, index], table.dtype, shape, axis=0)

    def lookup(self, texts: Symbol, known: dict[str, int], other: int) -> Symbol:
        """The number of each text, and `other` for one that is not known."""
        return self.node(
            "LabelEncoder", [texts], "int64", texts.shape, domain=TEXTS,
            keys_strings=list(known), values_int64s=list(known.values()), default_int64=other,
        )  # fmt: skip

    # what ONNX lacks, of what it has

    def expm1(self, x: Array) -> Array:
        """exp(x) - 1 with all its digits near 0: tanh(x / 2) times exp(x) + 1."""
        return self.tanh(0.5 * x) * (self.exp(x) + 1)

    def log1p(self, x: Array) -> Array:
        """log(1 + x) with all its digits near 0, where the slope is 1: what 1 + x lost is added."""
        near = self.minimum(x, 1)  # beyond 1 it would not count, and of infinity be NaN
        lost = near - ((1 + near) - 1)
        return self.log(1 + x) + lost

    def hypot(self, a: Array, b: Array) -> Array:
        """The root of a * a + b * b, whose squares may be beyond the dtype."""
        a, b = self.abs(a), self.abs(b)
        large, small = self.maximum(a, b), self.minimum(a, b)
        share = small / self.where(large > 0, large, 1)
        return large * self.sqrt(1 + share * share)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of arrays of these shapes together; UntraceableError where they do not fit."""
    found: list[int | str] = []
    for at in range(-max(map(len, shapes)), 0):
        sizes = {shape[at] for shape in shapes if len(shape) >= -at} - {1}
        if len(sizes) > 1:
            raise UntraceableError(f"arrays of shapes {shapes} do not go together")
        found.append(sizes.pop() if sizes else 1)
    return tuple(found)


def reduced(x: Symbol, axis: int | None, keepdims: bool) -> Shape:
    """The shape without its last axis, or with 1 in its place."""
    if axis != -1:
        raise UntraceableError(f"it reduces over the axis {axis}, not over the last")
    return (*x.shape[:-1], 1) if keepdims else x.shape[:-1]
