"""The command line as a surface: a command in its own folder, and its outcome."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pkgutil import resolve_name
from typing import Any
from unittest import mock

from fuzz.inputs.case import Case, Outcome, judge
from fuzz.inputs.files import contents, folder, limited
from fuzz.inputs.interrupting import interrupt
from fuzz.inputs.tables import COLUMNS, MODEL, TABLE, text
from xpmlp.cli.main import main
from xpmlp.tabular.model import load

OPTIONS = ("--epochs=2", "--hidden=4", "--device=cpu", "--quiet")
SAVED, PREDICTED = "m.safetensors", "p.csv"


class CommandError(ValueError):
    """The message of a command that ended with exit status 2."""


def command(call: str, extra: tuple[str, ...]) -> list[str]:
    """The command line of a call; ("TABLE", name) as first arguments selects another table."""
    table, arguments = TABLE, list(extra)
    if arguments[:1] == ["TABLE"]:
        table, arguments = arguments[1], arguments[2:]
    options = {argument.partition("=")[0] for argument in arguments}
    target = [] if "--target" in options else ["--target=price"]
    save = [] if "--save" in options else [f"--save={SAVED}"]
    out = [] if "--out" in options else [f"--out={PREDICTED}"]
    return {
        "train": ["train", table, *target, *OPTIONS, *save, *arguments],
        "predict": ["predict", MODEL, table, *out, *arguments],
        "score": ["score", MODEL, table, "--json", *arguments],
        "inspect": ["inspect", MODEL, *arguments],
    }.get(call, [call, *arguments])


@cache
def good_model() -> bytes:
    """The file of a model that was trained on the good table."""
    with folder({TABLE: text(COLUMNS)}) as directory, quiet():
        main(command("train", ()))
        return (directory / SAVED).read_bytes()


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def exhaust() -> None:
    raise MemoryError("no memory for an array")


@contextlib.contextmanager
def event_in(during: tuple[str, str] | None) -> Iterator[None]:
    """Run an event (`interrupt` or `exhaust`) when the command calls a function."""
    if during is None:
        yield
        return
    event: Callable[[], None] = {"interrupt": interrupt, "exhaust": exhaust}[during[0]]
    function = resolve_name(during[1])

    def patched(*arguments: Any, **options: Any) -> Any:
        event()
        return function(*arguments, **options)

    with mock.patch(during[1], patched):
        yield


def outcome(call: str, arguments: dict[str, Any]) -> Outcome:
    """The outcome of a command. An error must be one line, after argparse's usage if any."""
    arguments = dict(arguments)
    extra, during = arguments.pop("words", ()), arguments.pop("during", None)
    limit, damage = arguments.pop("limit", None), arguments.pop("model", None)
    variable = arguments.pop("environment", None)
    environment = {} if variable is None else {"XPMLP_DEVICE": variable}
    model = good_model() if damage is None else damage(good_model())
    files = {TABLE: text(COLUMNS)} | ({} if model is None else {MODEL: model}) | arguments
    line = command(call, extra)
    if environment:
        line = [argument for argument in line if argument != "--device=cpu"]
    with folder(files) as directory, mock.patch.dict(os.environ, environment):
        before = contents(directory)
        with quiet() as (out, err), limited(limit), event_in(during), warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                code = main(line)
            except SystemExit as stop:  # from argparse
                code = int(stop.code or 0)
            except BaseException as error:
                return Outcome(error, worked=contents(directory) != before)
        after, errors = contents(directory), err.getvalue()
    if code == 0:
        warned = tuple(line for line in errors.splitlines() if "warning:" in line)
        written = b"".join(content_of(k, v) for k, v in after.items() if before.get(k) != v)
        return Outcome(None, written, b"nan" not in written.lower(), warned)
    return Outcome(failure(code, errors), worked=after != before or bool(out.getvalue()))


def content_of(name: str, data: bytes) -> bytes:
    """The content of a file that a command wrote; of a model file, its weights in all digits."""
    if name != SAVED:
        return data
    with folder({name: data}):
        return str(load(name).model.flat.tolist()).encode()


def failure(code: int, errors: str) -> BaseException:
    """The error of an exit status and standard error; RuntimeError if they are malformed."""
    lines = errors.splitlines()
    if code == 130 and re.fullmatch(
        r"xpmlp: interrupted(: stopped in epoch \d+, at step \d+.*)?\n", errors
    ):
        return KeyboardInterrupt("interrupted")
    if lines and lines[0].startswith("usage: "):  # argparse prints the usage before the error
        lines = lines[-1:]
    if code != 2 or len(lines) != 1:
        return RuntimeError(f"exit status {code} and {len(lines)} lines: {errors}")
    return CommandError(lines[0])


def run(case: Case, call: str) -> tuple[str, str]:
    """The verdict on a case, and the reason why it is not as expected."""
    expected = case.expected_for("command line")
    name = getattr(expected, "name", "")
    aliases = {
        "hidden": ("hidden", "--hidden"),
        "learning-rate": ("learning-rate", "learning_rate", "learning rate"),
    }
    names = aliases.get(name, (name, name.replace("-", "_")))
    return judge(outcome(call, case.make()), expected, names, lambda plain: outcome(call, plain))
