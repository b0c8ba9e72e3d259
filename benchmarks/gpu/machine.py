"""What the machine and its GPU are, asked in a process of its own: the caller stays off the GPU."""

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
HEADER = ("xpmlp", "commit", "date", "command", *Device._fields, "machine")  # of every result


def answer(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Parts of one row: the device's name or an error, the card, what `xpmlp doctor` says."""
    try:
        place = place_for(request["device"])
    except cuda.GPUUnavailableError as error:
        yield {"error": str(error)}
        return
    yield {"device": place.name, "machine": {"name": "unknown"}}
    try:
        yield {"machine": identity(place)}
    except Exception as error:  # a version that cannot be asked for is no reason to check nothing
        import cupy

        why = f"{type(error).__name__}: {cuda.first_line(error)}"
        about = {"cupy": cupy.__version__, "problem": why}
        yield {"machine": cuda.gpu_properties(place.device.id) | about}
    yield {"doctor": doctor.gpu(place.device.id)}


def examine(word: str) -> dict[str, Any]:
    """device, machine and doctor of a device word; RuntimeError where no GPU can be used."""
    found: dict[str, Any] = {}
    problem = processes.run("machine", {"device": word}, found.update, limit=LIMIT)
    if "error" in found:
        raise RuntimeError(found["error"])
    if "device" not in found:
        raise RuntimeError(f"the GPU could not be examined: {problem}")
    return {"doctor": {"problem": problem}, **found}


def checked(word: str, seed: int) -> None:
    """ValueError where the arguments that all commands have are not allowed."""
    if seed < 0:
        raise ValueError(f"--seed must be at least 0; got {seed}")
    if not word.startswith(("gpu", "cuda")):
        raise ValueError(f"--device must be gpu or gpu:N; got {word!r}")


def header(device: Device, about: dict[str, Any], command: str) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "xpmlp": __version__,
        "commit": commit(processes.ROOT),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        **device._asdict(),
        "machine": about["machine"],
    }


if __name__ == "__main__":
    processes.serve(answer)
