"""Names with arguments, such as "relu", "huber:1.35" or "step:every=30,factor=0.1"."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial, wraps
from inspect import signature
from typing import Any, TypeVar

SYNONYMS = {  # what other libraries call ours
    "swish": "silu", "linear": "identity", "logistic": "sigmoid", "mse": "squared_error",
    "mae": "absolute_error", "l1": "absolute_error", "pinball": "quantile",
    "bce": "binary_cross_entropy", "log_loss": "cross_entropy", "nll": "cross_entropy",
    "categorical_crossentropy": "cross_entropy", "xavier": "glorot_uniform", "he": "he_normal",
    "kaiming": "he_uniform", "lecun": "lecun_normal",
}  # fmt: skip


def public_dir(names: Iterable[str]) -> Callable[[], list[str]]:
    """The `__dir__` of a module that offers these names, and none that it imports."""
    return lambda: sorted(names)


def nearest(word: str, known: list[str]) -> str:
    """The end of a sentence: "; did you mean 'relu'?" when a known word is close, else "."."""
    if SYNONYMS.get(word.lower()) in known:
        return f"; here it is {SYNONYMS[word.lower()]!r}."
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[close[0]]!r}?" if close else "."


Function = TypeVar("Function", bound=Callable[..., Any])


def with_hints(hints: Mapping[str, str]) -> Callable[[Function], Function]:
    """A function whose TypeError for an unknown argument names the one that is meant.

    hints: what to take in place of an argument of another name.
    """

    def decorate(function: Function) -> Function:
        known = [*signature(function).parameters]

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            for name in named:
                if name not in known:
                    meant = f"; here it is {hints[name]}" if name in hints else ""
                    raise TypeError(f"there is no argument {name!r}{meant or nearest(name, known)}")
            return function(*arguments, **named)

        return call  # type: ignore[return-value]

    return decorate


def number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def lookup(kind: str, table: Mapping[str, Any], text: str) -> Any:
    """The entry of `table` that `text` names, called with the arguments after the colon.

    `kind` is the word for error messages, such as "activation". An entry is a finished value
    or a factory; a factory is called with the arguments, or with none.
    """
    name, _, written = text.strip().partition(":")
    known = sorted(table)
    if name not in table:
        hint = nearest(name, known)
        raise ValueError(f"{kind} {name!r} is unknown{hint} Known: {', '.join(known)}")
    entry = table[name]
    if not callable(entry):
        if written:
            raise ValueError(f"{kind} {name!r} takes no argument; got {text!r}")
        return entry
    positional, keyword = [], {}
    try:
        for part in filter(None, (part.strip() for part in written.split(","))):
            key, equals, value = part.partition("=")
            if equals:
                keyword[key.strip()] = number(value)
            else:
                positional.append(number(part))
        return entry(*positional, **keyword)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind} {text!r}: {error}") from None


def refuse(good: Callable[[float], object], what: str, **values: float) -> None:
    """ValueError naming the first value that is not good."""
    for name, value in values.items():
        if not good(value):
            raise ValueError(f"{name} must be {what}; got {value}")


def whole(value: Any, what: str) -> int:
    """`value` as an int of at least 1; ValueError naming `what` otherwise."""
    try:
        number: Any = None if isinstance(value, bool) else value
        number = int(value) if isinstance(value, str) else operator.index(number)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a whole number; got {value!r}") from None
    if number < 1:
        raise ValueError(f"{what} must be at least 1; got {value!r}")
    return int(number)


positive = partial(refuse, lambda value: 0 < value < math.inf, "positive and finite")
share = partial(refuse, lambda value: 0 <= value <= 1, "in [0, 1]")


def title(value: object) -> str:
    """How a ledger or a message calls an activation, a loss, a rule or a schedule."""
    if isinstance(value, str):
        return value
    value = value if getattr(value, "name", None) else getattr(value, "rule", value)
    name = str(getattr(value, "name", None) or getattr(value, "__name__", ""))
    return "yours" if name in ("", "<lambda>") else name


def is_ours(*functions: Any) -> bool:
    """Whether all are defined in this package, so that a name can stand for them."""
    return all(str(getattr(f, "__module__", "")).startswith("xpmlp.") for f in functions)


def split_pair(
    kind: str, pair: str, example: str, function: Callable[..., Any]
) -> tuple[Callable[..., Any], ...]:
    """The functions that give the first and the second of the pair that a user's one returns."""

    def half(i: int) -> Callable[..., Any]:
        def of_pair(*arguments: Any) -> Any:
            result = function(*arguments)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(
                    f"{kind} {title(function)} must return the pair {pair}, such as `{example}`; "
                    f"got {type(result).__name__}"
                )
            return result[i]

        return of_pair

    return half(0), half(1)
