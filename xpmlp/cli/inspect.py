"""`xpmlp inspect MODEL`: what a model file holds."""

import argparse
from typing import Any

from xpmlp.cli.using import present
from xpmlp.shape_ledger import ledger
from xpmlp.storage.model_file import read
from xpmlp.tabular.model import TableModel, build_model
from xpmlp.tabular.preprocessing import ColumnEncoder
from xpmlp.tabular.scoring import score_table
from xpmlp.training.model import Model

EXAMPLE = "xpmlp inspect houses.safetensors"
SHOWN = 8  # categories of a column


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model file")


def describe(column: ColumnEncoder) -> str:
    if column.kind != "category":
        detail = f"median {column.center:g}, scale {column.scale:g}"
    else:
        listed = ", ".join(column.categories[:SHOWN])
        more = len(column.categories) - SHOWN
        detail = listed + (f" and {more} more" if more > 0 else "")
        detail += "; rarer ones share an input" if column.rest else ""
    gaps = "; had missing cells" if column.gaps else ""
    return f"  {column.name} ({column.kind}, {column.width} inputs): {detail}{gaps}"


def lines(model: Any) -> list[str]:
    shown = []
    if isinstance(model, TableModel):
        shown += [f"{model.task} of {model.target!r} from {len(model.columns)} columns"]
        shown += [describe(column) for column in model.columns]
        shown += ["at training:", score_table(model.trained["metrics"], model.trained["baseline"])]
    network: Model = model.model if isinstance(model, TableModel) else model
    if network.classes_ is not None:
        shown.append(f"classes: {', '.join(map(str, network.classes_))}")
    shown.append(str(ledger(network.spec, members=network.members)))
    return shown


def run(options: argparse.Namespace) -> int:
    found = read(present(options.model))
    print("\n".join(lines(build_model(found, options.model))))
    print("training: " + ", ".join(f"{name} {value}" for name, value in found.trained.items()))
    return 0
