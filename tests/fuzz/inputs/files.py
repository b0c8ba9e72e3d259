"""Folders and disks for hostile files, and what is saved, loaded and resumed in them."""

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
    """Files may have that many bytes at most, as on a disk that is full."""
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


def contents(here: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths in it."""
    found = sorted(path for path in here.rglob("*") if path.is_file())
    return {str(path.relative_to(here)): path.read_bytes() for path in found}


@cache
def good(surface: Surface) -> Any:
    """A small model of the surface, to save."""
    if surface == "core":
        return xpmlp.train("3-4-1", X, Y, epochs=1)
    return xpmlp.MLPClassifier((4,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, LABELS)


def outcome(surface: Surface, call: str, given: dict[str, Any]) -> Outcome:
    """What saving over an old file, loading a damaged one, or resuming comes to."""
    if call == "resume":
        return resumed(given)
    model = good(surface)
    damage: Callable[[bytes], bytes] = given.get("damage", lambda data: data)
    load = xpmlp.load if surface == "core" else type(model).load
    with folder({FILE: OLD}) as here:
        Path("folder").mkdir()
        if call == "load":
            model.save(FILE)
            Path(FILE).write_bytes(damage(Path(FILE).read_bytes()))
        before = contents(here)
        try:
            if call == "load":
                return Outcome(None, np.asarray(load(FILE).predict(X)).tobytes())
            with limited(given.get("limit")):
                model.save(given.get("path", FILE))
        except Exception as error:
            return Outcome(error, worked=contents(here) != before)
        return Outcome(None, contents(here)[FILE])


def resumed(given: dict[str, Any]) -> Outcome:
    """What going on from a checkpoint comes to, where it is damaged or its place is none.

    given: `damage` to its bytes; `place` in its place, `every` how often; `limit` of the disk; and
    other arguments of `train`.
    """
    given, seen = {"epochs": 3, "resume": True} | given, []
    damage, limit = given.pop("damage", lambda data: data), given.pop("limit", None)
    place, every = given.pop("place", CHECKPOINT), given.pop("every", {})
    with folder({}) as here:
        Path("folder").mkdir()
        good("core").save(FILE)
        xpmlp.train("3-4-1", X, Y, epochs=1, checkpoint=CHECKPOINT)
        Path(CHECKPOINT).write_bytes(damage(Path(CHECKPOINT).read_bytes()))
        before = contents(here)
        try:
            with limited(limit):
                kept = xpmlp.Checkpoint(place, **every)
                model = xpmlp.train(
                    "3-4-1", X, Y, checkpoint=kept, callbacks=[seen.append], **given
                )
        except Exception as error:
            return Outcome(error, worked=bool(seen) or contents(here) != before)
        return Outcome(None, to_host(model.flat).tobytes())
