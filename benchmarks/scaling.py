#!/usr/bin/env python
"""How time and memory of a training on the CPU grow with rows, width, depth and members.

    python benchmarks/scaling.py                          # two decades of each: some minutes
    python benchmarks/scaling.py --quick --json
    python benchmarks/scaling.py --plot scaling.png

Times are of an epoch of a training under way, sizes taken in turn, the fastest of several rounds.
Per row they may differ by a factor of RATIO over all numbers of rows. Memory is the peak of a
process that makes its rows and trains, beyond one that only imports: at most the rows and their
targets, WINDOW, STATES times the parameters and two batches of activations.

Exit status: 0 all bounds hold, 1 one is broken, 2 a wrong argument.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu.ours import Population, Training
from benchmarks.cpu.problems import Problem, Shape, make_data
from benchmarks.cpu.worker import calibrate
from xpmlp.recording import numba_writer as compiled

RATIO = 1.5  # of the slowest row to the fastest
WINDOW = 64_000_000  # bytes
STATES = 6  # parameters, gradient, two slots of Adam's, the kept ones, and one to work with
FLOAT = 4  # bytes of a float32
IMPORTS = "imports"  # the process that others are compared with


class Size(NamedTuple):
    """A training: 20 columns, `depth` hidden layers of `width`, one output."""

    rows: int
    width: int
    depth: int
    members: int
    batch: int = 128

    @property
    def shape(self) -> Shape:
        sizes = (20, *[self.width] * self.depth, 1)
        return Shape("", sizes, "relu", "squared_error", self.batch, -(-self.rows // self.batch))

    @property
    def parameters(self) -> int:
        """Of all members."""
        return self.members * sum(
            (layer.n_in + 1) * layer.n_out for layer in self.shape.spec.layers
        )

    @property
    def limit(self) -> int:
        """Bytes that a process may hold beyond its imports."""
        data = self.rows * (20 + 1)
        activations = self.members * self.batch * sum(self.shape.sizes)
        return WINDOW + FLOAT * (data + STATES * self.parameters + 2 * activations)


DECADES = (1, 3, 10, 30, 100)
AXES = {
    "rows": [Size(10_000 * n, 32, 1, 1) for n in DECADES],
    "width": [Size(512, 40 * n, 2, 1) for n in DECADES],
    "depth": [Size(1024, 32, n, 1) for n in DECADES],
    "members": [Size(1024, 32, 1, n) for n in DECADES],
}


def times(sizes: list[Size], rounds: int, seconds: float) -> list[float]:
    """Seconds per row, of all members, for each size."""
    contenders: list[Training] = []
    for size in sizes:
        data = make_data(size.shape, size.rows, "float32")
        problem = Problem(size.shape, *data, size.members, "adam", True, "cpu")
        contenders.append(Population(problem) if size.members > 1 else Training(problem))
    counts = [calibrate(contender, seconds) for contender in contenders]
    fastest = [float("inf")] * len(sizes)
    for _ in range(rounds):  # in turn: what else the machine does meets all of them
        for i, (contender, count) in enumerate(zip(contenders, counts, strict=True)):
            fastest[i] = min(fastest[i], contender.seconds(count) / count)
    return [took / size.rows for took, size in zip(fastest, sizes, strict=True)]


def peak(size: Size | None) -> int:
    """The most bytes that this process holds: after `train` of that size, or its imports."""
    from xpmlp import train

    if compiled.available():
        import numba

        numba.njit(lambda x: x)(1.0)  # what compiles is imported by the first call

    if size is not None:
        X = np.random.default_rng(0).standard_normal((size.rows, 20), dtype=np.float32)
        members = size.members if size.members > 1 else None
        train(
            size.shape.spec, X, X[:, 0].copy(), epochs=2, batch_size=size.batch, members=members,
            device="cpu",
        )  # fmt: skip
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_elsewhere(size: Size | None) -> int:
    """`peak` of a process of its own."""
    told = IMPORTS if size is None else json.dumps(size)
    child = [sys.executable, __file__, "--peak", told]
    return int(subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measured(axes: dict[str, list[Size]], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each size of each axis with its time, and the memory of the first and the last."""
    # memory first: a process's peak begins with what the one that started it holds
    imports = peak_elsewhere(None)
    ends = {size for sizes in axes.values() for size in (sizes[0], sizes[-1])}
    added = {size: peak_elsewhere(size) - imports for size in ends}
    for axis, sizes in axes.items():
        for size, per_row in zip(sizes, times(sizes, options.rounds, options.seconds), strict=True):
            row = {"axis": axis, **size._asdict(), "parameters": size.parameters}
            row |= {"per_row": per_row, "per_row_and_parameter": per_row / size.parameters}
            if size in added:
                row |= {"added": added[size], "limit": size.limit}
            yield row


def broken(found: list[dict[str, Any]]) -> list[str]:
    """The bounds that do not hold, a line each."""
    told = []
    per_row = [row["per_row"] for row in found if row["axis"] == "rows"]
    if per_row and max(per_row) > RATIO * min(per_row):
        told.append(f"rows: {max(per_row) / min(per_row):.2f} x the fastest row, at most {RATIO}")
    told += [
        f"{row['axis']} {row[row['axis']]:,}: {row['added'] / 1e6:,.0f} MB beyond the imports, "
        f"at most {row['limit'] / 1e6:,.0f}"
        for row in found
        if row.get("added", 0) > row.get("limit", 0)
    ]
    return told


def line(row: dict[str, Any]) -> str:
    memory = ""
    if "added" in row:
        memory = f"{row['added'] / 1e6:>9,.0f} {row['limit'] / 1e6:>9,.0f}"
    return (
        f"{row['axis']:<8} {row[row['axis']]:>9,} {row['parameters']:>11,} "
        f"{row['per_row'] * 1e6:>10.3f} {row['per_row_and_parameter'] * 1e12:>12,.1f} {memory}"
    ).rstrip()


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Time per row and parameter over each axis, both in decades."""
    from xpmlp.devices.extras import import_extra

    import_extra("matplotlib", "table")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for name in AXES:
        rows = [row for row in found if row["axis"] == name]
        sizes = [row[name] / rows[0][name] for row in rows]
        axis.loglog(sizes, [row["per_row_and_parameter"] for row in rows], marker="o", label=name)
    axis.set_xlabel("times the smallest size")
    axis.set_ylabel("seconds per row and parameter")
    axis.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", default=5, type=int, help="the fastest of so many counts (5)")
    parser.add_argument("--seconds", default=0.3, type=float, help="that a round takes (0.3)")
    parser.add_argument("--quick", action="store_true", help="a decade of each, two short rounds")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the picture there")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        size = None if options.peak == IMPORTS else Size(*json.loads(options.peak))
        print(peak(size))
        return 0
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1, and --seconds more than 0")
    if options.quick:
        options.rounds, options.seconds = 2, 0.05
    out = sys.stderr if options.json else sys.stdout
    print(f"{'':<8} {'size':>9} {'parameters':>11} {'us/row':>10} {'ps/row/param':>12} "
          f"{'MB added':>9} {'at most':>9}", file=out)  # fmt: skip
    found = []
    axes = {axis: sizes[:3] for axis, sizes in AXES.items()} if options.quick else AXES
    for row in measured(axes, options):
        found.append(row)
        print(line(row), file=out, flush=True)
    told = broken(found)
    for bound in told:
        print(f"broken: {bound}", file=out)
    if options.plot:
        plot(found, options.plot)
    if options.json:
        print(json.dumps({"found": found, "broken": told}))
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
