"""Time the parts of a training step on a GPU: calls, nodes of a graph, and sums."""

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
    new_stream,
    nodes,
    record,
)
from benchmarks.gpu.checklist.products import random_array
from xpmlp.types import Array

SUMS = ((128, 512), (8192, 4096))  # rows and columns: the small network's and the large one's


def repeat(count: int, call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def host_times(env: Setting) -> Result:
    """The host's time per call, which captured steps save."""
    import cupy

    stream = new_stream(env.place)
    with stream.open():
        _, x = random_array(env.place, np.random.default_rng(env.seed), (128, 128), "float32")
        y = cupy.empty_like(x)

        def ufunc() -> Any:
            return cupy.add(x, x, out=y)

        captured = record(stream, ufunc)
        calls: dict[str, Callable[[], Any]] = {
            "ufunc": ufunc,
            "ufunc, new array": lambda: x + x,
            "matmul": lambda: env.place.xp.matmul(x, x),
            "CuPy's matmul": lambda: cupy.matmul(x, x),
            "launch": captured.launch,
        }
        times = {name: host_us(call, 10 if env.quick else 100) for name, call in calls.items()}
    text = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
    return Result(f"{text} us", verdict=FIGURE, figures=times)


def node_cost(env: Setting) -> Result:
    """The time of one more small kernel in a graph: 65 nodes in sequence against 1."""
    import cupy

    stream, times = new_stream(env.place), {}
    with stream.open():
        _, x = random_array(env.place, np.random.default_rng(env.seed), (1024,), "float32")
        for count in (1, 65):
            run = repeat(count, lambda: cupy.negative(x, out=x))
            captured = record(stream, run)
            actual = nodes(captured.graph).total()
            if actual != count:
                raise RuntimeError(f"{count} kernels made a graph of {actual} nodes")
            times[f"{count} nodes"] = device_us(captured.launch, 50)
    times["node"] = (times["65 nodes"] - times["1 nodes"]) / 64
    text = f"{times['node']:.2f} us a node, {times['1 nodes']:.1f} us for a graph of one"
    return Result(text, verdict=FIGURE, figures=times)


def row_sums(env: Setting) -> Result:
    """The time of the bias gradient's sum, over the rows of a batch."""
    stream, times = new_stream(env.place), {}
    with stream.open():
        for rows, columns in SUMS[:1] if env.quick else SUMS:
            rng = np.random.default_rng(env.seed)
            _, x = random_array(env.place, rng, (rows, columns), "float32")

            def total(x: Array = x) -> Array:
                return env.place.xp.sum(x, axis=-2, keepdims=True)

            captured = record(stream, repeat(16, total))
            times[f"({rows}, {columns})"] = device_us(captured.launch, 5) / 16
    text = ", ".join(f"{name} {value:.1f} us" for name, value in times.items())
    return Result(text, verdict=FIGURE, figures=times)


CHECKS = (
    Check(10, "host-times", host_times),
    Check(10, "node-cost", node_cost),
    Check(10, "row-sums", row_sums),
)
