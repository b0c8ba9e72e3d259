"""A hostile input, what must come of it, and the judgement of what came."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ROWS = {  # of the table "Bad input" in what the library promises
    "values": "NaN, inf, NA, complex, dates, texts, ragged, None, masked",
    "layouts": "any order, stride, byte order and width of real numbers",
    "sparse": "sparse X",
    "overflow": "what exceeds float32",
    "little": "constant columns, a single class, one row",
    "batch": "a batch larger than n",
    "settings": "zero width, bad rate, batch, seed, dropout and the like",
    "devices": "arrays on two devices, unknown device words",
    "divergence": "training that leaves the finite numbers",
    "interrupt": "Ctrl-C",
    "memory": "more than the memory holds",
    "files": "a full disk, corrupt and hostile files",
}
ERRORS = (ValueError, TypeError)

NAMED, RIGHT, SILENT = "named error", "accepted, right", "silent"
UNCLEAR, HANG, ABSENT = "unclear error", "hang", "not there"
VERDICTS = (NAMED, RIGHT, SILENT, UNCLEAR, HANG, ABSENT)


class Refused(NamedTuple):
    """An error before any work, which names the argument."""

    name: str
    says: str = ""  # what else must stand in it: a regular expression
    kinds: tuple[type[BaseException], ...] = ERRORS
    early: bool = True  # before any work


class Same(NamedTuple):
    """Accepted without a warning, with the bits that the plain arguments give."""

    plain: Mapping[str, Any]


class Warned(NamedTuple):
    """Accepted, finite and with a warning; with the bits of `plain` where it is given."""

    says: str
    plain: Mapping[str, Any] | None = None


Wanted = Refused | Same | Warned
Surface = str  # "core", "estimators" or "command line"


class Case(NamedTuple):
    """One hostile input."""

    id: str
    row: str  # of ROWS
    make: Callable[[], dict[str, Any]]  # the arguments that replace good ones
    wanted: Callable[[], Wanted | dict[Surface, Wanted]]
    calls: tuple[str, ...] = ("fit",)
    task: str = "numbers"  # or "labels"
    surfaces: tuple[Surface, ...] = ("core", "estimators")

    def wanted_of(self, surface: Surface) -> Wanted:
        wanted = self.wanted()
        return wanted[surface] if isinstance(wanted, dict) else wanted


class Outcome(NamedTuple):
    """What a call came to."""

    error: BaseException | None = None
    result: bytes = b""
    finite: bool = True
    warned: tuple[str, ...] = ()
    worked: bool = False  # whether training began


def names(message: str, words: tuple[str, ...]) -> bool:
    """Whether a message holds one of the words, as a word."""
    return any(re.search(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", message) for word in words)


def judge(
    outcome: Outcome, wanted: Wanted, words: tuple[str, ...], plain: Callable[[Any], Outcome]
) -> tuple[str, str]:
    """A verdict, and why it is not what was wanted ("" where it is).

    words: what the surface calls the argument. plain: the outcome of plain arguments.
    """
    if outcome.error is not None:
        return judge_error(outcome, wanted, words)
    if isinstance(wanted, Refused):
        return SILENT, "accepted, but an error was wanted"
    told = " | ".join(outcome.warned)
    if isinstance(wanted, Warned) and not re.search(wanted.says, told):
        return SILENT, f"no warning like {wanted.says!r} among {outcome.warned}"
    if isinstance(wanted, Same) and outcome.warned:
        return RIGHT, f"warned: {told}"
    if not outcome.finite:
        return SILENT, "the result is not finite"
    if wanted.plain is not None and plain(wanted.plain).result != outcome.result:
        return SILENT, "the bits differ from those of the plain arguments"
    return RIGHT, ""


def judge_error(outcome: Outcome, wanted: Wanted, words: tuple[str, ...]) -> tuple[str, str]:
    error, message = outcome.error, str(outcome.error)
    shown = f"{type(error).__name__}: {message}"
    kinds = wanted.kinds if isinstance(wanted, Refused) else ERRORS
    if not isinstance(error, kinds) or not names(message, words):
        return UNCLEAR, shown
    if not isinstance(wanted, Refused):
        return NAMED, f"refused: {shown}"
    if not re.search(wanted.says, message):
        return NAMED, f"does not say {wanted.says!r}: {shown}"
    if wanted.early and outcome.worked:
        return NAMED, f"came after work had begun: {shown}"
    if not outcome.finite:
        return SILENT, f"the weights left behind are not finite: {shown}"
    return NAMED, ""
