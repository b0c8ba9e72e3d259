"""The checklist, and a process that runs some of its checks on one device.

A sticky fault of the device, which every later call reports too, ends the process; the remaining
checks get rows that say so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from benchmarks.gpu import kernel_profile, step_graph
from benchmarks.gpu.checklist import fusion, machine, memory, products, steps, times, trainings
from benchmarks.gpu.checklist.check import FAULT, Check, Row, Setting, perform
from benchmarks.gpu.processes import serve
from xpmlp.devices import cuda
from xpmlp.devices.namespace import Place
from xpmlp.devices.words import place_for
from xpmlp.names import nearest

NOT_RUN = "not run"
REGISTRY = "benchmarks.gpu.checks"
MODULES = (
    machine, products, times, trainings, memory, fusion, steps,
    step_graph, kernel_profile,
)  # fmt: skip
CHECKS = tuple(
    sorted((check for module in MODULES for check in module.CHECKS), key=lambda check: check.number)
)


def select(checks: Sequence[Check], text: str | None) -> list[Check]:
    """The checks of these names or numbers; ValueError names an unknown one and the nearest."""
    if text is None:
        return list(checks)
    words = [word.strip() for word in text.split(",") if word.strip()]
    names = [check.name for check in checks]
    known = {*names, *(str(check.number) for check in checks)}
    for word in words:
        if word not in known:
            hint = nearest(word, names)
            raise ValueError(f"check {word!r} is unknown{hint} Known: {', '.join(names)}")
    if not words:
        raise ValueError(f"--only names no check. Known: {', '.join(names)}")
    return [check for check in checks if {check.name, str(check.number)} & set(words)]


def device_error(place: Place) -> str | None:
    """The error of a trivial kernel on a broken device; None if it runs."""
    if not place.name.startswith("gpu:"):
        return None
    try:
        cuda.run_kernel(place.device.id)
    except Exception as error:  # after any error nothing else would run either
        return f"{type(error).__name__}: {cuda.first_line(error)}"
    return None


def not_run_row(check: Check, reason: str) -> Row:
    return Row(check.number, check.name, "", "", NOT_RUN, reason, 0.0, {})


def until_device_fault(
    checks: Sequence[Check],
    setting: Setting,
    device_error: Callable[[Place], str | None] = device_error,
) -> Iterator[Row]:
    """Run checks until one leaves the device broken; yields rows for the remaining ones too."""
    for index, check in enumerate(checks):
        (row,) = perform([check], setting)
        error = device_error(setting.place)
        if error is None:
            yield row
            continue
        detail = f"device fault: {row.detail if row.verdict == FAULT else error}"
        yield row._replace(verdict=FAULT, detail=detail)
        yield from (not_run_row(later, "device fault") for later in checks[index + 1 :])
        return


def answer(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The rows of a request: registry (a module with CHECKS), names, device, seed, quick."""
    checks: Sequence[Check] = import_module(request["registry"]).CHECKS
    by_name = {check.name: check for check in checks}
    place = place_for(request["device"])
    setting = Setting(place, request["seed"], request["quick"])
    for row in until_device_fault([by_name[name] for name in request["names"]], setting):
        yield row._asdict() | {"figures": dict(row.figures)}


if __name__ == "__main__":
    serve(answer)
