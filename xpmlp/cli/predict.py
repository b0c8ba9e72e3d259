"""`xpmlp predict MODEL TABLE`: predictions for every row, as a CSV."""

import argparse
import sys
from pathlib import Path

from xpmlp.cli.train import writable
from xpmlp.cli.using import load_table_model, note_oddities
from xpmlp.devices.extras import needed
from xpmlp.storage.atomic import write_atomic
from xpmlp.tabular.model import CLASSIFICATION
from xpmlp.tabular.reading import read_table

EXAMPLE = "xpmlp predict houses.safetensors new.csv --out predictions.csv"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a file that xpmlp train wrote")
    parser.add_argument("table", help=".csv, .csv.gz, .tsv or .parquet")
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV (standard output)")
    parser.add_argument("--proba", action="store_true", help="a probability for every class")


def run(options: argparse.Namespace) -> int:
    if options.out is not None:
        writable(options.out, [options.model, options.table])
        if options.out.suffix != ".csv":
            raise ValueError(f"--out must end in .csv; got {options.out}")
    model = load_table_model(options.model)
    if options.proba and model.task != CLASSIFICATION:
        raise ValueError("--proba is for classes; this model predicts a number")
    frame = read_table(options.table, min_rows=1, strings=model.string_columns)
    x = note_oddities(model, frame)
    columns = {model.target: model.unscale(model.model.predict(x))}
    if options.proba:
        proba = model.model.predict_proba(x)
        columns |= {f"p({label})": proba[:, i] for i, label in enumerate(model.classes_)}
    text = needed("polars", "table").DataFrame(columns).write_csv()
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_atomic(options.out, text.encode())
        print(f"wrote {len(frame):,} predictions to {options.out}", file=sys.stderr)
    return 0
