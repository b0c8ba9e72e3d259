"""Export of a model to ONNX: the network in float32, for any runtime, without xpmlp.

Inputs: `X` (N, n_in) float32, or for a table one per column. Outputs: `label` (N,) and
`probabilities` (N, C) of a classification, else `prediction`, in the shape that `predict` returns;
for a population with the leading axis of members, as everywhere.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from xpmlp import __version__
from xpmlp.apply import plain
from xpmlp.devices.namespace import to_host
from xpmlp.layout import names, packed, views
from xpmlp.losses import loss
from xpmlp.names import title
from xpmlp.recording.onnx_graph import TEXT, Graph, Symbol
from xpmlp.storage.atomic import write_atomic
from xpmlp.training.labels import class_probabilities, most_probable_class
from xpmlp.training.model import Model
from xpmlp.types import Array

# ONNX 1.8 (2020), the first with all operators that are needed here (comparisons, Where and
# reductions in their present form), so that old runtimes read the file too
OPSET, TEXT_OPSET, IR_VERSION = 13, 2, 7
MAX_BYTES = 2**31 - 1  # of a protobuf message
INT64 = np.iinfo(np.int64)


@runtime_checkable
class Exportable(Protocol):
    """A model that writes its network, and what surrounds it, into a graph."""

    def _into_onnx(self, graph: Graph) -> None: ...


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file (opset 13) whose outputs are those of `model.predict`.

    Parameters
    ----------
    model : Model, TableModel or fitted estimator
        A Model and an estimator take `X` (N, n_in) float32; a table takes one input (N,) per
        column, by its name: float64 for numbers and dates (seconds since 1970; NaN where missing),
        strings for categories ("" where missing). Integer labels are int64, strings are strings.
        All sums are in float32.
    path : path
        The write is atomic.

    Raises
    ------
    ImportError
        If onnx is not installed (`pip install 'xpmlp[onnx]'`).
    TypeError
        If `model` is of another type.
    ValueError
        Naming a layer, a loss or labels that ONNX cannot express.
    OSError
        Where the path cannot be written.

    Examples
    --------
    >>> import os, tempfile, xpmlp
    >>> model = xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> xpmlp.to_onnx(model, path)
    >>> import onnx
    >>> [value.name for value in onnx.load(path).graph.output]
    ['prediction']
    """
    write_atomic(path, serialize(graph_of(model)))


def graph_of(model: Any) -> Graph:
    """The graph that `to_onnx` writes."""
    graph = Graph()
    if isinstance(model, Model):
        add_outputs(
            graph,
            prediction_outputs(
                graph, model, add_network(graph, model, add_rows_input(graph, model))
            ),
        )
    elif isinstance(model, Exportable) and not isinstance(model, type):
        model._into_onnx(graph)
    else:
        raise TypeError(
            "to_onnx takes a Model, a TableModel or a fitted MLPClassifier or MLPRegressor "
            f"(scikit-learn's by xpmlp.from_sklearn); got {type(model).__name__}"
        )
    return graph


def add_rows_input(graph: Graph, model: Model) -> Symbol:
    """The input (N, n_in) of a network on arrays."""
    return graph.input("X", "float32", ("N", model.spec.n_in))


def add_network(graph: Graph, model: Model, x: Symbol) -> Symbol:
    """The linked scores (..., N, n_out) of rows x."""
    spec, host = model.spec, to_host(model.flat)
    params = packed(
        spec,
        [
            graph.tensor(view, "float32", name)
            for name, view in zip(names(spec), views(np, spec, host), strict=True)
        ],
    )
    for number, (layer, p) in enumerate(zip(spec.layers, params, strict=True), 1):
        what = f"layer {number} ({layer.title})"
        shape = (*host.shape[:-1], x.shape[-2], layer.n_out)
        x = check_export(what, lambda: layer.run_forward(graph, p, x, None, plain).y, shape)  # noqa: B023
    graph.metadata["spec"] = spec.described()
    what = f"the link of loss {title(spec.loss)!r}"
    link = loss(spec.loss).link
    width = link(np, np.zeros((1, spec.n_out))).shape[-1] if isinstance(spec.loss, str) else None
    shape = (*x.shape[:-1], width or x.shape[-1])
    return check_export(what, lambda: link(graph, x), shape)


def check_export(what: str, function: Callable[[], Any], shape: Any) -> Symbol:
    """function(); ValueError naming `what` if it does not return a float32 array of that shape."""
    try:
        value = function()
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{what} cannot be exported: {error}") from error
    if not isinstance(value, Symbol) or (value.shape, value.dtype) != (shape, "float32"):
        raise ValueError(f"{what} cannot be exported: it does not return an array like its input")
    return value


def prediction_outputs(graph: Graph, model: Model, linked: Array) -> dict[str, Symbol]:
    """The results of `predict` and `predict_proba` from linked scores, by output name."""
    classes = model.classes_
    if classes is None:
        flat = model._labels.flat and linked.shape[-1] == 1
        return {"prediction": linked[..., 0] if flat else linked}
    label = graph.take(class_labels(graph, classes), most_probable_class(graph, linked))
    return {"label": label, "probabilities": class_probabilities(graph, linked)}


def add_outputs(graph: Graph, outputs: dict[str, Symbol]) -> None:
    for name, value in outputs.items():
        graph.output(name, value)


def class_labels(graph: Graph, classes: np.ndarray) -> Symbol:
    """Class labels as int64 or strings; ValueError for others, which ONNX does not have."""
    values = classes.tolist()
    if all(isinstance(label, str) for label in values):
        try:
            "".join(values).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a class label cannot be exported: {error}") from None
        return graph.tensor(classes, TEXT, "classes")
    whole = all(isinstance(label, int | float) and label == label // 1 for label in values)
    if not whole or not INT64.min <= min(values) <= max(values) <= INT64.max:
        raise ValueError(
            f"class labels such as {values[0]!r} (dtype {classes.dtype}) cannot be exported: ONNX "
            "has int64 and strings. Train with integers or strings as labels"
        )
    return graph.tensor(classes.astype(np.int64), "int64", "classes")


def serialize(graph: Graph) -> bytes:
    """The bytes of an ONNX file; ValueError if it would be too large."""
    helper, nodes, used = graph.onnx.helper, [], set(graph.outputs)
    for node in reversed(graph.nodes):  # without the unused slopes of activations
        if used.intersection(node.output):
            nodes.append(node)
            used.update(node.input)
    onnx_graph = helper.make_graph(
        nodes[::-1],
        "xpmlp",
        [value_info(graph, value, graph.meanings[n]) for n, value in graph.inputs.items()],
        [value_info(graph, value) for value in graph.outputs.values()],
        [tensor for name, tensor in graph.tensors.items() if name in used],
    )
    opsets = {"": OPSET} | {node.domain: TEXT_OPSET for node in nodes if node.domain}
    model = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid(*pair) for pair in opsets.items()],
        ir_version=IR_VERSION,
        producer_name="xpmlp",
        producer_version=__version__,
    )
    helper.set_model_props(model, graph.metadata)
    size = model.ByteSize()
    if size > MAX_BYTES:
        raise ValueError(
            f"the model takes {size:,} bytes; an ONNX file holds {MAX_BYTES:,} at most"
        )
    data: bytes = model.SerializeToString()
    return data


def value_info(graph: Graph, value: Symbol, meaning: str = "") -> Any:
    element_type = graph.onnx.helper.np_dtype_to_tensor_dtype
    string = graph.onnx.TensorProto.STRING
    kind = string if value.dtype == TEXT else element_type(np.dtype(value.dtype))
    return graph.onnx.helper.make_tensor_value_info(value.name, kind, value.shape, meaning)
