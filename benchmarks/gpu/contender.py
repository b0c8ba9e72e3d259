"""One contender on one work in its own process: check that it computes the same, and time it."""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.checklist.check import distance
from benchmarks.gpu.checklist.products import PRODUCT_ALLOWED, TF32_ALLOWED, TF32_LEAST
from benchmarks.gpu.contenders import LIBRARIES, OWN
from benchmarks.gpu.processes import serve
from benchmarks.gpu.works import WORKS, Work, make_problem

TOLERANCE = 1e-8  # relative, float64: twenty steps of reordered sums


class Request(NamedTuple):
    """What a process measures."""

    library: str  # one of LIBRARIES
    variant: str
    work: str  # the name of one of WORKS
    device: str  # "gpu:0"
    seed: int
    rounds: int
    quick: bool
    reference: str  # file of the expected weights, (networks, parameters)

    def find_work(self) -> Work:
        work = next(work for work in WORKS if work.name == self.work)
        return work.quick() if self.quick else work


def reference_weights(work: Work, seed: int) -> np.ndarray:
    """The weights after the check's steps, by xpmlp on NumPy in float64."""
    own = import_module(f"benchmarks.gpu.{OWN}")
    problem = make_problem(work.for_check(), "float64", seed, shuffle=False)
    weights: np.ndarray = own.trained_weights(problem, "eager", "cpu")
    return weights


def weight_error(library: Any, request: Request, expected: np.ndarray) -> float:
    """The largest error of the contender's weights, relative to the largest weight."""
    problem = make_problem(request.find_work().for_check(), "float64", request.seed, shuffle=False)
    actual = library.trained_weights(problem, request.variant, request.device)
    if actual.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def product_error(library: Any, request: Request) -> float:
    """The error of a float32 product, which distinguishes TF32 from full precision."""
    rng = np.random.default_rng([request.seed, 2])
    a, b = (rng.standard_normal(shape).astype("float32") for shape in ((128, 784), (784, 512)))
    product = library.product(a, b, request.find_work().precision, request.device)
    return distance(product, a, b)


def fill_row(request: Request, library: Any, row: dict[str, Any]) -> None:
    """Fill the contender's row, without times if it computes something else."""
    work = request.find_work()
    row |= {"version": library.VERSION, "clock": library.CLOCK}
    row["off"] = weight_error(library, request, np.load(request.reference))
    if not row["off"] <= TOLERANCE:
        row["problem"] = f"computes something else: the weights are off by {row['off']:.1e}"
        return
    row["product_off"] = error = product_error(library, request)
    full = work.precision == "full"
    low, high = (0.0, PRODUCT_ALLOWED["float32"]) if full else (TF32_LEAST, TF32_ALLOWED)
    if not low <= error <= high:
        row["problem"] = f"is not at {work.precision} precision: a product is off by {error:.1e}"
        return
    problem = make_problem(work, "float32", request.seed, shuffle=True)
    row |= library.times(problem, request.variant, request.device, request.rounds)._asdict()


def measure(request: Request) -> dict[str, Any]:
    """The contender's row; its "problem" says why it has no times."""
    row: dict[str, Any] = {"library": LIBRARIES[request.library], "variant": request.variant}
    try:
        fill_row(request, import_module(f"benchmarks.gpu.{request.library}"), row)
    except ModuleNotFoundError as error:
        row["problem"] = f"{error.name} is not installed"
    except Exception as error:  # any failure becomes a row of the table
        row["problem"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return row


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [measure(Request(**request))]


if __name__ == "__main__":
    serve(answer)
