"""Atomic writes: to a temporary file in the same folder, which then replaces the target."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 200  # leaves room for the suffixes that are added to a file name
TOKEN_BYTES = 6  # random bytes in the name of a temporary file


def to_path(path: Any) -> Path:
    """`path` as a Path; ValueError if it is not a path or names no file."""
    try:
        file = Path(path)
    except TypeError:
        raise ValueError(f"path must be a path; got {path!r}") from None
    if not file.name or "\0" in file.name:
        raise ValueError(f"path must name a file; got {os.fspath(path)!r}")
    return file


def resolve_symlink(path: str | os.PathLike[str]) -> Path:
    """The target of a symbolic link: a write replaces the target and keeps the link."""
    return Path(os.path.realpath(path))


def shorten_name(name: str) -> str:
    """A file name that leaves room for a suffix (systems allow 255 bytes): of a long name the
    beginning and a digest."""
    data = os.fsencode(name)
    if len(data) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[:MAX_NAME_BYTES].decode(errors='ignore')}.{digest}"


def is_special(path: Path) -> bool:
    """Whether `path` is a device, pipe or socket: it may be endless and must not be replaced."""
    return path.exists() and not (path.is_file() or path.is_dir())


def read_bytes(path: Any) -> bytes:
    """The contents of a file; OSError with the path, ValueError for a device or a pipe."""
    file = to_path(path)
    if is_special(file):
        raise ValueError(f"{file} is not a regular file")
    return file.read_bytes()


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    Raises OSError with the path; the old file is then intact and the temporary one removed.
    ValueError for a device or a pipe.
    """
    target = resolve_symlink(to_path(path))
    if is_special(target):
        raise ValueError(f"{path} is not a regular file")
    # a unique name: threads and processes may write the same target at once
    token = secrets.token_hex(TOKEN_BYTES)
    partial = target.with_name(f".{shorten_name(target.name)}.{token}.part")
    try:
        with open(partial, "wb") as file:  # open() applies the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):  # the user knows only this path
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    sync_directory(target.parent)


def check_writable(path: str | os.PathLike[str], prefix: str = "") -> None:
    """ValueError, its message `prefix` and the path, if a file cannot be written at `path`."""
    target = resolve_symlink(path)
    folder = target.parent
    if target.is_dir():
        raise ValueError(f"{prefix}{path} is a directory: give a file")
    if is_special(target):
        raise ValueError(f"{prefix}{path} is not a regular file")
    for parent in (Path(path).parent, folder):
        if not parent.is_dir():
            raise ValueError(f"{prefix}{path} cannot be written: folder {parent} does not exist")
    # the folder too: the temporary file is written there
    if not all(os.access(p, os.W_OK) for p in (folder, target) if p.exists()):
        raise ValueError(f"{prefix}{path} cannot be written: no permission")


def sync_directory(folder: Path) -> None:
    """Flush a rename in `folder` to the disk, where the system supports it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_partial_files(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of processes that were killed while writing `path`.

    No other process may be writing `path` at the same time.
    """
    target = resolve_symlink(path)
    prefix = f".{shorten_name(target.name)}."
    if not target.parent.is_dir():
        return
    for file in target.parent.iterdir():
        token = file.name.removeprefix(prefix).removesuffix(".part")
        if file.name == f"{prefix}{token}.part" and len(token) == 2 * TOKEN_BYTES:
            with suppress(OSError):
                file.unlink()
