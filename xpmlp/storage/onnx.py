"""A model as an ONNX file: the network in float32, for any runtime, without xpmlp.

Inputs: `X` (N, n_in) float32, or of a table one for each column. Outputs: `label` (N,) and
`probabilities` (N, C) for classes, else `prediction`, shaped as `predict` gives it; of a
population with its axis of members in front, as everywhere.
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

# ONNX 1.8, of 2020: the first whose operators are all that is needed here (comparisons, choices
# and reductions as they still are), so that old runtimes read the file, and every later one
OPSET, TEXTS_OPSET, IR_VERSION = 13, 2, 7
LIMIT = 2**31 - 1  # bytes of one protobuf message
INT64 = np.iinfo(np.int64)


@runtime_checkable
class Exportable(Protocol):
    """A model that has something around its network, and writes it into a graph."""

    def into_onnx(self, graph: Graph) -> None: ...


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write `model` as an ONNX file (opset 13) whose outputs are those of `model.predict`.

    model: a Model, a TableModel or a fitted estimator. A Model and an estimator take `X`
    (N, n_in) float32; a table takes one input (N,) for each column, by its name: float64 for
    numbers and dates (seconds since 1970; NaN where missing), texts for categories ("" where
    missing). Whole-number labels are int64, texts are texts. All sums are in float32.

    The file is written whole or not at all. Raises ImportError where onnx is not installed
    (`pip install 'xpmlp[onnx]'`), TypeError for anything else, ValueError naming the activation,
    the loss or the labels that ONNX cannot hold, OSError where the path cannot be written.

    >>> import os, tempfile, xpmlp
    >>> model = xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> xpmlp.to_onnx(model, path)
    >>> import onnx
    >>> [value.name for value in onnx.load(path).graph.output]
    ['prediction']
    """
    write_atomic(path, serialized(graph_of(model)))


def graph_of(model: Any) -> Graph:
    """The graph that `to_onnx` writes."""
    graph = Graph()
    if isinstance(model, Model):
        answer(graph, answers(graph, model, network(graph, model, rows(graph, model))))
    elif isinstance(model, Exportable) and not isinstance(model, type):
        model.into_onnx(graph)
    else:
        raise TypeError(
            "to_onnx takes a Model, a TableModel or a fitted MLPClassifier or MLPRegressor "
            f"(scikit-learn's by xpmlp.from_sklearn); got {type(model).__name__}"
        )
    return graph


def rows(graph: Graph, model: Model) -> Symbol:
    """The rows of a network on arrays, (N, n_in), as an input."""
    return graph.input("X", "float32", ("N", model.spec.n_in))


def network(graph: Graph, model: Model, x: Symbol) -> Symbol:
    """The linked scores (..., N, n_out) of rows x: the layers, run on the graph."""
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
        x = noted(what, lambda: layer.run_forward(graph, p, x, None, plain).y, shape)  # noqa: B023
    graph.metadata["spec"] = spec.described()
    what = f"the link of loss {title(spec.loss)!r}"
    return noted(what, lambda: loss(spec.loss).link(graph, x), x.shape)


def noted(what: str, function: Callable[[], Any], shape: Any) -> Symbol:
    """function(); ValueError saying what it is where it makes no array of that shape."""
    try:
        found = function()
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{what} cannot be exported: {error}") from error
    if not isinstance(found, Symbol) or (found.shape, found.dtype) != (shape, "float32"):
        raise ValueError(f"{what} cannot be exported: it does not give an array like its input")
    return found


def answers(graph: Graph, model: Model, linked: Array) -> dict[str, Symbol]:
    """What `predict` and `predict_proba` make of linked scores, by the outputs' names."""
    classes = model.classes_
    if classes is None:
        flat = model.labels.flat and linked.shape[-1] == 1
        return {"prediction": linked[..., 0] if flat else linked}
    label = graph.take(labels(graph, classes), most_probable_class(graph, linked))
    return {"label": label, "probabilities": class_probabilities(graph, linked)}


def answer(graph: Graph, found: dict[str, Symbol]) -> None:
    for name, value in found.items():
        graph.output(name, value)


def labels(graph: Graph, classes: np.ndarray) -> Symbol:
    """Class labels as int64 where they are whole numbers, as texts where they are texts.

    ValueError for any other label: an ONNX classifier has no others.
    """
    listed = classes.tolist()
    if all(isinstance(label, str) for label in listed):
        try:
            "".join(listed).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a class label cannot be exported: {error}") from None
        return graph.tensor(classes, TEXT, "classes")
    whole = all(isinstance(label, int | float) and label == label // 1 for label in listed)
    if not whole or not INT64.min <= min(listed) <= max(listed) <= INT64.max:
        raise ValueError(
            f"class labels such as {listed[0]!r} (dtype {classes.dtype}) cannot be exported: ONNX "
            "has int64 and texts. Train with whole numbers or texts as labels"
        )
    return graph.tensor(classes.astype(np.int64), "int64", "classes")


def serialized(graph: Graph) -> bytes:
    """The bytes of an ONNX file; ValueError where there are too many for one."""
    helper, nodes, wanted = graph.onnx.helper, [], set(graph.outputs)
    for node in reversed(graph.nodes):  # a slope that came with a user's function is left out
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    made = helper.make_graph(
        nodes[::-1],
        "xpmlp",
        [value_info(graph, one, graph.meanings[name]) for name, one in graph.inputs.items()],
        [value_info(graph, one) for one in graph.outputs.values()],
        [tensor for name, tensor in graph.tensors.items() if name in wanted],
    )
    opsets = {"": OPSET} | {node.domain: TEXTS_OPSET for node in nodes if node.domain}
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid(*pair) for pair in opsets.items()],
        ir_version=IR_VERSION,
        producer_name="xpmlp",
        producer_version=__version__,
    )
    helper.set_model_props(model, graph.metadata)
    size = model.ByteSize()
    if size > LIMIT:
        raise ValueError(f"the model takes {size:,} bytes; an ONNX file holds {LIMIT:,} at most")
    found: bytes = model.SerializeToString()
    return found


def value_info(graph: Graph, value: Symbol, meaning: str = "") -> Any:
    number = graph.onnx.helper.np_dtype_to_tensor_dtype
    texts = graph.onnx.TensorProto.STRING
    kind = texts if value.dtype == TEXT else number(np.dtype(value.dtype))
    return graph.onnx.helper.make_tensor_value_info(value.name, kind, value.shape, meaning)
