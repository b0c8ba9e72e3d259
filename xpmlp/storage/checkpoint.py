"""Checkpoints: a training that is killed at any moment resumes to the same bits.

A checkpoint is a safetensors file like a model's (see `checksummed`), written atomically. It holds
the state of the trainer (parameters, the optimizer's slots, best weights, history, epoch and step)
and a signature: network, settings, and a SHA-256 of the data. Orders and dropout follow from seed,
epoch and step, so that there is no generator to save.
"""

import json
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp.devices.namespace import running, to_host, to_place
from xpmlp.devices.threads import available_threads, blas_threads
from xpmlp.names import whole
from xpmlp.recording.executors import EXECUTORS
from xpmlp.storage.atomic import check_writable, read_bytes, remove_partial_files, write_atomic
from xpmlp.storage.checksummed import (
    INVALID_FILE_ERRORS,
    invalid_file,
    pack_checksummed,
    read_metadata,
    read_object,
    read_tensors,
)
from xpmlp.storage.lock import file_lock
from xpmlp.storage.signature import differences, run_signature, to_jsonable
from xpmlp.training.divergence import Divergence
from xpmlp.training.report import SERIES
from xpmlp.training.trainer import Trainer
from xpmlp.types import Array

FORMAT = "xpmlp-checkpoint"
VERSION = 1
HISTORY_PREFIX = "history."
INTEGER_SERIES = ("best_epoch", "restored")  # of a history; the other series are floats


class Checkpoint:
    """Where and how often a training writes its checkpoint: `train(..., checkpoint=...)`.

    Parameters
    ----------
    path : path
        Of the file, which is replaced whole.
    every_epochs : int at least 1, optional
        Epochs between two writes; 1 where neither is given.
    every_seconds : float above 0, optional
        Seconds between two writes, within an epoch too. The end of a training is always written.

    Raises
    ------
    ValueError
        Naming the argument that is wrong.

    Examples
    --------
    >>> import os, tempfile, xpmlp
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> rows = dict(X=[[0.0], [1.0]], y=[1.0, 3.0])
    >>> half = xpmlp.train("1-1", **rows, epochs=5, checkpoint=Checkpoint(path, every_epochs=5))
    >>> whole = xpmlp.train("1-1", **rows, epochs=10, checkpoint=path, resume=True)
    >>> bool((whole.flat == xpmlp.train("1-1", **rows, epochs=10).flat).all())
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every_epochs: int | None = None,
        every_seconds: float | None = None,
    ) -> None:
        seconds: Any = math.inf if every_seconds is None else every_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, Real) or not float(seconds) > 0:
            raise ValueError(f"every_seconds must be a number above 0; got {every_seconds!r}")
        try:
            self.path = Path(os.fspath(path))
        except TypeError:
            raise ValueError(f"checkpoint must be a path; got {path!r}") from None
        self.epochs = 1 if every_seconds is None else math.inf
        if every_epochs is not None:
            self.epochs = whole(every_epochs, "every_epochs")
        self.seconds = float(seconds)

    @contextmanager
    def opened(self, trainer: Trainer, resume: bool) -> Iterator["CheckpointWriter"]:
        """Lock the file, and restore the trainer from it if it exists.

        Raises BlockingIOError if another training holds the lock, ValueError if the file cannot be
        written, exists without `resume`, is damaged, or is of other data or settings.
        """
        check_writable(self.path, "checkpoint ")
        with file_lock(self.path):
            remove_partial_files(self.path)
            with running(trainer.place):
                writer = CheckpointWriter(self, trainer, run_signature(trainer))
                if self.path.exists():
                    if not resume:
                        raise ValueError(
                            f"checkpoint {self.path} already exists: resume=True continues it; "
                            "delete the file to start anew"
                        )
                    writer.restore()
            trainer.after_window = writer.after_window
            yield writer


class CheckpointWriter:
    """Writes a training's checkpoint when it is due. Called with the report of every epoch."""

    def __init__(self, checkpoint: Checkpoint, trainer: Trainer, signature: dict[str, Any]) -> None:
        self.checkpoint, self.trainer, self.signature = checkpoint, trainer, signature
        self.environment = environment(trainer)  # here: during steps BLAS may have fewer threads
        self.last_write, self.epoch = time.monotonic(), trainer.epoch

    def __call__(self, report: Any) -> None:
        trainer, epochs = self.trainer, self.checkpoint.epochs
        finished = trainer.epoch >= trainer.settings.epochs or trainer.stopped
        if finished or trainer.epoch - self.epoch >= epochs or self.is_due():
            self.write()

    def after_window(self) -> None:
        """Called between the windows of an epoch."""
        if self.trainer.counter.in_epoch < self.trainer.steps_per_epoch and self.is_due():
            self.write()

    def is_due(self) -> bool:
        return time.monotonic() - self.last_write >= self.checkpoint.seconds

    def write(self) -> None:
        """Write the checkpoint atomically: on an OSError the old file is intact."""
        write_atomic(self.checkpoint.path, encode(self.trainer, self.signature, self.environment))
        self.last_write, self.epoch = time.monotonic(), self.trainer.epoch

    def restore(self) -> None:
        """Restore the trainer from the file."""
        path, trainer = self.checkpoint.path, self.trainer
        data = read_bytes(path)
        try:
            config = read_object(read_metadata(data, FORMAT, VERSION).get("config"))
            changed = differences(config["signature"], self.signature, config["epoch"])
            changes = differences(config["about"], self.environment, 0)
            if not changed:
                restore_trainer(trainer, config, read_tensors(data))
        except INVALID_FILE_ERRORS as error:
            raise invalid_file(path, error, "checkpoint") from None
        if changed:
            raise ValueError(f"checkpoint {path} is of another training: {'; '.join(changed)}")
        if changes:
            warnings.warn(
                f"checkpoint {path} resumes in another environment, so the last bits may differ: "
                f"{'; '.join(changes)}",
                stacklevel=5,
            )
        self.epoch = trainer.epoch


def environment(trainer: Trainer) -> dict[str, Any]:
    """What the bits depend on besides the signature."""
    return {
        "device": trainer.place.name,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "BLAS threads": None
        if available_threads() is None
        else blas_threads(trainer.settings.n_threads),
    }


def buffers(trainer: Trainer) -> dict[str, Array]:
    """The arrays of a training's state, by their names in the file."""
    state, step = trainer.state, trainer.step
    slots = {f"slots.{i}": buffer for i, buffer in enumerate(state.slots)}
    average = {} if step.average is None else {"average": step.average}
    return (
        slots
        | average
        | {
            "step": state.step,
            "params": state.params,
            "running_loss": step.running_loss,
            "finite_steps": step.finite_steps,
            "alive": step.alive,
            "slots_reset_step": step.slots_reset_step,
            "learning_rate_scale": step.learning_rate_scale,
            "best_params": trainer.best_params,
            "best_value": trainer.best_value,
            "best_epoch": trainer.best_epoch,
        }
    )


def encode(trainer: Trainer, signature: Mapping[str, Any], environment: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint. Numbers of its history are arrays, which can hold NaN."""
    arrays = {name: to_host(buffer) for name, buffer in buffers(trainer).items()}
    words: dict[str, Any] = {}
    done = trainer.epoch - trainer.first_epoch
    for name, series in trainer.history.items() if done else ():
        values = series[-done:]  # of this training
        if all(value is None or isinstance(value, str) for value in values):
            words[name] = values
        else:
            arrays[HISTORY_PREFIX + name] = np.array(values)
    config = {
        "signature": signature,
        "about": environment,
        "epoch": trainer.epoch,
        "step_in_epoch": trainer.counter.in_epoch,
        "seconds": trainer.seconds,
        "words": words,
        "extra_state": trainer.extra_state,
        "divergences": to_jsonable({str(k): d for k, d in trainer.divergences.items()}),
    }
    return pack_checksummed(FORMAT, VERSION, arrays, json.dumps(config, allow_nan=False))


def restore_trainer(
    trainer: Trainer, config: Mapping[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Set a trainer's state from a checkpoint, or raise and leave it unchanged."""
    names = ("epoch", "step_in_epoch", "seconds", "extra_state")
    epoch, step_in_epoch, seconds, extra = (config[name] for name in names)
    for name, value, low, high in (
        ("epoch", epoch, trainer.first_epoch, 2**53),
        ("step_in_epoch", step_in_epoch, 0, trainer.steps_per_epoch),
    ):
        if type(value) is not int or not low <= value < high:
            raise ValueError(f"{name} must be in [{low}, {high}); it has {value!r}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be at least 0; it has {seconds!r}")
    if types(extra) != types(trainer.extra_state) or not all(
        0 <= n < math.inf for n in extra.values()
    ):
        raise ValueError(f"its extra_state is {extra!r}")
    state = buffers(trainer)
    divergences = {int(k): read_divergence(**d) for k, d in config["divergences"].items()}
    history = read_history(trainer, config["words"], arrays, epoch - trainer.first_epoch)
    expected = {name: (tuple(b.shape), to_host(b).dtype) for name, b in state.items()}
    stored = {n: (a.shape, a.dtype) for n, a in arrays.items() if not n.startswith(HISTORY_PREFIX)}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise ValueError(f"its tensor {name!r} is {stored.get(name)}, not {expected.get(name)}")
    step, largest = int(arrays["step"]), float(np.finfo(arrays["learning_rate_scale"].dtype).max)
    for name, maximum in (
        ("step", 2**53),
        ("best_epoch", epoch),
        ("finite_steps", step_in_epoch or trainer.steps_per_epoch),
        ("alive", 1),
        ("slots_reset_step", step),
        ("learning_rate_scale", largest),
    ):
        invalid = arrays[name][~((arrays[name] >= 0) & (arrays[name] <= maximum))]  # NaN too
        if invalid.size:
            raise ValueError(f"its {name} must be in [0, {maximum:g}]; it has {invalid[0]}")
    for name, buffer in state.items():
        buffer[...] = to_place(trainer.place, arrays[name])
    trainer.epoch, trainer.seconds, trainer.extra_state = epoch, seconds, extra
    trainer.counter.in_epoch, trainer.divergences = step_in_epoch, divergences
    for name, values in history.items():
        trainer.history.setdefault(name, []).extend(values)


def read_divergence(step: int, epoch: int, learning_rate: Any, gradients: list[Any]) -> Divergence:
    """A divergence from JSON, where "inf" and "nan" are strings."""
    return Divergence(index(step), index(epoch), float(learning_rate), tuple(map(float, gradients)))


def types(numbers: Mapping[str, Any]) -> dict[str, type]:
    return {name: type(number) for name, number in numbers.items()}


def read_history(
    trainer: Trainer, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray], done: int
) -> dict[str, list[Any]]:
    """The history of `done` epochs by name: a number, or an array (K,), of each epoch."""
    numbers = {
        n.removeprefix(HISTORY_PREFIX): a for n, a in arrays.items() if n.startswith(HISTORY_PREFIX)
    }
    known: dict[str, tuple[str | None, ...]] = {"executor": EXECUTORS}
    if not trainer.val_data:
        known |= {"val_loss": (None,), "val_score": (None,)}
    series = [*SERIES, *trainer.metrics] if done else []
    names = {*series}
    if words.keys() != names & known.keys() or numbers.keys() != names - known.keys():
        raise ValueError(f"its history holds {sorted(numbers.keys() | words.keys())}")
    history: dict[str, list[Any]] = {}
    for name, values in numbers.items():
        shape = (done, *(() if name == "seconds" else trainer.settings.lead))
        wide = values.ndim > 1 or values.dtype.itemsize == 8  # of Python numbers
        if values.shape != shape or values.dtype.kind != "fi"[name in INTEGER_SERIES] or not wide:
            raise ValueError(f"its history of {name!r} is {values.shape}, {values.dtype}")
        history[name] = values.tolist() if values.ndim == 1 else [row.copy() for row in values]
    for name, listed in words.items():
        if not isinstance(listed, list) or len(listed) != done or {*listed} - {*known[name]}:
            raise ValueError(f"its history of {name!r} is not one of {done} epochs")
        history[name] = listed
    return {name: history[name] for name in series}
