"""Where compiled glue and kernels are kept, for all processes of a run and for the next run."""

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
    """The file or folder at `path`, built under another name where it is lacking: two processes
    may build it at the same time, and neither sees half of it."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as own:
            unfinished = Path(own) / path.name
            build(unfinished)
            with suppress(OSError):
                unfinished.replace(path)  # a folder is not put over one that another process built
        if not path.exists():
            raise FileNotFoundError(path)
    return path
