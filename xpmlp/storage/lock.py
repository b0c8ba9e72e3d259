"""A lock on a file by the operating system, which releases it when its process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from xpmlp.storage.atomic import resolve_symlink, shorten_name


def import_fcntl() -> Any:
    """The module of file locks; None where the system has none (Windows)."""
    try:
        return import_module("fcntl")
    except ImportError:
        return None


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of `path`; BlockingIOError if another holds it.

    The lock is on the file `path`.lock, because `path` itself is replaced whenever it is written;
    a symbolic link shares the lock of its target. Where the system has no flock (Windows), nothing
    is locked.
    """
    fcntl = import_fcntl()
    if fcntl is None:
        yield
        return
    target = resolve_symlink(path)
    lock = target.with_name(f"{shorten_name(target.name)}.lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BlockingIOError(
                f"{path} is in use by another training: give each its own checkpoint"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        if is_same_file(lock, handle):
            break
        os.close(handle)  # its last holder unlinked it between open and flock
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(handle)


def is_same_file(path: Path, handle: int) -> bool:
    """Whether `path` names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False
