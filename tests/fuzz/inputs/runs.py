"""Every hostile input on every surface that takes it, for tests and programs."""

from collections import Counter
from typing import NamedTuple

from fuzz.inputs import (
    command,
    large,
    layouts,
    pandas_user,
    saving,
    setting_cases,
    surfaces,
    tables,
    values,
)
from fuzz.inputs.case import ROWS, Case, Surface

ARRAYS = [*values.CASES, *layouts.CASES, *large.CASES, *setting_cases.CASES, *saving.CASES]
SURFACES = ("core", "estimators", "command line")


class Trial(NamedTuple):
    """A hostile input and a call with it."""

    surface: Surface
    call: str
    case: Case

    @property
    def id(self) -> str:
        return f"{self.surface} {self.call}, {self.case.row}: {self.case.id}"

    def run(self) -> tuple[str, str]:
        """The verdict, and the reason why it is not as expected ("" if it is)."""
        if self.surface == "command line":
            return command.run(self.case, self.call)
        return surfaces.run(self.case, self.surface, self.call)

    def run_sklearn(self) -> tuple[str, str]:
        """The verdict on scikit-learn's MLP, for which pandas reads a table."""
        if self.surface == "command line":
            return pandas_user.run(self.case, self.call)
        return surfaces.run(self.case, surfaces.SKLEARN, self.call)


TRIALS = [
    Trial(surface, call, case)
    for surface in SURFACES[:2]
    for case in ARRAYS
    if surface in case.surfaces
    for call in surfaces.calls(case, surface)
] + [Trial(SURFACES[2], case.calls[0], case) for case in tables.CASES]


def count_inputs() -> dict[str, Counter[str]]:
    """The number of inputs, each counted once, of every row on every surface."""
    counts: dict[str, Counter[str]] = {row: Counter() for row in ROWS}
    for surface in SURFACES:
        for case in [*ARRAYS, *tables.CASES]:
            if surface in case.surfaces:
                counts[case.row][surface] += 1
    return counts
