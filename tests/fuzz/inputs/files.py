"""Folders and disks for hostile files, and saving, loading and resuming in them."""

import contextlib
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import xpmlp
from fuzz.inputs.arrays import LABELS, X, Y
from fuzz.inputs.case import Outcome, Surface
from xpmlp.devices.namespace import to_host

FILE, CHECKPOINT = "model.safetensors", "run.ckpt"
OLD = b"what was there before"


@contextlib.contextmanager
def folder(files: dict[str, bytes]) -> Iterator[Path]:
    """A new current folder with these files."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for file, data in files.items():
            Path(file).write_bytes(data)
        yield Path(name)


@contextlib.contextmanager
def limited(size: int | None) -> Iterator[None]:
    """Files may have at most so many bytes, as on a full disk."""
    if size is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def contents(directory: Path) -> dict[str, bytes]:
    """All files below a folder, by their relative paths."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@cache
def good(surface: Surface) -> Any:
    """A small model of the surface, to save."""
    if surface == "core":
        return xpmlp.train("3-4-1", X, Y, epochs=1)
    return xpmlp.MLPClassifier((4,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, LABELS)


def outcome(surface: Surface, call: str, arguments: dict[str, Any]) -> Outcome:
    """The outcome of saving over an old file, loading a damaged one, or resuming."""
    if call == "resume":
        return resume(arguments)
    model = good(surface)
    damage: Callable[[bytes], bytes] = arguments.get("damage", lambda data: data)
    load = xpmlp.load if surface == "core" else type(model).load
    with folder({FILE: OLD}) as directory:
        Path("folder").mkdir()
        if call == "load":
            model.save(FILE)
            Path(FILE).write_bytes(damage(Path(FILE).read_bytes()))
        before = contents(directory)
        try:
            if call == "load":
                return Outcome(None, np.asarray(load(FILE).predict(X)).tobytes())
            with limited(arguments.get("limit")):
                model.save(arguments.get("path", FILE))
        except Exception as error:
            return Outcome(error, worked=contents(directory) != before)
        return Outcome(None, contents(directory)[FILE])


def resume(arguments: dict[str, Any]) -> Outcome:
    """The outcome of resuming from a checkpoint that is damaged or at a bad path.

    arguments: `damage` to its bytes; `place`, another path; `every`, options of Checkpoint; `limit`
    of the disk; and other arguments of `train`.
    """
    arguments, reports = {"epochs": 3, "resume": True} | arguments, []
    damage, limit = arguments.pop("damage", lambda data: data), arguments.pop("limit", None)
    place, every = arguments.pop("place", CHECKPOINT), arguments.pop("every", {})
    with folder({}) as directory:
        Path("folder").mkdir()
        good("core").save(FILE)
        xpmlp.train("3-4-1", X, Y, epochs=1, checkpoint=CHECKPOINT)
        Path(CHECKPOINT).write_bytes(damage(Path(CHECKPOINT).read_bytes()))
        before = contents(directory)
        try:
            with limited(limit):
                checkpoint = xpmlp.Checkpoint(place, **every)
                model = xpmlp.train(
                    "3-4-1", X, Y, checkpoint=checkpoint, callbacks=[reports.append], **arguments
                )
        except Exception as error:
            return Outcome(error, worked=bool(reports) or contents(directory) != before)
        return Outcome(None, to_host(model.flat).tobytes())
