"""Measure contenders one after another, each in a process with a time limit."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import processes, report
from benchmarks.gpu.contender import Request, reference_weights
from benchmarks.gpu.contenders import (
    ABSENT,
    LIBRARIES,
    PACKAGES,
    Contender,
    Pair,
    estimate,
)
from benchmarks.gpu.goals import evaluate_goals
from benchmarks.gpu.groups import Device
from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.works import Work

QUICK_FACTOR = 1 / 20  # time of a contender in a quick run, relative to its estimate


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
        """folder: for the expected weights. limit: seconds per contender. deadline: of all of them,
        in time.monotonic()."""
        self.result, self.device, self.folder = result, device, folder
        self.limit, self.deadline, self.show = limit, deadline, show
        with result.change() as content:
            content |= {"works": [], "left_out": [], "goals": evaluate_goals({"works": []})}

    def measure(self, pairs: Sequence[Pair]) -> None:
        """Measure each pair for which time is left; every row is stored at once."""
        previous = None
        for work, contender in pairs:
            needed = estimate(work, contender) * (QUICK_FACTOR if self.device.quick else 1)
            if self.deadline - time.monotonic() < needed:
                with self.result.change() as content:
                    content["left_out"].append(f"{work.name}: {contender.name}")
                continue
            scaled = work.quick() if self.device.quick else work
            entry = self.entry(scaled)
            if work is not previous:
                self.show(f"\n{work.name}" if entry["rows"] else report.table_head(scaled))
                previous = work
            if not contender.installed:
                self.add_absent(entry, contender)
                continue
            row = self.measure_pair(scaled, contender)
            with self.result.change() as content:
                entry["rows"].append(row)
                content["goals"] = evaluate_goals(content)
            self.show(report.line(row, report.own_row(entry["rows"])))

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

    def add_absent(self, entry: dict[str, Any], contender: Contender) -> None:
        """Add one row for a library that is not installed."""
        library = LIBRARIES[contender.library]
        if all(row["library"] != library for row in entry["rows"]):
            problem = f"{PACKAGES[contender.library]} is not installed"
            row = {"library": library, "variant": ABSENT, "problem": problem}
            with self.result.change():
                entry["rows"].append(row)
            self.show(report.line(row, {}))

    def measure_pair(self, work: Work, contender: Contender) -> dict[str, Any]:
        """The row of a contender's process; its "problem" says why it has no times."""
        labels = {"library": LIBRARIES[contender.library], "variant": contender.variant}
        weights = self.folder / f"{work.name}.npy"
        if not weights.exists():
            np.save(weights, reference_weights(work, self.device.seed))
        request = Request(
            contender.library, contender.variant, work.name, self.device.device, self.device.seed,
            3 if self.device.quick else 9, self.device.quick, str(weights),
        )  # fmt: skip
        limit = min(self.limit, self.deadline - time.monotonic())
        return labels | processes.run_for_row("contender", request._asdict(), limit)
