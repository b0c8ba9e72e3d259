"""The arguments and data of a training as JSON, to compare two trainings."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from xpmlp.devices.namespace import dtype_name, to_host
from xpmlp.storage.checksummed import parse_json
from xpmlp.training.data import Data
from xpmlp.training.trainer import Trainer

CHUNK_SIZE = 2**22  # numbers that are copied to the host and hashed at once
# schedules that do not depend on the number of epochs
OPEN_ENDED_SCHEDULES = ("constant", "step", "exponential", "warmup", "inverse_scaling")
# settings that do not change the result, or are compared separately
IGNORED_SETTINGS = ("epochs", "capture", "dtype", "n_threads")
MAX_VALUE_LENGTH = 80  # characters of a value in an error message
MAX_DIFFERENCES = 8  # in an error message; a malformed file may have thousands


def run_signature(trainer: Trainer) -> dict[str, Any]:
    """Network, settings and data of a training, by the names of its caller's arguments."""
    settings = to_jsonable(trainer.signature(trainer))
    signature = {name: value for name, value in settings.items() if name not in IGNORED_SETTINGS}
    signature |= {
        "spec": to_jsonable(trainer.spec.layers),
        "loss": to_jsonable(trainer.spec.loss),
        "dtype": dtype_name(trainer.state.params),
        "epochs": trainer.settings.epochs,
        "row weights": trainer.row_weights.__name__,
        "metrics": to_jsonable(trainer.metrics),
    }
    sets = [(trainer.data, "")] + ([(trainer.val_data, "_val")] if trainer.val_data else [])
    for data, suffix in sets:
        digests = fingerprints(data, trainer.labels.classes)
        signature |= {name + suffix: f"SHA-256 {digest}" for name, digest in digests.items()}
    normalized: dict[str, Any] = parse_json(json.dumps(signature, allow_nan=False))
    return normalized


def to_jsonable(value: Any) -> Any:
    """A value as JSON: functions by their names, infinity and NaN as strings."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return {name: to_jsonable(getattr(value, name)) for name in value._fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_jsonable(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [to_jsonable(item) for item in value]
    owner = value if hasattr(value, "__qualname__") else type(value)
    return f"{owner.__module__}.{owner.__qualname__}"


def fingerprints(data: Data, classes: Any) -> dict[str, str]:
    """SHA-256 of rows, of targets with their classes, and of weights."""
    labels = "" if classes is None else f"{classes.dtype.str} {classes.tolist()}"
    target, weight = to_host(data.target), to_host(data.weight)
    parts = {
        "X": row_chunks(data),
        "y": iter([labels.encode(), target]),
        "sample_weight": iter([weight]),
    }
    return {name: digest(pieces) for name, pieces in parts.items()}


def row_chunks(data: Data) -> Iterator[np.ndarray]:
    """The shape of the rows, then the rows on the host in chunks."""
    count, width = data.x.shape
    size = max(1, CHUNK_SIZE // width)
    yield np.array((count, width))
    for start in range(0, count, size):
        yield to_host(data.x.slice(start, min(start + size, count)))


def digest(pieces: Iterator[Any]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data)
    return sha256.hexdigest()


def differences(old: Any, new: Mapping[str, Any], epoch: int) -> list[str]:
    """How two signatures differ, a line each, after `epoch` epochs of the old training.

    More or fewer epochs are not a difference unless the schedule depends on their number.
    """
    if not isinstance(old, dict):
        raise ValueError("it has no signature")
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before == now and type(before) is type(now):
            continue
        if name != "epochs":
            lines.append(
                f"{name[:MAX_VALUE_LENGTH]} was {shorten_repr(before)} and is {shorten_repr(now)}"
            )
        elif new["epochs"] < epoch:
            lines.append(f"it has done {epoch} epochs and epochs is {shorten_repr(now)}")
        elif not is_open_ended(new["schedule"]):
            lines.append(
                f"epochs was {shorten_repr(before)} and is {shorten_repr(now)}, on which the "
                f"schedule {shorten_repr(new['schedule'])} depends"
            )
    return lines[:MAX_DIFFERENCES]


def is_open_ended(schedule: Any) -> bool:
    """Whether a schedule does not depend on the number of epochs."""
    if schedule is None:
        return True
    words = [part.partition(":")[0].strip() for part in schedule.split("*")]
    return all(word in OPEN_ENDED_SCHEDULES for word in words)


def shorten_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
