"""The cache of compiled glue and kernels, shared by processes and runs."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def folder() -> Path:
    """$STANDIN_CACHE, or standin-card in the user's cache directory."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("STANDIN_CACHE") or home / "standin-card")
    path.mkdir(parents=True, exist_ok=True)
    return path


def written_once(path: Path, build: Callable[[Path], object]) -> Path:
    """The file or folder at `path`, built under another name if it is missing: two processes may
    build it at the same time, and neither sees an unfinished one."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as directory:
            unfinished = Path(directory) / path.name
            build(unfinished)
            with suppress(OSError):
                unfinished.replace(path)  # a folder does not replace one that another process built
        if not path.exists():
            raise FileNotFoundError(path)
    return path
