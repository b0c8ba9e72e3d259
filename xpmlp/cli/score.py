"""`xpmlp score MODEL TABLE`: scores of a model on rows with a known target."""

import argparse
import json

from xpmlp.cli.using import encode_table, load_table_model
from xpmlp.tabular.fitting import Plan, drop_missing_target, evaluate, read_target
from xpmlp.tabular.reading import Table, read_table
from xpmlp.tabular.scoring import round_scores, score_table

EXAMPLE = "xpmlp score houses.safetensors sold.csv"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a file written by xpmlp train")
    parser.add_argument("table", help="a table with the target column")
    parser.add_argument("--drop-missing-target", action="store_true", help="drop such rows")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(options: argparse.Namespace) -> int:
    model = load_table_model(options.model)
    gaps = "drop" if options.drop_missing_target else "refuse"
    plan = Plan(model.target, model.task, drop_missing_target=gaps)
    table = Table(read_table(options.table, strings=model.string_columns))
    table = drop_missing_target(table, plan)
    truth, _ = read_target(table, plan)
    encode_table(model, table)
    scores, _ = evaluate(model, table, truth)
    if options.json:
        result = {"model": options.model, "rows": len(truth), "metrics": round_scores(scores)}
        print(json.dumps(result))
    else:
        print(score_table(scores))  # without the baseline, which is of other rows
    return 0
