"""One contender on one work, in a process of its own: does it compute the same, and how fast."""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.checklist.check import distance
from benchmarks.gpu.checklist.products import PRODUCT_ALLOWED, TF32_ALLOWED, TF32_SEEN
from benchmarks.gpu.contenders import LIBRARIES, OWN
from benchmarks.gpu.processes import serve
from benchmarks.gpu.works import WORKS, Work, problem

SAME = 1e-8  # relative, float64: twenty steps of sums in another order


class Asked(NamedTuple):
    """What a process is to measure."""

    library: str  # one of LIBRARIES
    variant: str
    work: str  # the name of one of WORKS
    device: str  # "gpu:0"
    seed: int
    rounds: int
    quick: bool
    reference: str  # the file of the weights that the check asks for, (networks, numbers)

    def made(self) -> Work:
        work = next(work for work in WORKS if work.name == self.work)
        return work.quick() if self.quick else work


def reference(work: Work, seed: int) -> np.ndarray:
    """The weights after the check's steps, by our own math on NumPy, in float64."""
    own = import_module(f"benchmarks.gpu.{OWN}")
    found: np.ndarray = own.learnt(problem(work.checked(), "float64", seed, shuffle=False),
                                   "eager", "cpu")  # fmt: skip
    return found


def off(library: Any, asked: Asked, wanted: np.ndarray) -> float:
    """How far the contender's weights are from those wanted, relative to the largest of them."""
    given = problem(asked.made().checked(), "float64", asked.seed, shuffle=False)
    found = library.learnt(given, asked.variant, asked.device)
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


def product_off(library: Any, asked: Asked) -> float:
    """How far a product of float32 is from float64: it tells TF32 from full precision."""
    rng = np.random.default_rng([asked.seed, 2])
    a, b = (rng.standard_normal(shape).astype("float32") for shape in ((128, 784), (784, 512)))
    return distance(library.product(a, b, asked.made().precision, asked.device), a, b)


def measure(asked: Asked, library: Any, row: dict[str, Any]) -> None:
    """Fill the contender's row, without times where it computes something else."""
    work = asked.made()
    row |= {"version": library.VERSION, "clock": library.CLOCK}
    row["off"] = off(library, asked, np.load(asked.reference))
    if not row["off"] <= SAME:
        row["problem"] = f"computes something else: the weights are off by {row['off']:.1e}"
        return
    row["product_off"] = found = product_off(library, asked)
    exact = work.precision == "full"
    low, high = (0.0, PRODUCT_ALLOWED["float32"]) if exact else (TF32_SEEN, TF32_ALLOWED)
    if not low <= found <= high:
        row["problem"] = f"is not at {work.precision} precision: a product is off by {found:.1e}"
        return
    given = problem(work, "float32", asked.seed, shuffle=True)
    row |= library.times(given, asked.variant, asked.device, asked.rounds)._asdict()


def measured(asked: Asked) -> dict[str, Any]:
    """The contender's row; its "problem" says why it has no times."""
    row: dict[str, Any] = {"library": LIBRARIES[asked.library], "variant": asked.variant}
    try:
        measure(asked, import_module(f"benchmarks.gpu.{asked.library}"), row)
    except ModuleNotFoundError as error:
        row["problem"] = f"{error.name} is not installed"
    except Exception as error:  # whatever it is, the table has a row for it
        row["problem"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return row


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [measured(Asked(**request))]


if __name__ == "__main__":
    serve(answer)
