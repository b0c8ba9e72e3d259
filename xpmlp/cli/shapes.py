"""`xpmlp shapes`: every formula of a training step with its shapes."""

import argparse

from xpmlp.shape_ledger import ledger
from xpmlp.spec import Spec

EXAMPLE = "xpmlp shapes 2,16,16,1 --batch-size 8"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help='sizes, such as "2,16,16,1" or "2-16-16-1"')
    parser.add_argument("--batch-size", default=32, type=int, help="rows per step (32)")
    parser.add_argument("--members", type=int, help="K networks trained at once")
    parser.add_argument("--activation", default="relu", help="of the hidden layers (relu)")
    parser.add_argument("--dropout", default=0.0, type=float, help="of the hidden layers (0)")
    parser.add_argument("--loss", default="squared_error", help="(squared_error)")


def run(options: argparse.Namespace) -> int:
    spec = Spec.parse(
        options.network,
        activation=options.activation,
        dropout=options.dropout,
        loss=options.loss,
    )
    print(ledger(spec, batch_size=options.batch_size, members=options.members))
    return 0
