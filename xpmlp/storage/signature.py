"""What a training was asked for, as JSON that another's can be compared with."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from xpmlp.devices.namespace import dtype_name, to_host
from xpmlp.storage.checksummed import parsed
from xpmlp.training.data import Data
from xpmlp.training.trainer import Trainer

AT_ONCE = 2**22  # numbers that are brought to the host and hashed at once
ENDLESS = ("constant", "step", "exponential", "warmup", "inverse_scaling")  # schedules
# settings that are no difference, or compared apart
BESIDE = ("epochs", "capture", "dtype", "n_threads")
SAID = 80  # characters of a value that an error repeats
NAMED = 8  # differences that it names, of what may be thousands in a hostile file


def run_signature(trainer: Trainer) -> dict[str, Any]:
    """Network, settings and data of a training, by the names of its caller's arguments."""
    settings = to_jsonable(trainer.signature(trainer))
    asked = {name: value for name, value in settings.items() if name not in BESIDE}
    asked |= {
        "spec": to_jsonable(trainer.spec.layers),
        "loss": to_jsonable(trainer.spec.loss),
        "dtype": dtype_name(trainer.state.params),
        "epochs": trainer.settings.epochs,
        "row weights": trainer.row_weights.__name__,
    }
    sets = [(trainer.data, "")] + ([(trainer.val_data, "_val")] if trainer.val_data else [])
    for data, suffix in sets:
        prints = fingerprints(data, trainer.labels.classes)
        asked |= {name + suffix: f"SHA-256 {digest}" for name, digest in prints.items()}
    compared: dict[str, Any] = parsed(json.dumps(asked, allow_nan=False))
    return compared


def to_jsonable(value: Any) -> Any:
    """A value as JSON: functions by their names, what is infinite or no number as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(one) for key, one in value.items()}
    if hasattr(value, "_fields"):
        return {name: to_jsonable(getattr(value, name)) for name in value._fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_jsonable(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [to_jsonable(one) for one in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def fingerprints(data: Data, classes: Any) -> dict[str, str]:
    """SHA-256 of rows, targets with the classes they stand for, and weights."""
    known = "" if classes is None else f"{classes.dtype.str} {classes.tolist()}"
    flat = (to_host(data.target), to_host(data.weight))
    parts = {"X": rows(data), "y": iter([known.encode(), flat[0]]), "sample_weight": iter(flat[1:])}
    return {name: digest(pieces) for name, pieces in parts.items()}


def rows(data: Data) -> Iterator[np.ndarray]:
    """The rows on the host, so many at once as are worth it."""
    count, width = data.x.shape
    size = max(1, AT_ONCE // width)
    yield np.array((count, width))
    for start in range(0, count, size):
        yield to_host(data.x.slice(start, min(start + size, count)))


def digest(pieces: Iterator[Any]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data)
    return found.hexdigest()


def differences(before: Any, now: Mapping[str, Any], done: int) -> list[str]:
    """What was asked for otherwise before, a line each. done: epochs.

    More or fewer epochs are none, as long as the schedule does not look ahead to the last.
    """
    if not isinstance(before, dict):
        raise ValueError("it does not say what was asked for")
    found = []
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if was == is_now and type(was) is type(is_now):
            continue
        if name != "epochs":
            found.append(f"{name[:SAID]} was {short(was)} and is {short(is_now)}")
        elif now["epochs"] < done:
            found.append(f"it has done {done} epochs and epochs is {short(is_now)}")
        elif not endless(now["schedule"]):
            found.append(
                f"epochs was {short(was)} and is {short(is_now)}, which the schedule "
                f"{short(now['schedule'])} goes by"
            )
    return found[:NAMED]


def endless(schedule: Any) -> bool:
    """Whether a schedule is the same however many epochs are to come."""
    if schedule is None:
        return True
    words = [part.partition(":")[0].strip() for part in schedule.split("*")]
    return all(word in ENDLESS for word in words)


def short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= SAID else f"{said[:SAID]}..."
