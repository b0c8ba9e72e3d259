"""Identify the machine and its GPU, in another process so that the caller does not use the GPU."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from benchmarks.gpu import processes
from benchmarks.gpu.checklist.machine import commit, identity
from benchmarks.gpu.groups import Device
from xpmlp import __version__
from xpmlp.devices import cuda, doctor
from xpmlp.devices.words import place_for

LIMIT = 120.0  # seconds: the first kernel is compiled, and cuBLAS loaded
HEADER = ("xpmlp", "commit", "date", "command", *Device._fields, "machine")  # keys of every result


def answer(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Parts of one row: the device's name or an error, the card, the report of `xpmlp doctor`."""
    try:
        place = place_for(request["device"])
    except cuda.GPUUnavailableError as error:
        yield {"error": str(error)}
        return
    yield {"device": place.name, "machine": {"name": "unknown"}}
    try:
        yield {"machine": identity(place)}
    except Exception as error:  # a version that cannot be read must not stop the checks
        import cupy

        problem = f"{type(error).__name__}: {cuda.first_line(error)}"
        details = {"cupy": cupy.__version__, "problem": problem}
        yield {"machine": cuda.gpu_properties(place.device.id) | details}
    yield {"doctor": doctor.gpu(place.device.id)}


def examine(word: str) -> dict[str, Any]:
    """device, machine and doctor of a device word; RuntimeError if no GPU can be used."""
    details: dict[str, Any] = {}
    problem = processes.run("machine", {"device": word}, details.update, limit=LIMIT)
    if "error" in details:
        raise RuntimeError(details["error"])
    if "device" not in details:
        raise RuntimeError(f"the GPU could not be examined: {problem}")
    return {"doctor": {"problem": problem}, **details}


def validate_arguments(word: str, seed: int) -> None:
    """Raise ValueError for an invalid --device or --seed, which all commands have."""
    if seed < 0:
        raise ValueError(f"--seed must be at least 0; got {seed}")
    if not word.startswith(("gpu", "cuda")):
        raise ValueError(f"--device must be gpu or gpu:N; got {word!r}")


def header(device: Device, details: dict[str, Any], command: str) -> dict[str, Any]:
    """The first entries of every result."""
    return {
        "xpmlp": __version__,
        "commit": commit(processes.ROOT),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        **device._asdict(),
        "machine": details["machine"],
    }


if __name__ == "__main__":
    processes.serve(answer)
