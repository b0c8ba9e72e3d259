"""The command line as a surface: a command in a folder of its own, and what came of it."""

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
    """What a command said on standard error before it ended with exit status 2."""


def command(call: str, words: tuple[str, ...]) -> list[str]:
    """The command line of a call; ("TABLE", name) among the words gives it another table."""
    table, given = TABLE, list(words)
    if given[:1] == ["TABLE"]:
        table, given = given[1], given[2:]
    named = {word.partition("=")[0] for word in given}
    target = [] if "--target" in named else ["--target=price"]
    save = [] if "--save" in named else [f"--save={SAVED}"]
    out = [] if "--out" in named else [f"--out={PREDICTED}"]
    return {
        "train": ["train", table, *target, *OPTIONS, *save, *given],
        "predict": ["predict", MODEL, table, *out, *given],
        "score": ["score", MODEL, table, "--json", *given],
        "inspect": ["inspect", MODEL, *given],
    }.get(call, [call, *given])


@cache
def good_model() -> bytes:
    """The file of a model that was trained on the good table."""
    with folder({TABLE: text(COLUMNS)}) as here, quiet():
        main(command("train", ()))
        return (here / SAVED).read_bytes()


@contextlib.contextmanager
def quiet() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


def exhaust() -> None:
    raise MemoryError("no memory for an array")


@contextlib.contextmanager
def happening(during: tuple[str, str] | None) -> Iterator[None]:
    """Something happens (`interrupt` or `exhaust`) when the command comes to a function."""
    if during is None:
        yield
        return
    event: Callable[[], None] = {"interrupt": interrupt, "exhaust": exhaust}[during[0]]
    function = resolve_name(during[1])

    def reached(*arguments: Any, **named: Any) -> Any:
        event()
        return function(*arguments, **named)

    with mock.patch(during[1], reached):
        yield


def outcome(call: str, given: dict[str, Any]) -> Outcome:
    """What a command comes to. An error must be one line, after argparse's usage if any."""
    given = dict(given)
    words, during = given.pop("words", ()), given.pop("during", None)
    limit, damage = given.pop("limit", None), given.pop("model", None)
    variable = given.pop("environment", None)
    environment = {} if variable is None else {"XPMLP_DEVICE": variable}
    model = good_model() if damage is None else damage(good_model())
    files = {TABLE: text(COLUMNS)} | ({} if model is None else {MODEL: model}) | given
    line = command(call, words)
    if environment:
        line = [word for word in line if word != "--device=cpu"]
    with folder(files) as here, mock.patch.dict(os.environ, environment):
        before = contents(here)
        with quiet() as (out, err), limited(limit), happening(during), warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                code = main(line)
            except SystemExit as stop:  # argparse's own way out
                code = int(stop.code or 0)
            except BaseException as error:
                return Outcome(error, worked=contents(here) != before)
        after, said = contents(here), err.getvalue()
    if code == 0:
        warned = tuple(line for line in said.splitlines() if "warning:" in line)
        made = b"".join(answers(k, v) for k, v in after.items() if before.get(k) != v)
        return Outcome(None, made, b"nan" not in made.lower(), warned)
    return Outcome(failure(code, said), worked=after != before or bool(out.getvalue()))


def answers(name: str, data: bytes) -> bytes:
    """What a file that a command wrote says: of a model file the weights, in all digits."""
    if name != SAVED:
        return data
    with folder({name: data}):
        return str(load(name).model.flat.tolist()).encode()


def failure(code: int, said: str) -> BaseException:
    """What an exit status and standard error say; their own complaint where they are odd."""
    lines = said.splitlines()
    if code == 130 and re.fullmatch(
        r"xpmlp: interrupted(: stopped in epoch \d+, at step \d+.*)?\n", said
    ):
        return KeyboardInterrupt("interrupted")
    if lines and lines[0].startswith("usage: "):  # argparse shows how before it says what
        lines = lines[-1:]
    if code != 2 or len(lines) != 1:
        return RuntimeError(f"exit status {code} and {len(lines)} lines: {said}")
    return CommandError(lines[0])


def tried(case: Case, call: str) -> tuple[str, str]:
    """The verdict on a case, and why it is not what was wanted."""
    wanted = case.wanted_of("command line")
    name = getattr(wanted, "name", "")
    words = {
        "hidden": ("hidden", "--hidden"),
        "decay": ("decay", "weight_decay"),
        "learning-rate": ("learning-rate", "learning_rate", "learning rate"),
    }
    said = words.get(name, (name, name.replace("-", "_")))
    return judge(outcome(call, case.make()), wanted, said, lambda plain: outcome(call, plain))
