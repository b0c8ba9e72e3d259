"""What the commands that use a model file share."""

import sys
from pathlib import Path
from typing import Any

from xpmlp.tabular.model import TableModel, load, unknown_category_message


def present(path: str) -> str:
    """The path of a model file; ValueError where there is none."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such model file")
    return path


def load_table_model(path: str) -> TableModel:
    """The model of a table in that file; ValueError for a network on arrays."""
    model = load(present(path))
    if not isinstance(model, TableModel):
        raise ValueError(f"{path} holds a network on arrays, not on a table: use xpmlp.load")
    return model


def note_oddities(model: TableModel, frame: Any) -> Any:
    """Say on standard error what a table has that training did not; the network's inputs."""
    found = model.inputs(frame)
    if found.ignored:
        print(f"ignored columns: {', '.join(found.ignored)}", file=sys.stderr)
    for name, count in found.unknown.items():
        print(unknown_category_message(name, count), file=sys.stderr)
    return found.x
