"""Checks of a GPU: how they are defined and run, and their tools for graphs, times and errors."""

import gc
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.cuda import first_line
from xpmlp.devices.extras import import_extra
from xpmlp.devices.graphs import GraphStream, RecordedGraph
from xpmlp.devices.namespace import Place
from xpmlp.recording.captured import CaptureWarning

OK, NOTE, FIGURE, FAULT = "ok", "note", "figure", "fault"  # a figure has no bound


class Setting(NamedTuple):
    """The device, seed and extent of the checks."""

    place: Place
    seed: int
    quick: bool


class Result(NamedTuple):
    """The result of a check."""

    figure: str
    allowed: str = ""
    verdict: str = OK
    detail: str = ""  # of the fault or note
    figures: Mapping[str, Any] = MappingProxyType({})


class Check(NamedTuple):
    """An entry of the checklist."""

    number: int  # of its topic; several checks may share one
    name: str
    run: Callable[[Setting], Result]


class Row(NamedTuple):
    """A check with its result."""

    number: int
    name: str
    figure: str
    allowed: str
    verdict: str
    detail: str
    seconds: float
    figures: Mapping[str, Any]


def perform(checks: Iterable[Check], setting: Setting) -> Iterator[Row]:
    """Run every check; one that raises is a fault, and the next ones still run.

    A CaptureWarning is an error unless a check expects it.
    """
    for check in checks:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", CaptureWarning)
                result = check.run(setting)
        except Exception as error:  # any failure becomes a row of the table
            detail = f"{type(error).__name__}: {first_line(error)}"
            result = Result("", verdict=FAULT, detail=detail)
        clean_up(setting.place)
        yield Row(check.number, check.name, *result[:4], time.perf_counter() - started, result[4])


def clean_up(place: Place) -> None:
    """Free what a check left behind, including the traceback of a failed capture."""
    gc.collect()
    with suppress(Exception):  # the next check reports a broken device
        place.device.synchronize()


def check_bound(largest: float, allowed: float, detail: str = "", **figures: Any) -> Result:
    """Compare an error with its bound; NaN never passes."""
    passed = largest <= allowed
    figures["largest"] = largest
    return Result(
        f"{largest:.1e}", f"{allowed:.0e}", OK if passed else FAULT, "" if passed else detail,
        figures,
    )  # fmt: skip


def distance(actual: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The distance from a @ b in float64, relative to the typical size of such a product.

    That is |a| @ |b| over the root of the number of terms: a @ b itself may cancel.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    reference, size = np.matmul(a, b), np.matmul(abs(a), abs(b)) / max(1, a.shape[-1]) ** 0.5
    if actual.shape != reference.shape:
        return float("inf")
    return float(np.linalg.norm(actual - reference) / np.linalg.norm(size))


def over_bound(errors: dict[str, float], allowed: float) -> str:
    """The entries over the bound, as text."""
    over = [f"{name} {value:.1e}" for name, value in errors.items() if not value <= allowed]
    return ", ".join(over)


def check_all(conditions: Mapping[str, bool]) -> Result:
    """Require that all conditions hold; the detail names the others."""
    wrong = [name for name, holds in conditions.items() if not holds]
    figure = f"{len(conditions) - len(wrong)} of {len(conditions)}"
    figures = {"conditions": dict(conditions)}
    return Result(figure, "all", FAULT if wrong else OK, ", ".join(wrong), figures)


def new_stream(place: Place) -> GraphStream:
    import cupy

    return GraphStream(place, cupy.cuda)


def record(
    stream: GraphStream, step: Callable[[], Any], warmup: Callable[[], Any] | None = None
) -> RecordedGraph:
    """A graph of `step` in its own memory pool, inside `stream.open`.

    warmup: run before the recording; None for the step itself.
    """
    import cupy

    return stream.record(step, warmup or step, cupy.cuda.MemoryPool())


def nodes(graph: Any) -> Counter[str]:
    """Number of nodes of each kind in a graph: kernel, memset, memcpy, ..."""
    driver = import_extra("cuda.bindings.driver", "gpu13")
    error, _, count = driver.cuGraphGetNodes(graph.graph)
    if int(error):
        raise RuntimeError(f"cuGraphGetNodes: {error!r}")
    _, handles, _ = driver.cuGraphGetNodes(graph.graph, count)
    kinds = [driver.cuGraphNodeGetType(node)[1].name for node in handles[:count]]
    return Counter(kind.removeprefix("CU_GRAPH_NODE_TYPE_").lower() for kind in kinds)


def longest_path(edges: Iterable[tuple[Hashable, Hashable]], nodes: int) -> int:
    """Number of nodes on the longest path of a directed acyclic graph; 0 without nodes."""
    successors: dict[Hashable, list[Hashable]] = {}
    in_degree: dict[Hashable, int] = {}
    for source, target in edges:
        successors.setdefault(source, []).append(target)
        in_degree[target] = in_degree.get(target, 0) + 1
        in_degree.setdefault(source, 0)
    depth = {node: 1 for node, count in in_degree.items() if count == 0}
    ready = list(depth)
    while ready:
        node = ready.pop()
        for target in successors.get(node, ()):
            depth[target] = max(depth.get(target, 0), depth[node] + 1)
            in_degree[target] -= 1
            if in_degree[target] == 0:
                ready.append(target)
    return max(depth.values(), default=min(nodes, 1))


def depth(graph: Any) -> int:
    """Number of nodes on the longest dependency path of a captured graph."""
    driver = import_extra("cuda.bindings.driver", "gpu13")
    error, *_, count = driver.cuGraphGetEdges(graph.graph)
    if int(error):
        raise RuntimeError(f"cuGraphGetEdges: {error!r}")
    _, sources, targets, *_ = driver.cuGraphGetEdges(graph.graph, count)
    pairs = zip(sources[:count], targets[:count], strict=True)
    return longest_path(((int(a), int(b)) for a, b in pairs), nodes(graph).total())


def host_us(call: Callable[[], Any], calls: int = 100, rounds: int = 15) -> float:
    """Host microseconds per call, median of rounds; `calls` must fit into the device's queue."""
    import cupy

    stream, times = cupy.cuda.get_current_stream(), []
    for _ in range(rounds + 1):
        stream.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - started) / calls * 1e6)
    stream.synchronize()
    return float(median(times[1:]))


def device_us(call: Callable[[], Any], calls: int = 20, rounds: int = 9) -> float:
    """Microseconds per call between events of the current stream, median of rounds."""
    import cupy

    times = []
    for _ in range(rounds + 1):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) / calls * 1e3)
    return float(median(times[1:]))


def use_default_pool(streams: list[GraphStream], rng: np.random.Generator, blocks: int) -> None:
    """Fill and free `blocks` of the default memory pool, on the current stream and on others."""
    import cupy

    def fill_and_free() -> None:
        sizes = rng.integers(1, 1 << 18, blocks)
        arrays = [cupy.full(int(size), float("nan"), dtype="float32") for size in sizes]
        square = cupy.full((256, 256), float("nan"), dtype="float32")
        arrays.append(cupy.matmul(square, square))

    fill_and_free()
    for other in streams:
        with other.stream:
            fill_and_free()
    cupy.get_default_memory_pool().free_all_blocks()
