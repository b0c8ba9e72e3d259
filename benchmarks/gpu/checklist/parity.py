"""Parity with NumPy as checks: each training of `benchmarks.parity` in each float is one."""

from collections.abc import Callable

from benchmarks.gpu.checklist.check import Check, Result, Setting, held_to
from benchmarks.parity import CASES, Case, Difference, compare
from xpmlp.devices.namespace import Place

DTYPES = ("float64", "float32")


def difference(place: Place, case: Case, dtype: str, seed: int) -> Difference:
    """The training on NumPy and at `place`, from the weights and orders of `seed`."""
    return compare(place, case._replace(arguments={**case.arguments, "seed": seed}), dtype)


def against_numpy(case: Case, dtype: str) -> Callable[[Setting], Result]:
    def check(on: Setting) -> Result:
        found = difference(on.place, case, dtype, on.seed)
        detail = f"loss {found.here:.6g} on NumPy, {found.there:.6g} here"
        losses = {"compared": found.what, "loss_numpy": found.here, "loss": found.there}
        return held_to(found.largest, found.allowed, detail, **losses)

    return check


def checks(dtype: str) -> tuple[Check, ...]:
    return tuple(Check(4, f"{case.name}, {dtype}", against_numpy(case, dtype)) for case in CASES)


CHECKS = tuple(check for dtype in DTYPES for check in checks(dtype))
