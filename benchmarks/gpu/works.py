"""The trainings of all contenders: the same networks, initial weights and rows."""

from typing import Any, NamedTuple

import numpy as np

from xpmlp.initializers import initial, initial_population
from xpmlp.layout import windows
from xpmlp.spec import Spec

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # Adam's: the defaults of all libraries
CHECK_STEPS = 20  # before timing, to check that all compute the same


class Work(NamedTuple):
    """A training to time."""

    name: str
    sizes: str
    batch: int
    batches: int  # minibatches in an epoch
    loss: str
    members: int | None = None  # networks of a population, each with its own order
    precision: str = "full"  # of the products

    @property
    def spec(self) -> Spec:
        return Spec.parse(self.sizes, loss=self.loss)

    @property
    def title(self) -> str:
        count = f"{self.members} networks " if self.members else ""
        suffix = ", TF32" if self.precision == "tf32" else ""
        return f"{count}{self.sizes}, batch {self.batch}{suffix}"

    def for_check(self) -> "Work":
        """The same network on few rows, for the reference on the CPU in float64."""
        members = self.members and min(self.members, 3)
        return self._replace(batch=min(self.batch, 32), batches=CHECK_STEPS, members=members)

    def quick(self) -> "Work":
        """A smaller version, as a smoke test."""
        sizes = [min(int(size), 64) for size in self.sizes.split("-")]
        return self._replace(
            sizes="-".join(map(str, sizes)),
            batch=min(self.batch, 32),
            batches=min(self.batches, 8),
            members=self.members and min(self.members, 4),
        )


WORKS = (
    Work("small", "784-512-256-10", 128, 480, "cross_entropy"),
    Work("large", "1024-4096-4096-10", 8192, 14, "cross_entropy", precision="tf32"),
    Work("population", "50-256-256-1", 256, 16, "squared_error", members=256),
)


class Problem(NamedTuple):
    """A work with its data, on the host."""

    work: Work
    seed: int
    shuffle: bool
    X: np.ndarray  # (N, n_in)
    y: np.ndarray  # (N,) int64 classes, or (N, n_out) floats
    start: tuple[Any, ...]  # per layer: weights (..., n_in, n_out), bias (..., 1, n_out)

    def member(self, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The weights that network k starts from, per layer (n_in, n_out) and (n_out,)."""
        lead = () if self.work.members is None else (k,)
        return [(layer.weights[lead], layer.bias[lead][0]) for layer in self.start]


def make_problem(work: Work, dtype: str, seed: int, *, shuffle: bool) -> Problem:
    rng, spec = np.random.default_rng([seed, 12]), work.spec
    X = rng.standard_normal((work.batch * work.batches, spec.n_in), dtype="float32").astype(dtype)
    y = np.arange(len(X)) % spec.n_out if work.loss == "cross_entropy" else X[:, :1] ** 2
    if work.members is None:
        flat = initial(spec, seed)
    else:
        flat = initial_population(spec, tuple(range(seed, seed + work.members)))
    return Problem(work, seed, shuffle, X, y, windows(np, spec, flat.astype(dtype)))


def flatten(layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """A network's weights and biases as one vector."""
    return np.concatenate([np.ravel(part) for layer in layers for part in layer])
