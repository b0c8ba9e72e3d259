"""Files that are whole or not there: written beside the target, then moved over it."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

SHORT = 200  # bytes of a name that endings of ours may follow
TOKEN = 6  # random bytes in the name of a file that is being written


def file_at(path: Any) -> Path:
    """The path of a file; ValueError where it is none, or names none."""
    try:
        found = Path(path)
    except TypeError:
        raise ValueError(f"path must be a path; got {path!r}") from None
    if not found.name or "\0" in found.name:
        raise ValueError(f"path must name a file; got {os.fspath(path)!r}")
    return found


def behind(path: str | os.PathLike[str]) -> Path:
    """The path that symbolic links lead to: a link stays, and what it leads to is written."""
    return Path(os.path.realpath(path))


def cut(name: str) -> str:
    """A file's name, to which an ending may be added: systems allow 255 bytes. A long one is its
    beginning and a digest of it all."""
    data = os.fsencode(name)
    if len(data) <= SHORT:
        return name
    return f"{data[:SHORT].decode(errors='ignore')}.{hashlib.sha256(data).hexdigest()[:16]}"


def is_special(path: Path) -> bool:
    """Whether a device, pipe or socket is there, which has no end and must not be replaced."""
    return path.exists() and not (path.is_file() or path.is_dir())


def contents(path: Any) -> bytes:
    """What stands in a file; OSError with the path, ValueError for what has no end, as a device."""
    found = file_at(path)
    if is_special(found):
        raise ValueError(f"{found} is no file")
    return found.read_bytes()


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one.

    Raises OSError with the path; the old file is then intact and nothing is left beside it.
    ValueError for a device or a pipe.
    """
    target = behind(file_at(path))
    if is_special(target):
        raise ValueError(f"{path} is no file")
    # a name of its own: threads and processes may write the same target at once
    beside = target.with_name(f".{cut(target.name)}.{secrets.token_hex(TOKEN)}.part")
    try:
        with open(beside, "wb") as file:  # open() applies the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):  # the user knows this name alone
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    sync_directory(target.parent)


def writable(path: str | os.PathLike[str], what: str = "") -> None:
    """ValueError where it can be told beforehand that no file can be written at `path`.

    what: is to be written, in words before the path.
    """
    target = behind(path)
    folder = target.parent
    if target.is_dir():
        raise ValueError(f"{what}{path} is a directory: give a file")
    if is_special(target):
        raise ValueError(f"{what}{path} is no file")
    for parent in (Path(path).parent, folder):
        if not parent.is_dir():
            raise ValueError(f"{what}{path} cannot be written: there is no folder {parent}")
    # a file is written beside it first
    if not all(os.access(one, os.W_OK) for one in (folder, target) if one.exists()):
        raise ValueError(f"{what}{path} cannot be written: no permission")


def sync_directory(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove what a process that was killed while it wrote `path` has left beside it.

    No other may be writing `path` at that time.
    """
    target = behind(path)
    start = f".{cut(target.name)}."
    if not target.parent.is_dir():
        return
    for beside in target.parent.iterdir():
        middle = beside.name.removeprefix(start).removesuffix(".part")
        if beside.name == f"{start}{middle}.part" and len(middle) == 2 * TOKEN:
            with suppress(OSError):
                beside.unlink()
