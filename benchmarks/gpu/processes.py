"""Processes of their own for what is checked or measured, each with a limit of time.

No library's memory, settings or faults reach another's. A child writes every row to a file the
moment that it has it: whatever ends the child, the rows before it are there.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300.0  # seconds for one process: compiling is part of it
POLL = 0.1  # seconds between two looks at a child's rows
PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG

Row = dict[str, Any]


def python_path() -> str:
    """PYTHONPATH of the children: what this process imports from, and the checkout."""
    entries = [entry for entry in sys.path if entry]
    return os.pathsep.join(entries if str(ROOT) in entries else [*entries, str(ROOT)])


def run(
    module: str,
    request: Mapping[str, Any],
    keep: Callable[[Row], object],
    *,
    limit: float = LIMIT,
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """Run `python -m benchmarks.gpu.MODULE` and pass every row that it writes to `keep` at once.

    The child and the processes that it started are killed when `limit` seconds are over. Returns
    why the child ended badly, None where it did not.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows, log = Path(folder) / "rows", Path(folder) / "log"
        rows.touch()
        command = [sys.executable, "-m", f"benchmarks.gpu.{module}", json.dumps(request), str(rows)]
        variables = {"PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1", **(environment or {})}
        with log.open("wb") as output:
            child = subprocess.Popen(
                command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            return follow(child, rows, log, keep, limit)
        finally:
            with suppress(ProcessLookupError):  # a session of its own: nothing else is in it
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def follow(
    child: subprocess.Popen[bytes],
    rows: Path,
    log: Path,
    keep: Callable[[Row], object],
    limit: float,
) -> str | None:
    """Pass a child's rows to `keep` until it ends or `limit` is over; why it ended badly."""
    deadline = time.monotonic() + limit
    with rows.open("rb") as file:
        while True:
            ended = child.poll() is not None
            late = time.monotonic() >= deadline
            for line in whole_lines(file):
                keep(json.loads(line))
            if ended or late:
                break
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL)
    if not ended:
        return f"not done after {limit:.3g} s"
    if not child.returncode:
        return None
    said = (log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]
    return f"{status(child.returncode)}: {said}"


def whole_lines(file: BinaryIO) -> list[bytes]:
    """The lines that are whole by now; the next read begins at the first that is not."""
    start = file.tell()
    lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    file.seek(start + sum(map(len, lines)))
    return lines


def status(code: int) -> str:
    """A child's exit status for a person, signals by their names."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def alone(module: str, request: Mapping[str, Any], limit: float = LIMIT) -> Row:
    """The one row of a child; {"problem": why} where it wrote none."""
    rows: list[Row] = []
    problem = run(module, request, rows.append, limit=limit)
    return rows[-1] if rows else {"problem": problem or "it wrote nothing"}


# In the child ----------------------------------------------------------------------------------


def serve(answer: Callable[[Row], Iterable[Row]]) -> None:
    """What a child does: every row of the answer to its request, written as soon as it is known."""
    end_with_parent()
    request, path = sys.argv[1:]
    with open(path, "a", encoding="utf-8") as file:
        for row in answer(json.loads(request)):
            file.write(json.dumps(row, default=plain_value) + "\n")
            file.flush()


def end_with_parent() -> None:
    """Be killed when the parent is, where the system can: a killed visit leaves nothing running."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def plain_value(value: Any) -> Any:
    """What JSON has no word for: NumPy's numbers as numbers, anything else as text."""
    try:
        return value.item()
    except (AttributeError, ValueError):
        return str(value)
