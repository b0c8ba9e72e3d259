"""Checks of parity with NumPy: one per training of `benchmarks.parity` and dtype."""

from collections.abc import Callable

from benchmarks.gpu.checklist.check import Check, Result, Setting, check_bound
from benchmarks.parity import CASES, Case, Difference, compare
from xpmlp.devices.namespace import Place

DTYPES = ("float64", "float32")


def difference(place: Place, case: Case, dtype: str, seed: int) -> Difference:
    """The difference of a training on NumPy and on `place`, with this seed."""
    return compare(place, case._replace(arguments={**case.arguments, "seed": seed}), dtype)


def against_numpy(case: Case, dtype: str) -> Callable[[Setting], Result]:
    def check(env: Setting) -> Result:
        result = difference(env.place, case, dtype, env.seed)
        detail = f"loss {result.here:.6g} on NumPy, {result.there:.6g} here"
        losses = {"compared": result.what, "loss_numpy": result.here, "loss": result.there}
        return check_bound(result.largest, result.allowed, detail, **losses)

    return check


def checks(dtype: str) -> tuple[Check, ...]:
    return tuple(Check(4, f"{case.name}, {dtype}", against_numpy(case, dtype)) for case in CASES)


CHECKS = tuple(check for dtype in DTYPES for check in checks(dtype))
