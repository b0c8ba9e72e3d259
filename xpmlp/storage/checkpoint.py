"""A training under way in one file: kill it at any moment, and it goes on to the same bits.

A checkpoint is a safetensors file like a model's (see `checksummed`), written whole or not at
all. It holds what the trainer changes (parameters, the optimizer's slots, best weights, history,
where it stands), and what was asked for: network, settings, and a SHA-256 of the data. Orders
and dropout follow from seed, epoch and step, so that there is no generator to keep.
"""

import json
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp.devices.namespace import running, to_host, to_place
from xpmlp.devices.threads import available_threads, blas_threads
from xpmlp.names import whole
from xpmlp.recording.executors import EXECUTORS
from xpmlp.storage.atomic import contents, sweep, writable, write_atomic
from xpmlp.storage.checksummed import (
    UNFIT,
    checksummed,
    read_metadata,
    read_object,
    refusal,
    unpacked,
)
from xpmlp.storage.lock import locked
from xpmlp.storage.signature import differences, run_signature, to_jsonable
from xpmlp.training.divergence import Divergence
from xpmlp.training.report import Report
from xpmlp.training.trainer import Trainer
from xpmlp.types import Array

FORMAT = "xpmlp-checkpoint"
VERSION = 1
HISTORY = "history."
COUNTS = ("best_epoch", "restored")  # whole numbers of a history; its other numbers are not
MEASURED = [
    f.name
    for f in fields(Report)
    if f.name not in ("epoch", "epochs", "step", "metrics", "trainer")
]


class Checkpoint:
    """Where a training is kept while it runs, and how often: `train(..., checkpoint=...)`.

    path: of the file. every_epochs: epochs from one writing to the next; every_seconds: seconds,
    looked at after every window of minibatches too. Without both, every epoch. The end of a
    training is always written.

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
        """Inside it the file is this run's alone, and the run stands where the file says.

        Raises BlockingIOError where another training has it, ValueError where it cannot be
        written, or holds one that is not to be resumed, that has other data or settings, or that
        is damaged.
        """
        writable(self.path, "checkpoint ")
        with locked(self.path):
            sweep(self.path)
            with running(trainer.place):
                writer = CheckpointWriter(self, trainer, run_signature(trainer))
                if self.path.exists():
                    if not resume:
                        raise ValueError(
                            f"checkpoint {self.path} is there already: resume=True goes on with "
                            "it, and without the file training begins anew"
                        )
                    writer.restore()
            trainer.after_window = writer.after_window
            yield writer


class CheckpointWriter:
    """Writes a training's checkpoint when it is time. Called with the report of every epoch."""

    def __init__(self, checkpoint: Checkpoint, trainer: Trainer, signature: dict[str, Any]) -> None:
        self.checkpoint, self.trainer, self.signature = checkpoint, trainer, signature
        self.about = about(trainer)  # now: steps may have fewer threads
        self.written, self.epoch = time.monotonic(), trainer.epoch

    def __call__(self, report: Any) -> None:
        trainer, epochs = self.trainer, self.checkpoint.epochs
        ended = trainer.epoch >= trainer.settings.epochs or trainer.stopped
        if ended or trainer.epoch - self.epoch >= epochs or self.late():
            self.write()

    def after_window(self) -> None:
        """Called between the windows of an epoch."""
        if self.trainer.counter.in_epoch < self.trainer.steps_per_epoch and self.late():
            self.write()

    def late(self) -> bool:
        return time.monotonic() - self.written >= self.checkpoint.seconds

    def write(self) -> None:
        """Write the checkpoint, whole or not at all: OSError leaves the one before."""
        write_atomic(self.checkpoint.path, encode(self.trainer, self.signature, self.about))
        self.written, self.epoch = time.monotonic(), self.trainer.epoch

    def restore(self) -> None:
        """Let the run stand where the file says."""
        path, trainer = self.checkpoint.path, self.trainer
        data = contents(path)
        try:
            found = read_object(read_metadata(data, FORMAT, VERSION).get("config"))
            other = differences(found["signature"], self.signature, found["epoch"])
            changed = differences(found["about"], self.about, 0)
            if not other:
                take(trainer, found, unpacked(data))
        except UNFIT as error:
            raise refusal(path, error, "checkpoint") from None
        if other:
            raise ValueError(f"checkpoint {path} is of another training: {'; '.join(other)}")
        if changed:
            warnings.warn(
                f"checkpoint {path} goes on elsewhere, so the last bits may differ: "
                f"{'; '.join(changed)}",
                stacklevel=5,
            )
        self.epoch = trainer.epoch


def about(trainer: Trainer) -> dict[str, Any]:
    """What the bits depend on beside what was asked for."""
    return {
        "device": trainer.place.name,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "BLAS threads": None
        if available_threads() is None
        else blas_threads(trainer.settings.n_threads),
    }


def buffers(trainer: Trainer) -> dict[str, Array]:
    """The arrays that a training goes on from, by their names in the file."""
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


def encode(trainer: Trainer, signature: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """The bytes of a run's checkpoint. Numbers of its history are arrays, which hold NaN too."""
    arrays = {name: to_host(buffer) for name, buffer in buffers(trainer).items()}
    words: dict[str, Any] = {}
    done = trainer.epoch - trainer.first_epoch
    for name, series in trainer.history.items() if done else ():
        own = series[-done:]  # of this training
        if all(one is None or isinstance(one, str) for one in own):
            words[name] = own
        else:
            arrays[HISTORY + name] = np.array(own)
    config = {
        "signature": signature,
        "about": about,
        "epoch": trainer.epoch,
        "step_in_epoch": trainer.counter.in_epoch,
        "seconds": trainer.seconds,
        "words": words,
        "extra_state": trainer.extra_state,
        "divergences": to_jsonable({str(k): one for k, one in trainer.divergences.items()}),
    }
    return checksummed(FORMAT, VERSION, arrays, json.dumps(config, allow_nan=False))


def take(trainer: Trainer, found: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Let a run stand where a checkpoint says; an UNFIT error, and no change, where none can."""
    names = ("epoch", "step_in_epoch", "seconds", "extra_state")
    epoch, step_in_epoch, seconds, extra = (found[name] for name in names)
    for name, value, least, end in (
        ("epoch", epoch, trainer.first_epoch, 2**53),
        ("step_in_epoch", step_in_epoch, 0, trainer.steps_per_epoch),
    ):
        if type(value) is not int or not least <= value < end:
            raise ValueError(f"{name} must be in [{least}, {end}); it has {value!r}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be at least 0; it has {seconds!r}")
    if kinds(extra) != kinds(trainer.extra_state) or not all(
        0 <= n < math.inf for n in extra.values()
    ):
        raise ValueError(f"its extra_state is {extra!r}")
    into = buffers(trainer)
    divergences = {int(k): divergence(**one) for k, one in found["divergences"].items()}
    history = past(trainer, found["words"], arrays, epoch - trainer.first_epoch)
    wanted = {name: (tuple(b.shape), to_host(b).dtype) for name, b in into.items()}
    held = {n: (a.shape, a.dtype) for n, a in arrays.items() if not n.startswith(HISTORY)}
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            raise ValueError(f"its tensor {name!r} is {held.get(name)}, not {wanted.get(name)}")
    step, largest = int(arrays["step"]), float(np.finfo(arrays["learning_rate_scale"].dtype).max)
    for name, most in (
        ("step", 2**53),
        ("best_epoch", epoch),
        ("finite_steps", step_in_epoch or trainer.steps_per_epoch),
        ("alive", 1),
        ("slots_reset_step", step),
        ("learning_rate_scale", largest),
    ):
        bad = ~((arrays[name] >= 0) & (arrays[name] <= most))
        if bad.any():
            raise ValueError(f"its {name} must be in [0, {most:g}]; it has {arrays[name][bad][0]}")
    for name, buffer in into.items():
        buffer[...] = to_place(trainer.place, arrays[name])
    trainer.epoch, trainer.seconds, trainer.extra_state = epoch, seconds, extra
    trainer.counter.in_epoch, trainer.divergences = step_in_epoch, divergences
    for name, values in history.items():
        trainer.history.setdefault(name, []).extend(values)


def divergence(step: int, epoch: int, learning_rate: Any, gradients: list[Any]) -> Divergence:
    """A divergence as JSON tells of it, where "inf" and "nan" are texts."""
    return Divergence(index(step), index(epoch), float(learning_rate), tuple(map(float, gradients)))


def kinds(numbers: Mapping[str, Any]) -> dict[str, type]:
    return {name: type(number) for name, number in numbers.items()}


def past(
    trainer: Trainer, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray], done: int
) -> dict[str, list[Any]]:
    """The history of `done` epochs by name: numbers, or an array (K,) of each epoch."""
    numbers = {n.removeprefix(HISTORY): a for n, a in arrays.items() if n.startswith(HISTORY)}
    known: dict[str, tuple[str | None, ...]] = {"executor": EXECUTORS}
    if not trainer.val_data:
        known |= {"val_loss": (None,), "val_score": (None,)}
    columns = [*MEASURED, *trainer.metrics] if done else []
    named = {*columns}
    if words.keys() != named & known.keys() or numbers.keys() != named - known.keys():
        raise ValueError(f"its history is of {sorted(numbers.keys() | words.keys())}")
    history: dict[str, list[Any]] = {}
    for name, values in numbers.items():
        shape = (done, *(() if name == "seconds" else trainer.settings.lead))
        wide = values.ndim > 1 or values.dtype.itemsize == 8  # as Python's own numbers are
        if values.shape != shape or values.dtype.kind != "fi"[name in COUNTS] or not wide:
            raise ValueError(f"its history of {name!r} is {values.shape}, {values.dtype}")
        history[name] = values.tolist() if values.ndim == 1 else [row.copy() for row in values]
    for name, listed in words.items():
        if not isinstance(listed, list) or len(listed) != done or {*listed} - {*known[name]}:
            raise ValueError(f"its history of {name!r} is not one of {done} epochs")
        history[name] = listed
    return {name: history[name] for name in columns}
