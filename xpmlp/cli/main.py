"""`xpmlp COMMAND`: reads the command line, runs the command, and turns errors into one line."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from xpmlp import __version__
from xpmlp.training.interruption import Terminated, raise_terminated

COMMANDS = {
    "train": "learn a column of a table from the others",
    "predict": "predictions of a model for every row of a table",
    "score": "how good a model is on rows with a known target",
    "inspect": "what a model file holds",
    "export": "a model file as ONNX, for other runtimes",
    "demo": "train on handwritten digits, draw the loss, save the model",
    "shapes": "every formula of a training step with its shapes",
    "doctor": "what this machine offers, and what mends it",
    "gradcheck": "backprop against central differences",
}


ERRORS = (ValueError, TypeError, ImportError, OSError, RuntimeError, ArithmeticError, MemoryError)


def parser_for(name: str | None) -> argparse.ArgumentParser:
    """The parser with every command's help; only the command that is asked for is imported."""
    parser = argparse.ArgumentParser(
        prog="xpmlp", description="Multi-layer perceptrons on NumPy and CuPy."
    )
    parser.add_argument("--version", action="version", version=f"xpmlp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, line in COMMANDS.items():
        child = commands.add_parser(command, help=line, description=line)
        if command == name:
            module = import_module(f"xpmlp.cli.{command}")
            child.epilog = f"example: {module.EXAMPLE}"
            child.usage = getattr(module, "USAGE", None)
            module.add(child)
            child.set_defaults(run=module.run)
    return parser


def interrupted(error: KeyboardInterrupt) -> int:
    """130, or 143 for SIGTERM, and one line; a library may deliver a Ctrl-C a second time."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    by_term = isinstance(error, Terminated)
    where = f": {error}" if str(error) else ""
    print(f"xpmlp: {'terminated' if by_term else 'interrupted'}{where}", file=sys.stderr)
    signal.signal(signal.SIGINT, before)
    return 143 if by_term else 130


@contextmanager
def terminable() -> Iterator[None]:
    """Inside it SIGTERM ends a command as Ctrl-C does, a training after its present step."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what was asked, 2 for bad input, 130 on Ctrl-C, 143 on SIGTERM."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in given if word in COMMANDS), None)
    try:
        with warnings.catch_warnings(), terminable():
            warnings.showwarning = lambda message, *_: print(
                f"xpmlp {name}: warning: {message}", file=sys.stderr
            )
            options = parser_for(name).parse_args(given)
            code = int(options.run(options))
            if sys.stdout is not None:  # here, where a pipe without a reader is no surprise
                sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        return interrupted(error)
    except BrokenPipeError:  # the reader, such as head, has enough: say no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ERRORS as error:
        print(f"xpmlp {name}: {error}", file=sys.stderr)
        return 2
