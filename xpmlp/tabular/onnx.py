"""A table's columns and target in an ONNX graph (see `xpmlp.to_onnx`)."""

from collections.abc import Sequence

from xpmlp.recording.onnx_graph import TEXT, Graph, Symbol
from xpmlp.tabular.preprocessing import NUMERIC, Encoded, places, scaled
from xpmlp.types import Array

MEANINGS = {
    "number": "NaN where missing",
    "date": "seconds since 1970, NaN where missing",
    "category": "empty where missing",
}


def inputs(graph: Graph, columns: Sequence[Encoded]) -> Symbol:
    """The network's inputs (N, n_in) float32, of one graph input (N,) for each column.

    Numbers are float64 until they are scaled: a date's seconds have more digits than float32.
    """
    cells = []
    for known in columns:
        dtype = "float64" if known.kind in NUMERIC else TEXT
        cells.append(graph.input(known.name, dtype, ("N",), MEANINGS[known.kind]))
    parts = [part for pair in zip(columns, cells, strict=True) for part in encoded(graph, *pair)]
    return graph.concat(parts, axis=-1)


def encoded(graph: Graph, known: Encoded, cells: Array) -> list[Symbol]:
    """What `encode` gives for a column, as parts (N, width) float32."""
    if known.kind in NUMERIC:
        gap = graph.isnan(cells)
        columns = [scaled(graph, known, cells, gap)] + [gap] * known.gaps
        return [graph.column(graph.astype(part, "float32")) for part in columns]
    place, rest, missing = places(known)
    index = graph.lookup(cells, {"": missing} | place, rest)
    hot = [[float(i == j) for j in range(known.width)] for i in range(known.width + 1)]
    return [graph.take(graph.tensor(hot, "float32", f"categories of {known.name}"), index)]


def in_unit(graph: Graph, predicted: Array, center: float, scale: float) -> Array:
    """A regression's predictions in the target's unit, in float64 as the library gives them."""
    wide: Array = graph.astype(predicted, "float64")
    return wide * scale + center
