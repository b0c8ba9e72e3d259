"""`xpmlp train TABLE --target COLUMN`: train on a table and write a model file."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xpmlp.activations import activation
from xpmlp.devices.words import default_word, place_for
from xpmlp.losses import loss
from xpmlp.names import whole
from xpmlp.storage import atomic
from xpmlp.tabular.fitting import DEFAULTS, PATIENCE, FitResult, Plan, fit_table
from xpmlp.tabular.model import (
    CLASSIFICATION,
    REGRESSION,
    TableModel,
    columns_with_rest,
    count_kinds,
)
from xpmlp.tabular.reading import Table, first_non_number, read_table, string_columns
from xpmlp.tabular.scoring import round_scores, score_table
from xpmlp.training.callbacks import ProgressBar
from xpmlp.training.divergence import DivergedError
from xpmlp.training.settings import Settings

USAGE = "xpmlp train TABLE --target COLUMN [options]"
EXAMPLE = "xpmlp train houses.csv --target price --save houses.safetensors"
PICTURES = (".png", ".pdf", ".svg")


def add(parser: argparse.ArgumentParser) -> None:
    add_table(parser)
    add_network(parser)
    add_training(parser)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the model here")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="written every epoch")
    parser.add_argument("--resume", action="store_true", help="resume from --checkpoint, if any")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot losses and predictions")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no notes")


def add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help=".csv, .csv.gz, .tsv or .parquet")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="column to predict")
    parser.add_argument("--task", choices=("regression", "classification"), help="(guessed)")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="ignore it")
    parser.add_argument("--drop-missing-target", action="store_true", help="drop such rows")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--test-size", type=float, default=0.2, help="share held out (0.2)")
    split.add_argument("--test", metavar="TABLE2", help="hold out this table instead")
    split.add_argument("--group", metavar="COLUMN", help="hold out whole groups")
    split.add_argument("--time", metavar="COLUMN", help="hold out the latest rows")


def add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hidden", default="128,64", help="sizes of hidden layers (128,64)")
    parser.add_argument("--activation", default="silu", help="of the hidden layers (silu)")
    parser.add_argument("--dropout", type=float, help="of hidden layers (0, or 0.1 for classes)")
    parser.add_argument("--loss", help="(squared_error, or cross_entropy for classes)")


def add_training(parser: argparse.ArgumentParser) -> None:
    d = DEFAULTS
    parser.add_argument("--optimizer", default=d["optimizer"], help=f"({d['optimizer']})")
    parser.add_argument("--learning-rate", type=float, help="(0.005, or 0.001 for classes)")
    parser.add_argument("--schedule", default=d["schedule"], help=f"({d['schedule']})")
    parser.add_argument("--epochs", type=int, default=d["epochs"], help=f"({d['epochs']})")
    parser.add_argument("--batch-size", type=int, help=f"({d['batch_size']}, or all rows)")
    parser.add_argument("--weight-decay", type=float, metavar="X", help="decoupled (0.01)")
    parser.add_argument("--clip", type=float, help="largest norm of a gradient (none)")
    stop = f"epochs without a lower loss to stop after ({PATIENCE})"
    parser.add_argument("--patience", type=int, default=PATIENCE, help=stop)
    parser.add_argument("--device", default=default_word(), help="auto, cpu, gpu, gpu:N (auto)")
    parser.add_argument("--precision", default="full", help="full, or tf32 on a GPU (full)")
    parser.add_argument("--dtype", default="float32", help="float32, float64 (float32)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--n-threads", type=int, metavar="N", help="of BLAS (all processors)")


def parse_options(options: argparse.Namespace) -> tuple[Plan, dict[str, Any], dict[str, Any]]:
    """Plan, network and settings; ValueError naming an invalid option, before any work."""
    plan = Plan(
        target=options.target,
        task=options.task,
        drop=options.drop,
        test_size=options.test_size,
        group=options.group,
        time=options.time,
        drop_missing_target="drop" if options.drop_missing_target else "refuse",
        seed=options.seed,
    )
    if options.dropout is not None and not 0 <= options.dropout < 1:
        raise ValueError(f"--dropout must be in [0, 1); got {options.dropout}")
    hidden = [whole(size.strip(), "--hidden's sizes") for size in options.hidden.split(",")]
    activation(options.activation)
    if options.loss is not None:
        loss(options.loss)
    network = {"hidden": hidden, "activation": options.activation, "dropout": options.dropout}
    names = (
        "optimizer", "learning_rate", "schedule", "epochs", "batch_size", "weight_decay", "clip",
        "patience", "dtype", "seed", "n_threads",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in names}
    settings = {name: value for name, value in values.items() if value is not None}
    Settings(**settings)
    inputs = [options.table, *filter(None, [options.test])]
    outputs: dict[Path, str] = {}
    for name in ("save", "plot", "checkpoint"):
        path = getattr(options, name)
        if path is None:
            continue
        check_output(path, inputs)
        first = outputs.setdefault(atomic.resolve_symlink(path), name)
        if first != name:
            raise ValueError(f"--{first} and --{name} are the same file: {path}")
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume needs --checkpoint FILE")
    if options.checkpoint is not None and options.checkpoint.exists() and not options.resume:
        raise ValueError(f"--checkpoint {options.checkpoint} already exists: add --resume")
    if options.plot is not None and options.plot.suffix not in PICTURES:
        raise ValueError(f"--plot must end in {', '.join(PICTURES)}; got {options.plot}")
    place_for(options.device, options.precision)
    settings |= {"device": options.device, "precision": options.precision}
    settings |= {"checkpoint": options.checkpoint, "resume": options.resume}
    return plan, network | {"loss": options.loss}, settings


def check_output(path: Path, inputs: Sequence[str]) -> None:
    """ValueError if a file cannot be written at `path`, or `path` is an input."""
    for name in inputs:
        if path.exists() and Path(name).exists() and path.samefile(name):
            raise ValueError(f"{path} is an input: writing to it would destroy it")
    atomic.check_writable(path)


def run(options: argparse.Namespace) -> int:
    plan, network, settings = parse_options(options)

    def show(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr if options.json else sys.stdout)

    table = Table(read_table(options.table))
    test = (
        None
        if options.test is None
        else read_table(options.test, strings=string_columns(table.frame))
    )
    place = place_for(options.device, options.precision)

    def on_start(model: TableModel, rows: dict[str, int]) -> None:
        if options.quiet:
            return
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in rows.items())
        other = REGRESSION if model.task == CLASSIFICATION else CLASSIFICATION
        possible = other == CLASSIFICATION or table.column(model.target).kind != "category"
        hint = f"; --task {other} for the other" if possible else ""
        guessed = "" if options.task else f" (guessed{hint})"
        show(f"{model.task} of {model.target!r}{guessed} on device {place.name}; rows: {counts}")
        show(f"inputs: {count_kinds(model.columns)}")
        for known in model.columns:
            values = table.column(known.name).values if known.kind == "category" else ()
            row = first_non_number(values)
            if row is not None:
                show(
                    f"column {known.name!r} is read as strings, as not all cells are numbers: row "
                    f"{row + 1} has {values[row]!r}"
                )
        for name in columns_with_rest(model.columns):
            show(f"column {name!r} has many categories: the rarer ones share one input")

    bars = [] if options.quiet else [ProgressBar()]
    try:
        fitted = fit_table(
            table,
            plan,
            network=network,
            settings=settings,
            test=test,
            callbacks=bars,
            on_start=on_start,
        )
    except DivergedError as error:
        raise ValueError(
            f"{error.happened}. Try a lower --learning-rate or another --optimizer; no model was "
            "saved"
        ) from error
    history = fitted.model.model.history
    epochs, seconds = len(history["loss"]), history["seconds"][-1]
    show(f"{epochs} epochs in {seconds:.1f} s\n{score_table(fitted.metrics, fitted.baseline)}")
    write(options, fitted, show)
    if options.json:
        result = {
            "device": place.name,
            "task": fitted.model.task,
            "rows": fitted.rows,
            "metrics": round_scores(fitted.metrics),
            "baseline": round_scores(fitted.baseline),
            "epochs": epochs,
            "seconds": round(seconds, 3),
            "model": None if options.save is None else str(options.save),
            "seed": options.seed,
        }
        print(json.dumps(result))
    return 0


def write(options: argparse.Namespace, fitted: FitResult, show: Any) -> None:
    """Write the model and the plot."""
    if options.save is not None:
        fitted.model.save(options.save)
        show(f"wrote {options.save}")
    if options.plot is not None:
        from xpmlp.cli.plots import plot_fit

        plot_fit(fitted, options.plot)
        show(f"wrote {options.plot}")
