"""What is measured: shapes of networks, cases, and the data of a case."""

from typing import Any, NamedTuple

import numpy as np

from xpmlp.initializers import initial
from xpmlp.layout import windows
from xpmlp.names import nearest
from xpmlp.spec import Spec

# the comparison before any timing: 20 steps in float64, rows in order
CHECK_EPOCHS, CHECK_STEPS = 5, 4


class Shape(NamedTuple):
    """A network with its batch size. Hidden layers share one activation, the last has none."""

    name: str
    sizes: tuple[int, ...]
    activation: str
    loss: str
    batch: int
    steps: int  # of an epoch: data sets of 512 to 4,096 rows

    @property
    def spec(self) -> Spec:
        return Spec.parse(self.sizes, activation=self.activation, loss=self.loss)

    def __str__(self) -> str:
        sizes = "-".join(map(str, self.sizes))
        return f"{sizes} {self.activation}, {self.loss}, batch {self.batch}"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("a1", (1, 3, 2, 1), "sigmoid", "squared_error", 1, 512),
        Shape("a32", (1, 3, 2, 1), "sigmoid", "squared_error", 32, 64),
        Shape("b32", (64, 100, 10), "relu", "cross_entropy", 32, 64),
        Shape("b200", (64, 100, 10), "relu", "cross_entropy", 200, 16),
        Shape("c", (50, 256, 256, 1), "relu", "squared_error", 256, 16),
        Shape("d", (784, 512, 256, 10), "relu", "cross_entropy", 128, 16),
        Shape("e", (1024, 2048, 2048, 10), "relu", "cross_entropy", 512, 4),
    )
}


class Case(NamedTuple):
    """A shape and a task: "train", "population" or "predict"."""

    task: str
    shape: str
    size: int = 1  # members of the population; rows of a prediction


CASES = (
    *(Case("train", name) for name in SHAPES),
    # sizes at which a population pays off: a search or an ensemble of small networks has
    # hundreds of members; from c on the products of a few members use the whole processor
    Case("population", "a32", 256),
    Case("population", "b32", 32),
    Case("population", "b200", 32),
    Case("population", "c", 8),
    *(Case("predict", name, rows) for name in "cde" for rows in (1024, 32)),
)


def select(names: str | None) -> list[Case]:
    """The cases of shapes such as "c,d"; ValueError names an unknown one and the nearest."""
    if names is None:
        return list(CASES)
    shapes = [word.strip() for word in names.split(",") if word.strip()]
    for word in shapes:
        if word not in SHAPES:
            hint = nearest(word, list(SHAPES))
            raise ValueError(f"shape {word!r} is unknown{hint} Known: {', '.join(SHAPES)}")
    if not shapes:
        raise ValueError(f"--shapes names no shape. Known: {', '.join(SHAPES)}")
    return [case for case in CASES if case.shape in shapes]


class Problem(NamedTuple):
    """A case with its data, the argument of every contender."""

    shape: Shape
    X: np.ndarray  # (N, n_in)
    y: np.ndarray  # (N,) floats, or class labels from 0
    size: int  # that of the case
    rule: str  # "adam" or "adam_sklearn", for contenders that have both
    shuffle: bool
    device: str  # of xpmlp

    @property
    def start(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per layer the weights (n_in, n_out) and bias (n_out,) that all contenders start from."""
        flat = initial(self.shape.spec, 0)
        layers = windows(np, self.shape.spec, flat)
        dtype = self.X.dtype
        return [(w.astype(dtype), b[0].astype(dtype)) for w, b in layers]


def make_data(shape: Shape, count: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """X (count, n_in) and y (count,), the same in every process; every class occurs."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((count, shape.sizes[0])).astype(dtype)
    if shape.loss == "cross_entropy":
        return X, rng.permutation(np.arange(count) % shape.sizes[-1])
    return X, rng.standard_normal(count).astype(dtype)


def timing_problem(case: Case, device: str) -> Problem:
    """For timing: float32, rows shuffled in every epoch."""
    shape = SHAPES[case.shape]
    count = case.size if case.task == "predict" else shape.batch * shape.steps
    return Problem(shape, *make_data(shape, count, "float32"), case.size, "adam", True, device)


def check_problem(case: Case, device: str, rule: str) -> Problem:
    """For comparing results: float64, rows in order."""
    shape = SHAPES[case.shape]
    count = case.size if case.task == "predict" else shape.batch * CHECK_STEPS
    return Problem(shape, *make_data(shape, count, "float64"), case.size, rule, False, device)


def flatten(layers: Any) -> np.ndarray:
    """Weights and biases, layer by layer, as one (P,) array in float64, for the comparison."""
    parts = [np.asarray(part, dtype=np.float64).ravel() for layer in layers for part in layer]
    return np.concatenate(parts)
