"""What calls, nodes of a graph and sums cost on a GPU: what a training step is made of."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.checklist.check import (
    FIGURE,
    Check,
    Result,
    Setting,
    device_us,
    host_us,
    new_lane,
    nodes,
    recorded,
)
from benchmarks.gpu.checklist.products import draw
from xpmlp.types import Array

SUMS = ((128, 512), (8192, 4096))  # rows and columns: the small network's and the large one's


def repeated(count: int, call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def host_times(on: Setting) -> Result:
    """What a call costs the host: the price of everything that is not captured."""
    import cupy

    lane = new_lane(on.place)
    with lane.open():
        _, x = draw(on.place, np.random.default_rng(on.seed), (128, 128), "float32")
        y = cupy.empty_like(x)

        def ufunc() -> Any:
            return cupy.add(x, x, out=y)

        captured = recorded(lane, ufunc)
        calls: dict[str, Callable[[], Any]] = {
            "ufunc": ufunc,
            "ufunc, new array": lambda: x + x,
            "matmul": lambda: on.place.xp.matmul(x, x),
            "CuPy's matmul": lambda: cupy.matmul(x, x),
            "launch": captured.launch,
        }
        found = {name: host_us(call, 10 if on.quick else 100) for name, call in calls.items()}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    return Result(f"{shown} us", verdict=FIGURE, figures=found)


def node_cost(on: Setting) -> Result:
    """What one more small kernel costs in a graph: 65 nodes against 1, each after the other."""
    import cupy

    lane, found = new_lane(on.place), {}
    with lane.open():
        _, x = draw(on.place, np.random.default_rng(on.seed), (1024,), "float32")
        for count in (1, 65):
            run = repeated(count, lambda: cupy.negative(x, out=x))
            captured = recorded(lane, run)
            seen = nodes(captured.graph).total()
            if seen != count:
                raise RuntimeError(f"{count} kernels made a graph of {seen} nodes")
            found[f"{count} nodes"] = device_us(captured.launch, 50)
    found["node"] = (found["65 nodes"] - found["1 nodes"]) / 64
    shown = f"{found['node']:.2f} us a node, {found['1 nodes']:.1f} us for a graph of one"
    return Result(shown, verdict=FIGURE, figures=found)


def row_sums(on: Setting) -> Result:
    """The bias gradient's reduction, over the axis that is not the last."""
    lane, found = new_lane(on.place), {}
    with lane.open():
        for rows, columns in SUMS[:1] if on.quick else SUMS:
            _, x = draw(on.place, np.random.default_rng(on.seed), (rows, columns), "float32")

            def total(x: Array = x) -> Array:
                return on.place.xp.sum(x, axis=-2, keepdims=True)

            captured = recorded(lane, repeated(16, total))
            found[f"({rows}, {columns})"] = device_us(captured.launch, 5) / 16
    shown = ", ".join(f"{name} {value:.1f} us" for name, value in found.items())
    return Result(shown, verdict=FIGURE, figures=found)


CHECKS = (
    Check(10, "host-times", host_times),
    Check(10, "node-cost", node_cost),
    Check(10, "row-sums", row_sums),
)
