"""A hostile input, its expected outcome, and the verdict on the actual one."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

ROWS = {  # of the table "Bad input" of the library's promises
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
    says: str = ""  # a regular expression that the message must match
    kinds: tuple[type[BaseException], ...] = ERRORS
    early: bool = True  # before any work


class Same(NamedTuple):
    """Accepted without a warning, with the bits of the plain arguments."""

    plain: Mapping[str, Any]


class Warned(NamedTuple):
    """Accepted, finite and with a warning; with the bits of `plain` if it is given."""

    says: str
    plain: Mapping[str, Any] | None = None


Expected = Refused | Same | Warned
Surface = str  # "core", "estimators" or "command line"


class Case(NamedTuple):
    """One hostile input."""

    id: str
    row: str  # of ROWS
    make: Callable[[], dict[str, Any]]  # the arguments that replace good ones
    expected: Callable[[], Expected | dict[Surface, Expected]]
    calls: tuple[str, ...] = ("fit",)
    task: str = "numbers"  # or "labels"
    surfaces: tuple[Surface, ...] = ("core", "estimators")

    def expected_for(self, surface: Surface) -> Expected:
        expected = self.expected()
        return expected[surface] if isinstance(expected, dict) else expected


class Outcome(NamedTuple):
    """The outcome of a call."""

    error: BaseException | None = None
    result: bytes = b""
    finite: bool = True
    warned: tuple[str, ...] = ()
    worked: bool = False  # whether training began


def names(message: str, words: tuple[str, ...]) -> bool:
    """Whether a message has one of the words, as a whole word."""
    return any(re.search(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", message) for word in words)


def judge(
    outcome: Outcome, expected: Expected, words: tuple[str, ...], plain: Callable[[Any], Outcome]
) -> tuple[str, str]:
    """A verdict, and the reason why it is not as expected ("" if it is).

    words: names of the argument on the surface. plain: the outcome of plain arguments.
    """
    if outcome.error is not None:
        return judge_error(outcome, expected, words)
    if isinstance(expected, Refused):
        return SILENT, "accepted, but an error was wanted"
    warned = " | ".join(outcome.warned)
    if isinstance(expected, Warned) and not re.search(expected.says, warned):
        return SILENT, f"no warning like {expected.says!r} among {outcome.warned}"
    if isinstance(expected, Same) and outcome.warned:
        return RIGHT, f"warned: {warned}"
    if not outcome.finite:
        return SILENT, "the result is not finite"
    if expected.plain is not None and plain(expected.plain).result != outcome.result:
        return SILENT, "the bits differ from those of the plain arguments"
    return RIGHT, ""


def judge_error(outcome: Outcome, expected: Expected, words: tuple[str, ...]) -> tuple[str, str]:
    error, message = outcome.error, str(outcome.error)
    description = f"{type(error).__name__}: {message}"
    kinds = expected.kinds if isinstance(expected, Refused) else ERRORS
    if not isinstance(error, kinds) or not names(message, words):
        return UNCLEAR, description
    if not isinstance(expected, Refused):
        return NAMED, f"refused: {description}"
    if not re.search(expected.says, message):
        return NAMED, f"does not say {expected.says!r}: {description}"
    if expected.early and outcome.worked:
        return NAMED, f"came after work had begun: {description}"
    if not outcome.finite:
        return SILENT, f"the weights left behind are not finite: {description}"
    return NAMED, ""
