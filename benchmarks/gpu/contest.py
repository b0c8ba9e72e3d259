"""Contenders measured one after the other, each in a process with a limit, as time allows."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import processes, report
from benchmarks.gpu.contender import Asked, reference
from benchmarks.gpu.contenders import (
    ABSENT,
    LIBRARIES,
    PACKAGES,
    Contender,
    Pair,
    estimate,
)
from benchmarks.gpu.goals import judged
from benchmarks.gpu.groups import Device
from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.works import Work

HASTE = 1 / 20  # of its estimate is what a contender takes in a quick run


class Contest:
    """The measurements of a result, which has "works", "left_out" and "goals"."""

    def __init__(
        self,
        result: ResultFile,
        device: Device,
        folder: Path,
        *,
        limit: float = processes.LIMIT,
        deadline: float = math.inf,
        show: Callable[[str], object] = print,
    ) -> None:
        """folder: for the weights that all must come to. limit: seconds for one contender.
        deadline: of time.monotonic(), for all."""
        self.result, self.device, self.folder = result, device, folder
        self.limit, self.deadline, self.show = limit, deadline, show
        with result.change() as content:
            content |= {"works": [], "left_out": [], "goals": judged({"works": []})}

    def measure(self, pairs: Sequence[Pair]) -> None:
        """Measure each pair for which there is time, every row kept as soon as it is there."""
        shown = None
        for work, contender in pairs:
            needed = estimate(work, contender) * (HASTE if self.device.quick else 1)
            if self.deadline - time.monotonic() < needed:
                with self.result.change() as content:
                    content["left_out"].append(f"{work.name}: {contender.name}")
                continue
            made = work.quick() if self.device.quick else work
            entry = self.entry(made)
            if work is not shown:
                self.show(f"\n{work.name}" if entry["rows"] else report.head(made))
                shown = work
            if not contender.installed:
                self.absent(entry, contender)
                continue
            row = self.row(made, contender)
            with self.result.change() as content:
                entry["rows"].append(row)
                content["goals"] = judged(content)
            self.show(report.line(row, report.own(entry["rows"])))

    def entry(self, work: Work) -> dict[str, Any]:
        """The work's part of the result."""
        with self.result.change() as content:
            entry: dict[str, Any]
            for entry in content["works"]:
                if entry["name"] == work.name:
                    return entry
            entry = {**work._asdict(), "title": work.title, "rows": []}
            content["works"].append(entry)
            return entry

    def absent(self, entry: dict[str, Any], contender: Contender) -> None:
        """One row for a library that is not installed."""
        library = LIBRARIES[contender.library]
        if all(row["library"] != library for row in entry["rows"]):
            problem = f"{PACKAGES[contender.library]} is not installed"
            row = {"library": library, "variant": ABSENT, "problem": problem}
            with self.result.change():
                entry["rows"].append(row)
            self.show(report.line(row, {}))

    def row(self, work: Work, contender: Contender) -> dict[str, Any]:
        """What a contender's process hands over, or why there is nothing."""
        named = {"library": LIBRARIES[contender.library], "variant": contender.variant}
        weights = self.folder / f"{work.name}.npy"
        if not weights.exists():
            np.save(weights, reference(work, self.device.seed))
        asked = Asked(
            contender.library, contender.variant, work.name, self.device.device, self.device.seed,
            3 if self.device.quick else 9, self.device.quick, str(weights),
        )  # fmt: skip
        limit = min(self.limit, self.deadline - time.monotonic())
        return named | processes.alone("contender", asked._asdict(), limit)
