"""The matrix products of a training step: a lower bound for the time of a step on NumPy."""

import time
from itertools import pairwise
from typing import Any

import numpy as np


class Products:
    """Per layer x W, x.T delta and, except in the first, delta W.T, each into its own buffer."""

    def __init__(self, problem: Any) -> None:
        """problem: `shape` has sizes, batch and steps; the dtype is that of X."""
        shape, rng = problem.shape, np.random.default_rng(0)
        self.units = shape.steps

        def matrix(rows: int, columns: int) -> np.ndarray:
            return rng.standard_normal((rows, columns)).astype(problem.X.dtype)

        values = [matrix(shape.batch, size) for size in shape.sizes]
        self.products: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for i, (n_in, n_out) in enumerate(pairwise(shape.sizes)):
            x, weights, delta = values[i], matrix(n_in, n_out), values[i + 1]
            self.products += [(x, weights, np.empty_like(delta)), (x.T, delta, weights.copy())]
            if i:
                self.products.append((delta, weights.T, np.empty_like(x)))

    def seconds(self, count: int) -> float:
        """Time of `count` epochs."""
        started = time.perf_counter()
        for _ in range(count * self.units):
            for a, b, out in self.products:
                np.matmul(a, b, out=out)
        return time.perf_counter() - started
