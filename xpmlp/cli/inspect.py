"""`xpmlp inspect MODEL`: the contents of a model file."""

import argparse
from typing import Any

from xpmlp.cli.using import check_model_file
from xpmlp.shape_ledger import ledger
from xpmlp.shapes import many
from xpmlp.storage.model_file import read
from xpmlp.tabular.model import TableModel, build_model
from xpmlp.tabular.preprocessing import ColumnEncoder
from xpmlp.tabular.scoring import score_table
from xpmlp.training.model import Model

EXAMPLE = "xpmlp inspect houses.safetensors"
MAX_SHOWN = 8  # categories of a column


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model file")


def describe(column: ColumnEncoder) -> str:
    if column.kind != "category":
        detail = f"median {column.center:g}, scale {column.scale:g}"
    else:
        categories = ", ".join(column.categories[:MAX_SHOWN])
        hidden = len(column.categories) - MAX_SHOWN
        detail = categories + (f" and {hidden} more" if hidden > 0 else "")
        detail += "; rarer ones share an input" if column.rest else ""
    gaps = "; had missing cells" if column.gaps else ""
    return f"  {column.name} ({column.kind}, {many(column.width, 'input')}): {detail}{gaps}"


def rounded(value: Any) -> str:
    """What training came to, with as many digits as are read."""
    if isinstance(value, list):  # one per member
        return f"[{', '.join(map(rounded, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def lines(model: Any) -> list[str]:
    text = []
    if isinstance(model, TableModel):
        text += [f"{model.task} of {model.target!r} from {len(model.columns)} columns"]
        text += [describe(column) for column in model.columns]
        text += ["at training:", score_table(model.trained["metrics"], model.trained["baseline"])]
    network: Model = model.model if isinstance(model, TableModel) else model
    if network.classes_ is not None:
        text.append(f"classes: {', '.join(map(str, network.classes_))}")
    text.append(str(ledger(network.spec, members=network.members)))
    return text


def run(options: argparse.Namespace) -> int:
    contents = read(check_model_file(options.model))
    print("\n".join(lines(build_model(contents, options.model))))
    trained = (f"{name} {rounded(value)}" for name, value in contents.trained.items())
    print(f"training: {', '.join(trained)}")
    return 0
