"""Measuring in a process of its own, so that no library's memory or settings reach another's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900  # for one contender: compiling is part of it


def alone(module: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What `python -m benchmarks.gpu.MODULE` prints; {"problem": why} where it prints nothing."""
    path = os.pathsep.join([*filter(None, sys.path), str(ROOT)])  # ours as it is installed
    command = [sys.executable, "-m", f"benchmarks.gpu.{module}", json.dumps(asked)]
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {SECONDS} s"}
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {"problem": f"exit status {done.returncode}: {said}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
