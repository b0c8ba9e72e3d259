"""Every hostile input on every surface that takes it: the list that tests and programs go by."""

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
    """A hostile input and the call that gets it."""

    surface: Surface
    call: str
    case: Case

    @property
    def id(self) -> str:
        return f"{self.surface} {self.call}, {self.case.row}: {self.case.id}"

    def tried(self) -> tuple[str, str]:
        """The verdict, and why it is not what was wanted ("" where it is)."""
        if self.surface == "command line":
            return command.tried(self.case, self.call)
        return surfaces.tried(self.case, self.surface, self.call)

    def theirs(self) -> tuple[str, str]:
        """The verdict on scikit-learn's MLP; a table is read with pandas for it."""
        if self.surface == "command line":
            return pandas_user.tried(self.case, self.call)
        return surfaces.tried(self.case, surfaces.THEIRS, self.call)


TRIALS = [
    Trial(surface, call, case)
    for surface in SURFACES[:2]
    for case in ARRAYS
    if surface in case.surfaces
    for call in surfaces.calls(case, surface)
] + [Trial(SURFACES[2], case.calls[0], case) for case in tables.CASES]


def counted() -> dict[str, Counter[str]]:
    """How many inputs, each counted once, there are of every row on every surface."""
    found: dict[str, Counter[str]] = {row: Counter() for row in ROWS}
    for surface in SURFACES:
        for case in [*ARRAYS, *tables.CASES]:
            if surface in case.surfaces:
                found[case.row][surface] += 1
    return found
