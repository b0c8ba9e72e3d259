"""A file that one process writes: the operating system's lock, which dies with its holder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from xpmlp.storage.atomic import behind, cut


def system() -> Any:
    """The operating system's locks; None where it has none (Windows)."""
    try:
        return import_module("fcntl")
    except ImportError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside it `path` is this caller's alone; BlockingIOError where it is another's.

    The lock is on a file beside it, `path`.lock, because `path` itself is replaced whenever it is
    written; a symbolic link has its file's lock. Where the system has no flock (Windows), nothing
    is locked.
    """
    fcntl = system()
    if fcntl is None:
        yield
        return
    target = behind(path)
    beside = target.with_name(f"{cut(target.name)}.lock")
    while True:
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BlockingIOError(
                f"{path} is in use by another training: give each a checkpoint of its own"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        if is_still(beside, handle):
            break
        os.close(handle)  # its last holder unlinked it while we came
    try:
        yield
    finally:
        with suppress(OSError):
            beside.unlink()
        os.close(handle)


def is_still(beside: Path, handle: int) -> bool:
    """Whether the file of that name is the one that is open."""
    try:
        return os.path.samestat(os.stat(beside), os.fstat(handle))
    except OSError:
        return False
