"""A training under way in one file: kill it at any moment, and it goes on to the same bits.

A checkpoint is a safetensors file like a model's (see `sealed`), written whole or not at all. It
holds what the loop changes (parameters, the optimizer's memory, best weights, history, where it
stands), and what was asked for: network, settings, and a SHA-256 of the data. Orders and dropout
follow from seed, epoch and step, so that there is no generator to keep.
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
from xpmlp.devices.threads import blas_threads, counted
from xpmlp.names import whole
from xpmlp.recording.executors import WAYS
from xpmlp.storage.atomic import contents, sweep, writable, write_atomic
from xpmlp.storage.lock import locked
from xpmlp.storage.question import differences, question, told
from xpmlp.storage.sealed import UNFIT, read_metadata, read_object, refusal, sealed, unpacked
from xpmlp.training.divergence import Trouble
from xpmlp.training.loop import Report, stopped
from xpmlp.training.steps import Run
from xpmlp.types import Array

FORMAT = "xpmlp-checkpoint"
VERSION = 1
HISTORY = "history."
COUNTS = ("best_epoch", "restored")  # whole numbers of a history; its other numbers are not
MEASURED = [f.name for f in fields(Report) if f.name not in ("epoch", "epochs", "step", "run")]


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
    def following(self, run: Run, resume: bool) -> Iterator["Keeper"]:
        """Inside it the file is this run's alone, and the run stands where the file says.

        Raises BlockingIOError where another training has it, ValueError where it cannot be
        written, or holds one that is not to be resumed, that has other data or settings, or that
        is damaged.
        """
        writable(self.path, "checkpoint ")
        with locked(self.path):
            sweep(self.path)
            with running(run.place):
                keeper = Keeper(self, run, question(run))
                if self.path.exists():
                    if not resume:
                        raise ValueError(
                            f"checkpoint {self.path} is there already: resume=True goes on with "
                            "it, and without the file training begins anew"
                        )
                    keeper.restore()
            run.attend = keeper.between
            yield keeper


class Keeper:
    """Writes a run's checkpoint when it is time. Called with the report of every epoch."""

    def __init__(self, checkpoint: Checkpoint, run: Run, asked: dict[str, Any]) -> None:
        self.checkpoint, self.run, self.asked = checkpoint, run, asked
        self.about = about(run)  # now: steps may have fewer threads
        self.written, self.epoch = time.monotonic(), run.epoch

    def __call__(self, report: Any) -> None:
        run, epochs = self.run, self.checkpoint.epochs
        ended = run.epoch >= run.settings.epochs or stopped(run)
        if ended or run.epoch - self.epoch >= epochs or self.late():
            self.write()

    def between(self) -> None:
        """Called between the windows of an epoch."""
        if self.run.within < self.run.steps_per_epoch and self.late():
            self.write()

    def late(self) -> bool:
        return time.monotonic() - self.written >= self.checkpoint.seconds

    def write(self) -> None:
        """Write the checkpoint, whole or not at all: OSError leaves the one before."""
        write_atomic(self.checkpoint.path, encode(self.run, self.asked, self.about))
        self.written, self.epoch = time.monotonic(), self.run.epoch

    def restore(self) -> None:
        """Let the run stand where the file says."""
        path, run = self.checkpoint.path, self.run
        data = contents(path)
        try:
            found = read_object(read_metadata(data, FORMAT, VERSION).get("config"))
            other = differences(found["asked"], self.asked, found["epoch"])
            changed = differences(found["about"], self.about, 0)
            if not other:
                take(run, found, unpacked(data))
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
        self.epoch = run.epoch


def about(run: Run) -> dict[str, Any]:
    """What the bits depend on beside what was asked for."""
    return {
        "device": run.place.name,
        "machine": platform.machine(),
        "numpy": np.__version__,
        "BLAS threads": None if counted() is None else blas_threads(run.settings.n_threads),
    }


def buffers(run: Run) -> dict[str, Array]:
    """The arrays that a run goes on from, by their names in the file."""
    state = run.state
    memory = {f"memory.{i}": buffer for i, buffer in enumerate(state.memory)}
    return memory | {
        "step": state.step,
        "params": state.params,
        "met": run.met,
        "made": run.made,
        "alive": run.alive,
        "since": run.since,
        "throttle": run.throttle,
        "kept": run.kept,
        "best": run.best,
        "best_epoch": run.best_epoch,
    }


def encode(run: Run, asked: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """The bytes of a run's checkpoint. Numbers of its history are arrays, which hold NaN too."""
    arrays = {name: to_host(buffer) for name, buffer in buffers(run).items()}
    words: dict[str, Any] = {}
    done = run.epoch - run.first
    for name, series in run.history.items() if done else ():
        own = series[-done:]  # of this training
        if all(one is None or isinstance(one, str) for one in own):
            words[name] = own
        else:
            arrays[HISTORY + name] = np.array(own)
    config = {
        "asked": asked,
        "about": about,
        "epoch": run.epoch,
        "within": run.within,
        "seconds": run.seconds,
        "words": words,
        "beside": run.beside,
        "troubles": told({str(k): trouble for k, trouble in run.troubles.items()}),
    }
    return sealed(FORMAT, VERSION, arrays, json.dumps(config, allow_nan=False))


def take(run: Run, found: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Let a run stand where a checkpoint says; an UNFIT error, and no change, where none can."""
    epoch, within, seconds, beside = (found[n] for n in ("epoch", "within", "seconds", "beside"))
    for name, value, least, end in (
        ("epoch", epoch, run.first, 2**53),
        ("within", within, 0, run.steps_per_epoch),
    ):
        if type(value) is not int or not least <= value < end:
            raise ValueError(f"{name} must be in [{least}, {end}); it has {value!r}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be at least 0; it has {seconds!r}")
    if kinds(beside) != kinds(run.beside) or not all(0 <= n < math.inf for n in beside.values()):
        raise ValueError(f"it has beside it {beside!r}")
    into = buffers(run)
    troubles = {int(k): trouble(**one) for k, one in found["troubles"].items()}
    history = past(run, found["words"], arrays, epoch - run.first)
    wanted = {name: (tuple(b.shape), to_host(b).dtype) for name, b in into.items()}
    held = {n: (a.shape, a.dtype) for n, a in arrays.items() if not n.startswith(HISTORY)}
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            raise ValueError(f"its tensor {name!r} is {held.get(name)}, not {wanted.get(name)}")
    step, largest = int(arrays["step"]), float(np.finfo(arrays["throttle"].dtype).max)
    for name, most in (
        ("step", 2**53),
        ("best_epoch", epoch),
        ("made", within or run.steps_per_epoch),
        ("alive", 1),
        ("since", step),
        ("throttle", largest),
    ):
        bad = ~((arrays[name] >= 0) & (arrays[name] <= most))
        if bad.any():
            raise ValueError(f"its {name} must be in [0, {most:g}]; it has {arrays[name][bad][0]}")
    for name, buffer in into.items():
        buffer[...] = to_place(run.place, arrays[name])
    run.epoch, run.within, run.seconds, run.beside = epoch, within, seconds, beside
    run.troubles = troubles
    for name, values in history.items():
        run.history.setdefault(name, []).extend(values)


def trouble(step: int, epoch: int, rate: Any, gradients: list[Any]) -> Trouble:
    """A trouble as JSON tells of it, where "inf" and "nan" are texts."""
    return Trouble(index(step), index(epoch), float(rate), tuple(map(float, gradients)))


def kinds(numbers: Mapping[str, Any]) -> dict[str, type]:
    return {name: type(number) for name, number in numbers.items()}


def past(
    run: Run, words: Mapping[str, Any], arrays: Mapping[str, np.ndarray], done: int
) -> dict[str, list[Any]]:
    """The history of `done` epochs of a run by name: numbers, or an array (K,) of each epoch."""
    numbers = {n.removeprefix(HISTORY): a for n, a in arrays.items() if n.startswith(HISTORY)}
    known: dict[str, tuple[str | None, ...]] = {"way": WAYS}
    if not run.held:
        known |= {"val_loss": (None,), "val_score": (None,)}
    named = {*MEASURED} if done else set()
    if words.keys() != named & known.keys() or numbers.keys() != named - known.keys():
        raise ValueError(f"its history is of {sorted(numbers.keys() | words.keys())}")
    history: dict[str, list[Any]] = {}
    for name, values in numbers.items():
        shape = (done, *(() if name == "seconds" else run.settings.lead))
        wide = values.ndim > 1 or values.dtype.itemsize == 8  # as Python's own numbers are
        if values.shape != shape or values.dtype.kind != "fi"[name in COUNTS] or not wide:
            raise ValueError(f"its history of {name!r} is {values.shape}, {values.dtype}")
        history[name] = values.tolist() if values.ndim == 1 else [row.copy() for row in values]
    for name, listed in words.items():
        if not isinstance(listed, list) or len(listed) != done or {*listed} - {*known[name]}:
            raise ValueError(f"its history of {name!r} is not one of {done} epochs")
        history[name] = listed
    return {name: history[name] for name in MEASURED if done}
