"""Results in JSON files that are complete at any time, however the command ends."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.processes import plain_value
from xpmlp.storage.atomic import write_atomic

LOCK = threading.Lock()  # one writer at a time: a kill leaves at most one temporary file


class ResultFile:
    """A JSON object and its file, which is rewritten after every change."""

    def __init__(self, path: Path | None, content: dict[str, Any]) -> None:
        """path: None for no file."""
        self.path, self.content = path, content
        with self.change():
            pass

    @contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """The content, for one thread at a time to change; the file is written afterwards."""
        with LOCK:
            yield self.content
            if self.path is not None:
                write_atomic(self.path, f"{self.text()}\n".encode())

    def text(self) -> str:
        return json.dumps(self.content, indent=1, default=plain_value)
