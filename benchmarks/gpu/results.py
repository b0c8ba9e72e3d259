"""Results in files of JSON that are whole at every moment, whatever ends the command."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.processes import plain_value
from xpmlp.storage.atomic import write_atomic

LOCK = threading.Lock()  # one writer at a time: a kill leaves one temporary file at most


class ResultFile:
    """A JSON object and the file that it is kept in, written anew after every change."""

    def __init__(self, path: Path | None, content: dict[str, Any]) -> None:
        """path: None keeps it in memory alone."""
        self.path, self.content = path, content
        with self.change():
            pass

    @contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """The content, to be changed by one thread at a time; the file is written afterwards."""
        with LOCK:
            yield self.content
            if self.path is not None:
                write_atomic(self.path, f"{self.text()}\n".encode())

    def text(self) -> str:
        return json.dumps(self.content, indent=1, default=plain_value)
