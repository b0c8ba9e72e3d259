"""A network with the table around it: raw columns in, labels or numbers in their units out."""

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
from xpmlp.tabular.onnx import in_unit, inputs
from xpmlp.tabular.preprocessing import Encoded, encode, from_saved, learn, to_arrays, to_config
from xpmlp.tabular.reading import TableError, column, finite, is_number, names_of
from xpmlp.tabular.scoring import standard
from xpmlp.training.labels import is_missing
from xpmlp.training.model import Model

REGRESSION, CLASSIFICATION = "regression", "classification"
TRAINED = ("metrics", "baseline", "rows")  # scores at training, and counts of rows
FEW = 20  # whole numbers with at most as many values look like classes


class Inputs(NamedTuple):
    """A table as the network takes it, and what was odd about it."""

    x: np.ndarray  # (N, n_in) float32
    unknown: dict[str, int]  # cells with a category that training did not have, by column
    ignored: list[str]  # columns that training did not have


@dataclass(frozen=True)
class TableModel:
    """A trained network with its columns and target; made by `fit_table` or `xpmlp.load`."""

    model: Model
    columns: tuple[Encoded, ...] = field(repr=False)
    target: str
    task: str  # "regression" or "classification"
    center: float = 0.0  # of a regression's target: its mean ...
    scale: float = 1.0  # ... and standard deviation
    trained: Mapping[str, Any] = field(repr=False, default_factory=dict)  # scores at training

    @property
    def classes_(self) -> Any:
        """The sorted labels (C,), None for a regression."""
        return self.model.classes_

    @property
    def spec(self) -> Spec:
        return self.model.spec

    @property
    def texts(self) -> list[str]:
        """The columns, and the target, that are read from a file as they stand."""
        labels = self.classes_ is not None and self.classes_.dtype.kind == "U"
        found = [known.name for known in self.columns if known.kind == "category"]
        return [*found, *[self.target] * labels]

    def inputs(self, frame: Any) -> Inputs:
        """The frame's columns, found by name, as the network takes them.

        frame: a pandas, polars or pyarrow frame, or a dict {name: cells}, which needs no other
        package. TableError naming a column that is missing or of another kind.
        """
        parts, unknown = [], {}
        for known in self.columns:
            part, strange = encode(known, cells(frame, known))
            parts.append(part)
            if strange:
                unknown[known.name] = strange
        mine = {known.name for known in self.columns} | {self.target}
        names = list(frame) if isinstance(frame, Mapping) else names_of(frame)
        ignored = [name for name in names if name not in mine]
        if len({len(part) for part in parts}) > 1:
            raise TableError("the columns differ in length")
        return Inputs(np.concatenate(parts, axis=1), unknown, ignored)

    def rows(self, frame: Any) -> np.ndarray:
        """The frame as the network takes it, with a warning of categories it has never seen."""
        found = self.inputs(frame)
        for name, count in found.unknown.items():
            warnings.warn(unseen(name, count), stacklevel=3)
        return found.x

    def predict(self, frame: Any) -> np.ndarray:
        """Labels (N,), or numbers (N,) in the target's unit."""
        return self.from_network(self.model.predict(self.rows(frame)))

    def predict_proba(self, frame: Any) -> np.ndarray:
        """Probabilities (N, C) in the order of `classes_`."""
        found: np.ndarray = self.model.predict_proba(self.rows(frame))
        return found

    def from_network(self, predicted: np.ndarray) -> np.ndarray:
        """The network's predictions in the target's unit."""
        if self.task == CLASSIFICATION:
            return predicted
        with np.errstate(all="ignore"):  # as in the network: what no float holds is infinite
            return np.asarray(predicted.astype(np.float64) * self.scale + self.center)

    def parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
        """What a model file holds: the network, and the table around it."""
        table = {
            "target": self.target,
            "task": self.task,
            "columns": to_config(self.columns),
            "trained": {name: standard(scores) for name, scores in self.trained.items()},
        }
        arrays = to_arrays(self.columns) | {"table.target": np.array([self.center, self.scale])}
        return self.model, {"table": table}, arrays

    def into_onnx(self, graph: Graph) -> None:
        """Write the columns as inputs, the network, and the outputs (see `xpmlp.to_onnx`)."""
        x = inputs(graph, self.columns)
        found = prediction_outputs(graph, self.model, add_network(graph, self.model, x))
        if self.task == REGRESSION:
            found["prediction"] = in_unit(graph, found["prediction"], self.center, self.scale)
        add_outputs(graph, found)
        graph.metadata |= {"target": self.target, "task": self.task}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network and columns to one file (see `xpmlp.save`)."""
        save(self, path)


def unseen(name: str, count: int) -> str:
    return f"column {name!r}: {many(count, 'cell')} of an unknown category"


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Model | TableModel:
    """The model that `save` wrote, on the CPU or on the device named.

    A Model for a network on arrays, a TableModel for one on tables. Needs NumPy alone. Raises
    ValueError with the path for anything but a whole, unchanged model file.
    """
    return opened(read(path, device), path)


def opened(found: Contents, path: str | os.PathLike[str]) -> Model | TableModel:
    """The model of what a file holds; ValueError with the path where its parts do not fit."""
    table = found.sections.get("table")
    if table is None:
        return found.model
    try:
        return from_parts(found.model, table, found.arrays)
    except INVALID_FILE_ERRORS as error:
        raise invalid_file(path, error) from None


def read_scores(saved: Any) -> dict[str, float]:
    """What `standard` was given; ValueError for anything else."""
    scores = {name: math.nan if value is None else value for name, value in saved.items()}
    if not all(type(value) in (int, float) for value in scores.values()):
        raise ValueError("its scores at training are no numbers")
    return scores


def from_parts(model: Model, table: Any, arrays: Mapping[str, np.ndarray]) -> TableModel:
    """The table model of these parts; INVALID_FILE_ERRORS if they do not fit together."""
    columns = from_saved(table["columns"], arrays)
    target = arrays["table.target"]
    if sum(known.width for known in columns) != model.spec.n_in:
        raise ValueError("its columns do not fit its network")
    if target.shape != (2,) or target.dtype != np.float64 or not np.isfinite(target).all():
        raise ValueError("its target's center and scale are no two numbers")
    if table["task"] not in (REGRESSION, CLASSIFICATION) or not isinstance(table["target"], str):
        raise ValueError("it does not say what is predicted")
    if (table["task"] == CLASSIFICATION) != (model.classes_ is not None):
        raise ValueError(f"its classes do not fit its task {table['task']!r}")
    if model.members is not None or not model.labels.flat:
        raise ValueError("its network does not give one answer per row")
    trained = {name: read_scores(table["trained"][name]) for name in TRAINED}
    center, scale = target.tolist()
    return TableModel(model, columns, table["target"], table["task"], center, scale, trained)


def cells(frame: Any, known: Encoded) -> Any:
    """What a column holds, as `encode` takes it."""
    if not isinstance(frame, Mapping):
        found = column(frame, known.name, known.kind)
        values, texts = found.values, found.looks == "category"
    else:
        values, texts = listed_cells(frame, known)
    if known.kind == "category" and known.categories and not texts:  # 7 may have been "007"
        present, seen = {value for value in values if value is not None}, {*known.categories}
        strange = sorted(present - seen)
        if strange and not (known.rest and present & seen):
            raise TableError(
                f"column {known.name!r} holds {strange[0]}, which is none of the categories that "
                "training saw: give texts, as they were written there"
            )
    return values


def listed_cells(frame: Mapping[str, Any], known: Encoded) -> tuple[Any, bool]:
    """A column of a dict, and whether all its cells are texts."""
    if known.name not in frame:
        hint = nearest(known.name, list(frame))
        raise TableError(f"there is no column {known.name!r}{hint}")
    given = frame[known.name]
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__len__"):
        raise TableError(f"column {known.name!r} must be a list of cells; got {given!r}")
    listed = [None if is_missing(cell) else cell for cell in given]
    if known.kind == "category":
        texts = all(cell is None or isinstance(cell, str) for cell in listed)
        return [None if cell is None else str(cell) for cell in listed], texts
    number = seconds if known.kind == "date" else float
    try:
        numbers = np.array([np.nan if cell is None else number(cell) for cell in listed])
    except (TypeError, ValueError, OverflowError):
        kind = "dates, or seconds since 1970," if known.kind == "date" else "numbers,"
        raise TableError(f"column {known.name!r} must hold {kind} as in training") from None
    return finite(numbers, known.name), False


def seconds(cell: Any) -> float:
    """A date, or a number of seconds as it is, as seconds since 1970; without a zone it is UTC."""
    if isinstance(cell, str) and not is_number(cell):
        cell = datetime.fromisoformat(cell)
    if isinstance(cell, datetime) and cell.tzinfo is not None:
        return cell.timestamp()
    if isinstance(cell, date | np.datetime64):
        moment: Any = np.datetime64(cell)
        day = moment.astype("datetime64[D]")  # which no unit overflows
        of_day = (moment - day) / np.timedelta64(1, "s")
        return float(day.astype(np.int64)) * 86_400 + float(of_day)
    return float(cell)


def guess_task(values: Sequence[Any], kind: str, type_name: str) -> str:
    """Texts and booleans, and few whole numbers, are classes; all else is a number."""
    if kind == "category" or type_name == "Boolean":
        return CLASSIFICATION
    whole = type_name.startswith(("Int", "UInt"))
    return CLASSIFICATION if whole and len(set(values)) <= FEW else REGRESSION


def learn_columns(frame: Any, names: Sequence[str]) -> tuple[Encoded, ...]:
    """What the rows of `frame` say of its columns."""
    found = []
    for name in names:
        kind, values, _, _ = column(frame, name)
        found.append(learn(name, kind, values))
    return tuple(found)


def described(columns: Sequence[Encoded]) -> str:
    """How many columns of each kind there are."""
    words = {"number": ("number", "numbers"), "date": ("date", "dates")}
    words["category"] = ("category", "categories")
    counts = Counter(known.kind for known in columns)
    return ", ".join(f"{n} {words[kind][n != 1]}" for kind, n in counts.items())


def capped(columns: Sequence[Encoded]) -> list[str]:
    """The columns whose rarer categories share one input."""
    return [known.name for known in columns if known.rest]
