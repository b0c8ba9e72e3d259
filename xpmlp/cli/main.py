"""`xpmlp COMMAND`: parse the command line, run the command, print an error as one line."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from xpmlp import __version__
from xpmlp.names import nearest
from xpmlp.training.interruption import Terminated, raise_terminated
from xpmlp.training.settings import ELSEWHERE

COMMANDS = {
    "train": "train a model that predicts a column of a table",
    "predict": "predictions of a model for every row of a table",
    "score": "scores of a model on rows with a known target",
    "inspect": "the contents of a model file",
    "export": "a model file as ONNX, for other runtimes",
    "demo": "train on handwritten digits, plot the loss, save the model",
    "shapes": "every formula of a training step with its shapes",
    "doctor": "packages, BLAS and GPU of this machine, and how to fix them",
    "gradcheck": "backpropagation against central differences",
}


ERRORS = (ValueError, TypeError, ImportError, OSError, RuntimeError, ArithmeticError, MemoryError)


def parser_for(name: str | None) -> argparse.ArgumentParser:
    """The parser of all commands; only the module of command `name` is imported."""
    parser = argparse.ArgumentParser(
        prog="xpmlp",
        description="Multi-layer perceptrons on NumPy and CuPy.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xpmlp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, line in COMMANDS.items():
        child = commands.add_parser(command, help=line, description=line, allow_abbrev=False)
        if command == name:
            module = import_module(f"xpmlp.cli.{command}")
            child.epilog = f"example: {module.EXAMPLE}"
            child.usage = getattr(module, "USAGE", None)
            module.add(child)
            child.set_defaults(run=module.run)
            parser.set_defaults(child=child)
    return parser


def parse(name: str | None, arguments: list[str]) -> argparse.Namespace:
    """The options of a line of command `name`; exit 2 with its usage where one is unknown."""
    parser = parser_for(name)
    child = parser.get_default("child") or parser
    if name is not None:
        # before argparse, which would first ask for what is required
        check_options(child, arguments[arguments.index(name) + 1 :])
    options, rest = parser.parse_known_args(arguments)
    if rest:
        child.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def check_options(parser: argparse.ArgumentParser, words: Iterable[str]) -> None:
    """Exit 2 at the first option that the parser does not have, naming the one that is meant."""
    known = [
        word.removeprefix("--") for action in parser._actions for word in action.option_strings
    ]
    for word in words:
        dashes, name = word[:2], word[2:].partition("=")[0]
        if word == "--":
            return
        if dashes == "--" and " " not in word and name not in known:
            ours = name.replace("-", "_")
            meant = ELSEWHERE.get(ours, ours).replace("_", "-")
            hint = f"; here it is --{meant}" if meant in known else nearest(meant, known)
            parser.error(f"there is no option --{name}{hint}")


def report_interrupt(error: KeyboardInterrupt) -> int:
    """Print one line and return 130, or 143 for SIGTERM."""
    # a library may deliver a Ctrl-C a second time
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    by_term = isinstance(error, Terminated)
    where = f": {error}" if str(error) else ""
    print(f"xpmlp: {'terminated' if by_term else 'interrupted'}{where}", file=sys.stderr)
    signal.signal(signal.SIGINT, handler)
    return 143 if by_term else 130


@contextmanager
def handle_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: a training after its current step."""
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
    """Run a command; return 0, 2 for bad input, 130 on Ctrl-C or 143 on SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in arguments if word in COMMANDS), None)
    try:
        with warnings.catch_warnings(), handle_sigterm():
            warnings.showwarning = lambda message, *_: print(
                f"xpmlp {name}: warning: {message}", file=sys.stderr
            )
            options = parse(name, arguments)
            code = int(options.run(options))
            if sys.stdout is not None:  # here, where a BrokenPipeError is handled
                sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        return report_interrupt(error)
    except BrokenPipeError:  # the reader, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ERRORS as error:
        print(f"xpmlp {name}: {error}", file=sys.stderr)
        return 2
