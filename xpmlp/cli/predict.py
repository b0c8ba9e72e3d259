"""`xpmlp predict MODEL TABLE`: predict every row of a table, as a CSV."""

import argparse
import sys
from pathlib import Path

from xpmlp.cli.train import check_output
from xpmlp.cli.using import encode_table, load_table_model
from xpmlp.devices.extras import import_extra
from xpmlp.storage.atomic import write_atomic
from xpmlp.tabular.model import CLASSIFICATION
from xpmlp.tabular.reading import read_table

EXAMPLE = "xpmlp predict houses.safetensors new.csv --out predictions.csv"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a file written by xpmlp train")
    parser.add_argument("table", help=".csv, .csv.gz, .tsv or .parquet")
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV (standard output)")
    parser.add_argument("--proba", action="store_true", help="the probability of every class")


def run(options: argparse.Namespace) -> int:
    if options.out is not None:
        check_output(options.out, [options.model, options.table])
        if options.out.suffix != ".csv":
            raise ValueError(f"--out must end in .csv; got {options.out}")
    model = load_table_model(options.model)
    if options.proba and model.task != CLASSIFICATION:
        raise ValueError("--proba is for a classification; this model is a regression")
    frame = read_table(options.table, min_rows=1, strings=model.string_columns)
    x = encode_table(model, frame)
    columns = {model.target: model.unscale(model.model.predict(x))}
    if options.proba:
        proba = model.model.predict_proba(x)
        columns |= {f"p({label})": proba[:, i] for i, label in enumerate(model.classes_)}
    text = import_extra("polars", "table").DataFrame(columns).write_csv()
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_atomic(options.out, text.encode())
        print(f"wrote {len(frame):,} predictions to {options.out}", file=sys.stderr)
    return 0
