"""Run checks and measurements in child processes with a time limit.

So no library's memory, settings or faults affect another. A child writes each row to a file at
once: however the child ends, its rows so far are available.
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
LIMIT = 300.0  # seconds per process, including compilation
POLL = 0.1  # seconds between two reads of a child's rows
PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG

Row = dict[str, Any]


def python_path() -> str:
    """PYTHONPATH of the children: that of this process, and the checkout."""
    entries = [entry for entry in sys.path if entry]
    return os.pathsep.join(entries if str(ROOT) in entries else [*entries, str(ROOT)])


def run(
    module: str,
    request: Mapping[str, Any],
    on_row: Callable[[Row], object],
    *,
    limit: float = LIMIT,
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """Run `python -m benchmarks.gpu.MODULE` and pass every row that it writes to `on_row` at once.

    The child and the processes that it started are killed after `limit` seconds. Returns why the
    child failed, None if it did not.
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
            return follow(child, rows, log, on_row, limit)
        finally:
            with suppress(ProcessLookupError):  # only the child and its children are in its session
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def follow(
    child: subprocess.Popen[bytes],
    rows: Path,
    log: Path,
    on_row: Callable[[Row], object],
    limit: float,
) -> str | None:
    """Pass a child's rows to `on_row` until it ends or `limit` is over; return why it failed."""
    deadline = time.monotonic() + limit
    with rows.open("rb") as file:
        while True:
            ended = child.poll() is not None
            timed_out = time.monotonic() >= deadline
            for line in whole_lines(file):
                on_row(json.loads(line))
            if ended or timed_out:
                break
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL)
    if not ended:
        return f"not done after {limit:.3g} s"
    if not child.returncode:
        return None
    message = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
    return f"{status(child.returncode)}: {message}"


def whole_lines(file: BinaryIO) -> list[bytes]:
    """The complete lines so far; the next read starts at the first incomplete one."""
    start = file.tell()
    lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    file.seek(start + sum(map(len, lines)))
    return lines


def status(code: int) -> str:
    """A child's exit status as text, signals by name."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def run_for_row(module: str, request: Mapping[str, Any], limit: float = LIMIT) -> Row:
    """The last row of a child; {"problem": reason} if it wrote none."""
    rows: list[Row] = []
    problem = run(module, request, rows.append, limit=limit)
    return rows[-1] if rows else {"problem": problem or "it wrote nothing"}


# In the child ----------------------------------------------------------------------------------


def serve(answer: Callable[[Row], Iterable[Row]]) -> None:
    """The main function of a child: write each row of the answer to its request at once."""
    end_with_parent()
    request, path = sys.argv[1:]
    with open(path, "a", encoding="utf-8") as file:
        for row in answer(json.loads(request)):
            file.write(json.dumps(row, default=plain_value) + "\n")
            file.flush()


def end_with_parent() -> None:
    """End this process when its parent is killed, if the system supports it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def plain_value(value: Any) -> Any:
    """Values that JSON cannot represent: NumPy scalars as numbers, anything else as text."""
    try:
        return value.item()
    except (AttributeError, ValueError):
        return str(value)
