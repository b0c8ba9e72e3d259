"""Columns and target of a table in an ONNX graph (see `xpmlp.to_onnx`)."""

from collections.abc import Sequence

from xpmlp.recording.onnx_graph import TEXT, Graph, Symbol
from xpmlp.tabular.preprocessing import NUMERIC, ColumnEncoder, category_indices, scale_numbers
from xpmlp.types import Array

MEANINGS = {
    "number": "NaN where missing",
    "date": "seconds since 1970, NaN where missing",
    "category": "empty where missing",
}


def add_inputs(graph: Graph, columns: Sequence[ColumnEncoder]) -> Symbol:
    """The network's inputs (N, n_in) float32, from one graph input (N,) per column.

    Numbers are float64 until they are scaled: seconds since 1970 have more digits than float32.
    """
    cells = []
    for known in columns:
        dtype = "float64" if known.kind in NUMERIC else TEXT
        cells.append(graph.input(known.name, dtype, ("N",), MEANINGS[known.kind]))
    parts = [
        part for pair in zip(columns, cells, strict=True) for part in encode_column(graph, *pair)
    ]
    return graph.concat(parts, axis=-1)


def encode_column(graph: Graph, known: ColumnEncoder, cells: Array) -> list[Symbol]:
    """The inputs of `encode` for a column, as parts (N, width) float32."""
    if known.kind in NUMERIC:
        missing = graph.isnan(cells)
        columns = [scale_numbers(graph, known, cells, missing)] + [missing] * known.gaps
        return [graph.column(graph.astype(part, "float32")) for part in columns]
    index, rest, gap = category_indices(known)
    indices = graph.lookup(cells, {"": gap} | index, rest)
    one_hot = [[float(i == j) for j in range(known.width)] for i in range(known.width + 1)]
    return [graph.take(graph.tensor(one_hot, "float32", f"categories of {known.name}"), indices)]


def unscale(graph: Graph, predicted: Array, center: float, scale: float) -> Array:
    """A regression's predictions in the target's unit, in float64 as `predict` returns them."""
    predicted64: Array = graph.astype(predicted, "float64")
    return predicted64 * scale + center
