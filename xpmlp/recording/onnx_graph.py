"""An ONNX graph as a namespace: a prediction is run on it once, and every call becomes a node.

`forward`, the links and a table's encodings take their `xp`. Here it is a Graph, whose arrays are
Symbols: names of the graph's values, with dtype and shape. So no formula is repeated here, except
the functions that ONNX lacks.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.extras import import_extra
from xpmlp.recording.tracing import CALLS, PREDICATES, TracedArray, Tracer, UntraceableError
from xpmlp.types import Array

OPERATORS = {  # the Array API's names and ONNX's
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow",
    "negative": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh",
    "sin": "Sin", "cos": "Cos", "floor": "Floor", "maximum": "Max", "minimum": "Min",
    "where": "Where", "greater": "Greater", "less": "Less", "greater_equal": "GreaterOrEqual",
    "less_equal": "LessOrEqual", "logical_and": "And", "logical_not": "Not",
}  # fmt: skip
LOGICAL = ("logical_and", "logical_not")
FLOATS = ("float32", "float64")
TEXT = "string"
TEXTS = "ai.onnx.ml"  # the domain of the operator that reads strings

Shape = tuple[int | str, ...]  # a string is a size that is known when the graph is run


class Symbol(TracedArray):
    """Proxy for an array of the graph; its operators become nodes."""

    shape: tuple[Any, ...] = ()

    def __init__(self, graph: "Graph", name: str, dtype: str, shape: Shape) -> None:
        self.tracer: Graph = graph
        self.name, self.dtype_name, self.shape = name, dtype, shape

    @property
    def dtype(self) -> str:
        return self.dtype_name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        if key == (..., slice(None, 1), slice(None)):
            return Row(self.dtype)
        if key == (..., 0):
            first = self.tracer.constant(0, "int64")
            return self.tracer.node("Gather", [self, first], self.dtype, self.shape[:-1], axis=-1)
        match key:
            case (start, slice() as part) if start is ...:
                return self.columns(part)
        raise UntraceableError(f"it takes a part of an array: {key!r}")

    def columns(self, part: slice) -> "Symbol":
        """Some neighbouring columns."""
        start, stop, step = part.indices(self.shape[-1])
        if step != 1 or start >= stop:
            raise UntraceableError(f"it takes a part of an array: {part!r}")
        ends = [self.tracer.constant([at], "int64") for at in (start, stop, -1)]
        shape = (*self.shape[:-1], stop - start)
        return self.tracer.node("Slice", [self, *ends], self.dtype, shape)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("it calls NumPy itself, not the xp that it is given")


class Row(NamedTuple):
    """An array's first row, for full_like and nothing else (see `level`)."""

    dtype: str


class Graph(Tracer):
    """The namespace and its nodes. Raises MissingExtraError where onnx is not installed."""

    float32, float64, int64 = "float32", "float64", "int64"

    def __init__(self) -> None:
        super().__init__([])
        self.onnx = import_extra("onnx", "onnx")
        self.inputs: dict[str, Symbol] = {}
        self.outputs: dict[str, Symbol] = {}
        self.meanings: dict[str, str] = {}  # of inputs, as documentation
        self.metadata: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.symbols: dict[Any, Symbol] = {}  # of nodes and constants, each of which exists once

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

    def unused_name(self, name: str) -> str:
        while name in self.inputs or name in self.tensors:
            name = f"_{name}"
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[Symbol],
        dtype: str,
        shape: Shape,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> Symbol:
        """The result of an ONNX operator."""
        names = [x.name for x in inputs]
        key = (operator, *names, repr(attributes))
        if key not in self.symbols:
            name = self.unused_name(f"{operator}.{len(self.nodes)}")
            make = self.onnx.helper.make_node
            self.nodes.append(make(operator, names, [name], name, domain=domain, **attributes))
            self.symbols[key] = Symbol(self, name, dtype, shape)
        return self.symbols[key]

    def constant(self, value: Any, dtype: str) -> Symbol:
        """A number, or a list of one, that the graph contains once."""
        key = (dtype, str(value))
        if key not in self.symbols:
            self.symbols[key] = self.tensor(value, dtype, f"constant.{len(self.tensors)}")
        return self.symbols[key]

    def tensor(self, values: Any, dtype: str, name: str) -> Symbol:
        """Numbers or strings as an initializer; ValueError for a number beyond the dtype."""
        array = np.asarray(values, dtype=object if dtype == TEXT else None)
        if dtype != TEXT:
            with np.errstate(over="ignore"):
                cast, original = array.astype(dtype), array
            overflow = np.isfinite(original) & ~np.isfinite(cast)
            if overflow.any():
                raise ValueError(f"{name} has {original[overflow].flat[0]:g}, beyond {dtype}")
            array = cast
        name = self.unused_name(name)
        self.tensors[name] = self.onnx.numpy_helper.from_array(array, name)
        return Symbol(self, name, dtype, array.shape)

    # the namespace

    def record(self, name: str, *inputs: Any) -> Symbol:
        """An elementwise call, or an operator of the proxies."""
        if name in CALLS and len(inputs) != CALLS[name]:
            raise UntraceableError(f"it calls xp.{name} with {len(inputs)} arguments")
        floats = [x.dtype for x in inputs if isinstance(x, Symbol) and x.dtype != "bool"]
        dtype = floats[0] if floats else "float32"
        dtypes = ["bool" if name in LOGICAL else dtype] * len(inputs)
        if name == "where":
            dtypes[0] = "bool"
        symbols = [self.symbol(x, kind) for x, kind in zip(inputs, dtypes, strict=True)]
        result_dtype = "bool" if name in PREDICATES else dtype
        shape = broadcast_shapes([x.shape for x in symbols])
        return self.node(OPERATORS[name], symbols, result_dtype, shape)

    def symbol(self, x: Any, dtype: str) -> Symbol:
        """A number or a proxy as one of that dtype; booleans among numbers become numbers."""
        if isinstance(x, Real) and x is not True and x is not False:
            return self.constant(float(x), dtype)
        if not isinstance(x, Symbol):
            raise UntraceableError(f"it uses a {type(x).__name__}")
        if x.dtype not in (dtype, "bool"):
            raise UntraceableError(f"it takes {x.dtype} together with {dtype}")
        return self.astype(x, dtype)

    def astype(self, x: Any, dtype: Any, *, copy: bool = True) -> Symbol:
        if dtype not in (*FLOATS, "int64", "bool"):
            raise UntraceableError(f"it casts to {dtype}")
        if x.dtype == dtype:
            return x  # type: ignore[no-any-return]
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", [x], dtype, x.shape, to=int(to))

    def full_like(self, like: Any, fill_value: float) -> Symbol:
        return self.constant(fill_value, like.dtype)  # it broadcasts to the shape of `like`

    def isnan(self, x: Symbol) -> Symbol:
        return self.node("IsNaN", [x], "bool", x.shape)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Symbol:
        shape = reduced_shape(x, axis, keepdims)
        return self.node("ReduceMax", [x], x.dtype, shape, axes=[-1], keepdims=int(keepdims))

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Symbol:
        axes, shape = self.constant([-1], "int64"), reduced_shape(x, axis, keepdims)
        return self.node("ReduceSum", [x, axes], x.dtype, shape, keepdims=int(keepdims))

    def mean(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Symbol:
        total = self.sum(x, axis=axis, keepdims=keepdims)
        return total / x.shape[-1]  # type: ignore[no-any-return]

    def argmax(self, x: Symbol, *, axis: int) -> Symbol:
        return self.node("ArgMax", [x], "int64", reduced_shape(x, axis, False), axis=-1, keepdims=0)

    def matmul(self, a: Symbol, b: Symbol) -> Symbol:
        lead = broadcast_shapes([a.shape[:-2], b.shape[:-2]])
        return self.node("MatMul", [a, b], a.dtype, (*lead, a.shape[-2], b.shape[-1]))

    def concat(self, parts: Sequence[Symbol], *, axis: int) -> Symbol:
        width = sum(int(part.shape[-1]) for part in parts)
        shape = (*parts[0].shape[:-1], width)
        return self.node("Concat", parts, parts[0].dtype, shape, axis=axis)

    def column(self, x: Symbol) -> Symbol:
        """x (N,) as (N, 1)."""
        return self.node("Unsqueeze", [x, self.constant([-1], "int64")], x.dtype, (*x.shape, 1))

    def take(self, table: Symbol, index: Symbol) -> Symbol:
        """Rows of a table (n, ...) at indices (..., N)."""
        shape = (*index.shape, *table.shape[1:])
        return self.node("Gather", [table, index], table.dtype, shape, axis=0)

    def lookup(self, strings: Symbol, known: dict[str, int], other: int) -> Symbol:
        """The number of each string, and `other` for an unknown one."""
        return self.node(
            "LabelEncoder", [strings], "int64", strings.shape, domain=TEXTS,
            keys_strings=list(known), values_int64s=list(known.values()), default_int64=other,
        )  # fmt: skip

    # functions that ONNX lacks

    def expm1(self, x: Array) -> Array:
        """exp(x) - 1, accurate near 0: tanh(x / 2) times exp(x) + 1."""
        return self.tanh(0.5 * x) * (self.exp(x) + 1)

    def log1p(self, x: Array) -> Array:
        """log(1 + x), accurate near 0: the rounding error of 1 + x is added, as the slope is 1."""
        near = self.minimum(x, 1)  # beyond 1 the error is negligible, and of infinity NaN
        error = near - ((1 + near) - 1)
        return self.log(1 + x) + error

    def hypot(self, a: Array, b: Array) -> Array:
        """The root of a * a + b * b, whose squares may overflow."""
        a, b = self.abs(a), self.abs(b)
        large, small = self.maximum(a, b), self.minimum(a, b)
        ratio = small / self.where(large > 0, large, 1)
        return large * self.sqrt(1 + ratio * ratio)


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """The common shape of arrays; UntraceableError where they do not broadcast."""
    common: list[int | str] = []
    for axis in range(-max(map(len, shapes)), 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise UntraceableError(f"arrays of shapes {shapes} do not broadcast")
        common.append(sizes.pop() if sizes else 1)
    return tuple(common)


def reduced_shape(x: Symbol, axis: int | None, keepdims: bool) -> Shape:
    """The shape without its last axis, or with 1 in its place."""
    if axis != -1:
        raise UntraceableError(f"it reduces over the axis {axis}, not over the last")
    return (*x.shape[:-1], 1) if keepdims else x.shape[:-1]
