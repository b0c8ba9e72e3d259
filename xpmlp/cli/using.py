"""Functions of all commands that read a model file."""

import sys
from pathlib import Path
from typing import Any

from xpmlp.tabular.model import TableModel, load, unknown_category_message


def check_model_file(path: str) -> str:
    """`path`; ValueError if there is no such file."""
    if not Path(path).is_file():
        raise ValueError(f"model file {path} does not exist")
    return path


def load_table_model(path: str) -> TableModel:
    """Load the model of a table; ValueError for a network on arrays."""
    model = load(check_model_file(path))
    if not isinstance(model, TableModel):
        raise ValueError(f"{path} holds a network on arrays, not on a table: use xpmlp.load")
    return model


def encode_table(model: TableModel, frame: Any) -> Any:
    """The network's inputs; prints to stderr which columns and categories training did not have."""
    inputs = model.inputs(frame)
    if inputs.ignored:
        print(f"ignored columns: {', '.join(inputs.ignored)}", file=sys.stderr)
    for name, count in inputs.unknown.items():
        print(unknown_category_message(name, count), file=sys.stderr)
    return inputs.x
