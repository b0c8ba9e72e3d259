"""`xpmlp score MODEL TABLE`: how good a model is on rows with a known target."""

import argparse
import json

from xpmlp.cli.using import load_table_model, note_oddities
from xpmlp.table.fitting import Plan, evaluate, read_target
from xpmlp.table.reading import read_table
from xpmlp.table.scoring import rounded, score_table

EXAMPLE = "xpmlp score houses.safetensors sold.csv"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a file that xpmlp train wrote")
    parser.add_argument("table", help="with the target's column")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(options: argparse.Namespace) -> int:
    model = load_table_model(options.model)
    frame = read_table(options.table)
    truth, _ = read_target(frame, Plan(model.target, model.task))
    note_oddities(model, frame)
    found, _ = evaluate(model, frame, truth)
    if options.json:
        result = {"model": options.model, "rows": len(truth), "metrics": rounded(found)}
        print(json.dumps(result))
    else:
        print(score_table(found, dict(model.trained["baseline"])))
    return 0
