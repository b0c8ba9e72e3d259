"""`xpmlp gradcheck`: backpropagation against central differences; exit 1 if they disagree."""

import argparse

from xpmlp.spec import Spec
from xpmlp.training.gradient_check import TOLERANCE, gradcheck

EXAMPLE = "xpmlp gradcheck 3-4-2 --activation tanh --loss cross_entropy"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help='sizes, such as "3-4-2"')
    parser.add_argument("--activation", default="relu", help="of the hidden layers (relu)")
    parser.add_argument("--loss", default="squared_error", help="(squared_error)")
    parser.add_argument("--rows", default=8, type=int, help="rows of the batch (8)")
    parser.add_argument("--seed", default=0, type=int, help="of weights and rows (0)")
    parser.add_argument("--tolerance", default=TOLERANCE, type=float, help=f"({TOLERANCE:.0e})")


def run(options: argparse.Namespace) -> int:
    spec = Spec.parse(options.network, activation=options.activation, loss=options.loss)
    check = gradcheck(spec, rows=options.rows, seed=options.seed, tolerance=options.tolerance)
    print(check)
    return 0 if check.passed else 1
