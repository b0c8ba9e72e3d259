"""A network on a table: columns in, labels or numbers in the target's unit out."""

import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np

from xpmlp.names import nearest
from xpmlp.recording.onnx_graph import Graph
from xpmlp.shapes import many
from xpmlp.spec import Spec
from xpmlp.storage.checksummed import INVALID_FILE_ERRORS, invalid_file
from xpmlp.storage.model_file import Contents, read, save
from xpmlp.storage.onnx import add_network, add_outputs, prediction_outputs
from xpmlp.tabular.onnx import add_inputs, unscale
from xpmlp.tabular.preprocessing import (
    ColumnEncoder,
    encode,
    fit_column,
    from_config,
    to_arrays,
    to_config,
)
from xpmlp.tabular.reading import Table, TableError, as_table, check_finite, column_names, is_number
from xpmlp.tabular.scoring import nan_to_none
from xpmlp.training.labels import is_missing
from xpmlp.training.model import Model

REGRESSION, CLASSIFICATION = "regression", "classification"
RESULTS = ("metrics", "baseline", "rows")  # of training: scores and numbers of rows
MAX_CLASSES = 20  # integers with more distinct values are guessed to be a regression


class Inputs(NamedTuple):
    """The network's inputs, and how the table differs from training's."""

    x: np.ndarray  # (N, n_in) float32
    unknown: dict[str, int]  # number of cells of an unknown category, by column
    ignored: list[str]  # columns that were not in training


@dataclass(frozen=True)
class TableModel:
    """A trained network with its columns and target, from `fit_table` or `xpmlp.load`."""

    model: Model
    columns: tuple[ColumnEncoder, ...] = field(repr=False)
    target: str
    task: str  # "regression" or "classification"
    center: float = 0.0  # of a regression's target: its mean ...
    scale: float = 1.0  # ... and standard deviation
    trained: Mapping[str, Any] = field(repr=False, default_factory=dict)  # scores at training

    @property
    def classes_(self) -> Any:
        """The sorted labels (C,); None for a regression."""
        return self.model.classes_

    @property
    def spec(self) -> Spec:
        return self.model.spec

    @property
    def string_columns(self) -> list[str]:
        """The columns, with the target, to read from a file as strings."""
        labels = self.classes_ is not None and self.classes_.dtype.kind == "U"
        names = [known.name for known in self.columns if known.kind == "category"]
        return [*names, *[self.target] * labels]

    def inputs(self, frame: Any) -> Inputs:
        """Encode the frame's columns, by name.

        frame: a pandas, polars or pyarrow frame, a Table, or a dict {name: cells}, which needs no
        other package. TableError naming a column that is missing or of another kind.
        """
        parts, unknown = [], {}
        table = frame if isinstance(frame, Mapping) else as_table(frame)
        for known in self.columns:
            part, count = encode(known, column_cells(table, known))
            parts.append(part)
            if count:
                unknown[known.name] = count
        used = {known.name for known in self.columns} | {self.target}
        names = list(table) if isinstance(table, Mapping) else column_names(table.frame)
        ignored = [name for name in names if name not in used]
        if len({len(part) for part in parts}) > 1:
            raise TableError("the columns differ in length")
        return Inputs(np.concatenate(parts, axis=1), unknown, ignored)

    def rows(self, frame: Any) -> np.ndarray:
        """The network's inputs (N, n_in), with a warning of unknown categories."""
        inputs = self.inputs(frame)
        for name, count in inputs.unknown.items():
            warnings.warn(unknown_category_message(name, count), stacklevel=3)
        return inputs.x

    def predict(self, frame: Any) -> np.ndarray:
        """Labels (N,), or numbers (N,) in the target's unit."""
        return self.unscale(self.model.predict(self.rows(frame)))

    def predict_proba(self, frame: Any) -> np.ndarray:
        """Probabilities (N, C) in the order of `classes_`."""
        proba: np.ndarray = self.model.predict_proba(self.rows(frame))
        return proba

    def unscale(self, predicted: np.ndarray) -> np.ndarray:
        """The network's predictions in the target's unit."""
        if self.task == CLASSIFICATION:
            return predicted
        with np.errstate(all="ignore"):  # as in the network: an overflow is infinite
            return np.asarray(predicted.astype(np.float64) * self.scale + self.center)

    def _parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
        """Network, section and arrays of the model file."""
        table = {
            "target": self.target,
            "task": self.task,
            "columns": to_config(self.columns),
            "trained": {name: nan_to_none(scores) for name, scores in self.trained.items()},
        }
        arrays = to_arrays(self.columns) | {"table.target": np.array([self.center, self.scale])}
        return self.model, {"table": table}, arrays

    def _into_onnx(self, graph: Graph) -> None:
        """Add columns, network and outputs to the graph (see `xpmlp.to_onnx`)."""
        x = add_inputs(graph, self.columns)
        outputs = prediction_outputs(graph, self.model, add_network(graph, self.model, x))
        if self.task == REGRESSION:
            outputs["prediction"] = unscale(graph, outputs["prediction"], self.center, self.scale)
        add_outputs(graph, outputs)
        graph.metadata |= {"target": self.target, "task": self.task}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network and columns to one file (see `xpmlp.save`)."""
        save(self, path)


def unknown_category_message(name: str, count: int) -> str:
    return f"column {name!r}: {many(count, 'cell')} of an unknown category"


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Model | TableModel:
    """Load the model that `save` wrote. Needs no package but NumPy and safetensors.

    Parameters
    ----------
    path : path
    device : {"cpu", "gpu", "gpu:N"}, optional
        Where it shall lie; None is the CPU.

    Returns
    -------
    Model, or TableModel for a network on tables

    Raises
    ------
    ValueError
        With the path, if the file is not a whole, unchanged model file.
    OSError
        Where it cannot be read.

    Examples
    --------
    >>> import os, tempfile, xpmlp
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1).save(path)
    >>> str(load(path).spec)
    '1-2-1'
    """
    return build_model(read(path, device), path)


def build_model(contents: Contents, path: str | os.PathLike[str]) -> Model | TableModel:
    """The model of a file's contents; ValueError with the path if they are inconsistent."""
    table = contents.sections.get("table")
    if table is None:
        return contents.model
    try:
        return from_parts(contents.model, table, contents.arrays)
    except INVALID_FILE_ERRORS as error:
        raise invalid_file(path, error) from None


def read_scores(saved: Any) -> dict[str, float]:
    """The inverse of `nan_to_none`; ValueError for anything else."""
    scores = {name: math.nan if value is None else value for name, value in saved.items()}
    if not all(type(value) in (int, float) for value in scores.values()):
        raise ValueError("its scores at training are not numbers")
    return scores


def from_parts(model: Model, table: Any, arrays: Mapping[str, np.ndarray]) -> TableModel:
    """The table model of these parts; INVALID_FILE_ERRORS if they do not fit together."""
    columns = from_config(table["columns"], arrays)
    target = arrays["table.target"]
    if sum(known.width for known in columns) != model.spec.n_in:
        raise ValueError("its columns do not fit its network")
    if target.shape != (2,) or target.dtype != np.float64 or not np.isfinite(target).all():
        raise ValueError("its target's center and scale are not two finite numbers")
    if table["task"] not in (REGRESSION, CLASSIFICATION) or not isinstance(table["target"], str):
        raise ValueError("its target or task is invalid")
    if (table["task"] == CLASSIFICATION) != (model.classes_ is not None):
        raise ValueError(f"its classes do not fit its task {table['task']!r}")
    if model.members is not None or not model._labels.flat:
        raise ValueError("its network does not predict one value per row")
    trained = {name: read_scores(table["trained"][name]) for name in RESULTS}
    center, scale = target.tolist()
    return TableModel(model, columns, table["target"], table["task"], center, scale, trained)


def column_cells(table: Mapping[str, Any] | Table, known: ColumnEncoder) -> Any:
    """The cells of a column for `encode`."""
    if isinstance(table, Table):
        decoded = table.column(known.name, known.kind)
        values, are_strings = decoded.values, decoded.native_kind == "category"
    else:
        values, are_strings = dict_cells(table, known)
    if known.kind == "category" and known.categories and not are_strings:  # 7 may be "007"
        present = {value for value in values if value is not None}
        unknown = sorted(present.difference(known.categories))
        if unknown and not (known.rest and present.intersection(known.categories)):
            raise TableError(
                f"column {known.name!r} holds {unknown[0]}, which is not a category of "
                "training: give strings, as in training"
            )
    return values


def dict_cells(frame: Mapping[str, Any], known: ColumnEncoder) -> tuple[Any, bool]:
    """The cells of a column of a dict, and whether all of them are strings."""
    if known.name not in frame:
        hint = nearest(known.name, list(frame))
        raise TableError(f"there is no column {known.name!r}{hint}")
    values = frame[known.name]
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        raise TableError(f"column {known.name!r} must be a list of cells; got {values!r}")
    cells = [None if is_missing(cell) else cell for cell in values]
    if known.kind == "category":
        are_strings = all(cell is None or isinstance(cell, str) for cell in cells)
        return [None if cell is None else str(cell) for cell in cells], are_strings
    number = seconds if known.kind == "date" else float
    try:
        numbers = np.array([np.nan if cell is None else number(cell) for cell in cells])
    except (TypeError, ValueError, OverflowError):
        kind = "dates, or seconds since 1970," if known.kind == "date" else "numbers,"
        raise TableError(f"column {known.name!r} must hold {kind} as in training") from None
    return check_finite(numbers, known.name), False


def seconds(cell: Any) -> float:
    """A date as seconds since 1970 (UTC if it has no time zone); a number unchanged."""
    if isinstance(cell, str) and not is_number(cell):
        cell = datetime.fromisoformat(cell)
    if isinstance(cell, datetime) and cell.tzinfo is not None:
        return cell.timestamp()
    if isinstance(cell, date | np.datetime64):
        time: Any = np.datetime64(cell)
        day = time.astype("datetime64[D]")  # days do not overflow
        of_day = (time - day) / np.timedelta64(1, "s")
        return float(day.astype(np.int64)) * 86_400 + float(of_day)
    return float(cell)


def guess_task(values: Sequence[Any], kind: str, type_name: str) -> str:
    """Classification for strings, booleans and integers of few distinct values."""
    if kind == "category" or type_name == "Boolean":
        return CLASSIFICATION
    is_integer = type_name.startswith(("Int", "UInt"))
    return CLASSIFICATION if is_integer and len(set(values)) <= MAX_CLASSES else REGRESSION


def fit_columns(table: Table, names: Sequence[str]) -> tuple[ColumnEncoder, ...]:
    """Fit an encoder to every column."""
    columns = ((name, table.column(name)) for name in names)
    return tuple(fit_column(name, decoded.kind, decoded.values) for name, decoded in columns)


def count_kinds(columns: Sequence[ColumnEncoder]) -> str:
    """The number of columns of each kind, in words."""
    words = {"number": ("number", "numbers"), "date": ("date", "dates")}
    words["category"] = ("category", "categories")
    counts = Counter(known.kind for known in columns)
    return ", ".join(f"{n} {words[kind][n != 1]}" for kind, n in counts.items())


def columns_with_rest(columns: Sequence[ColumnEncoder]) -> list[str]:
    """The columns whose rarer categories share one input."""
    return [known.name for known in columns if known.rest]
