"""What a check of a GPU is, how checks are run, and what they need: graphs, clocks, distances."""

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

OK, NOTE, FIGURE, FAULT = "ok", "note", "figure", "fault"  # a figure has nothing to be held to


class Setting(NamedTuple):
    """Where the checks run and how much they do."""

    place: Place
    seed: int
    quick: bool


class Result(NamedTuple):
    """What a check came to."""

    figure: str
    allowed: str = ""
    verdict: str = OK
    detail: str = ""  # what is at fault or worth a note
    figures: Mapping[str, Any] = MappingProxyType({})


class Check(NamedTuple):
    """An entry of the checklist."""

    number: int  # in the checklist that a person reads; several may share one
    name: str
    run: Callable[[Setting], Result]


class Row(NamedTuple):
    """A check that was run."""

    number: int
    name: str
    figure: str
    allowed: str
    verdict: str
    detail: str
    seconds: float
    figures: Mapping[str, Any]


def perform(checks: Iterable[Check], setting: Setting) -> Iterator[Row]:
    """Every check in turn; one that raises is a fault, and the rest go on.

    Steps that cannot be recorded are a fault wherever a check does not ask for just that.
    """
    for check in checks:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", CaptureWarning)
                found = check.run(setting)
        except Exception as error:  # whatever it is, the table has a row for it
            found = Result("", verdict=FAULT, detail=f"{type(error).__name__}: {first_line(error)}")
        settle(setting.place)
        yield Row(check.number, check.name, *found[:4], time.perf_counter() - started, found[4])


def settle(place: Place) -> None:
    """Let go of what a check left, a failed capture's traceback included."""
    gc.collect()
    with suppress(Exception):  # a device that is broken says so in the next check
        place.device.synchronize()


def held_to(largest: float, allowed: float, detail: str = "", **figures: Any) -> Result:
    """A difference against its bound; NaN never passes."""
    passed = largest <= allowed
    figures["largest"] = largest
    return Result(
        f"{largest:.1e}", f"{allowed:.0e}", OK if passed else FAULT, "" if passed else detail,
        figures,
    )  # fmt: skip


def distance(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """How far `found` is from a @ b in float64, relative to the size of such a product.

    That is |a| @ |b| over the root of the terms: a @ b itself may cancel to nothing.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    reference, size = np.matmul(a, b), np.matmul(abs(a), abs(b)) / max(1, a.shape[-1]) ** 0.5
    if found.shape != reference.shape:
        return float("inf")
    return float(np.linalg.norm(found - reference) / np.linalg.norm(size))


def worst(found: dict[str, float], allowed: float) -> str:
    """The entries that are over the bound, for a person."""
    over = [f"{name} {value:.1e}" for name, value in found.items() if not value <= allowed]
    return ", ".join(over)


def counted(found: Mapping[str, bool]) -> Result:
    """All must be true; the others are named."""
    wrong = [name for name, right in found.items() if not right]
    figure = f"{len(found) - len(wrong)} of {len(found)}"
    return Result(figure, "all", FAULT if wrong else OK, ", ".join(wrong), {"found": dict(found)})


def new_lane(place: Place) -> GraphStream:
    import cupy

    return GraphStream(place, cupy.cuda)


def recorded(
    lane: GraphStream, step: Callable[[], Any], warm: Callable[[], Any] | None = None
) -> RecordedGraph:
    """A graph of `step` in memory of its own, inside `lane.open`.

    warm: what is run before; None is the step itself.
    """
    import cupy

    return lane.record(step, warm or step, cupy.cuda.MemoryPool())


def nodes(graph: Any) -> Counter[str]:
    """How many nodes of each kind a graph has: kernel, memset, memcpy, ..."""
    driver = import_extra("cuda.bindings.driver", "gpu13")
    error, _, count = driver.cuGraphGetNodes(graph.graph)
    if int(error):
        raise RuntimeError(f"cuGraphGetNodes: {error!r}")
    _, found, _ = driver.cuGraphGetNodes(graph.graph, count)
    kinds = [driver.cuGraphNodeGetType(node)[1].name for node in found[:count]]
    return Counter(kind.removeprefix("CU_GRAPH_NODE_TYPE_").lower() for kind in kinds)


def longest_path(edges: Iterable[tuple[Hashable, Hashable]], nodes: int) -> int:
    """Nodes on the longest path of a directed graph without cycles; 0 without nodes."""
    after: dict[Hashable, list[Hashable]] = {}
    waiting: dict[Hashable, int] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
        waiting[target] = waiting.get(target, 0) + 1
        waiting.setdefault(source, 0)
    depth = {node: 1 for node, count in waiting.items() if count == 0}
    ready = list(depth)
    while ready:
        node = ready.pop()
        for target in after.get(node, ()):
            depth[target] = max(depth.get(target, 0), depth[node] + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    return max(depth.values(), default=min(nodes, 1))


def depth(graph: Any) -> int:
    """Nodes on the longest path of dependencies of a captured graph."""
    driver = import_extra("cuda.bindings.driver", "gpu13")
    error, *_, count = driver.cuGraphGetEdges(graph.graph)
    if int(error):
        raise RuntimeError(f"cuGraphGetEdges: {error!r}")
    _, sources, targets, *_ = driver.cuGraphGetEdges(graph.graph, count)
    pairs = zip(sources[:count], targets[:count], strict=True)
    return longest_path(((int(a), int(b)) for a, b in pairs), nodes(graph).total())


def host_us(call: Callable[[], Any], calls: int = 100, rounds: int = 15) -> float:
    """Microseconds of the host per call: the median of rounds short enough for the queue."""
    import cupy

    stream, found = cupy.cuda.get_current_stream(), []
    for _ in range(rounds + 1):
        stream.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - started) / calls * 1e6)
    stream.synchronize()
    return float(median(found[1:]))


def device_us(call: Callable[[], Any], calls: int = 20, rounds: int = 9) -> float:
    """Microseconds per call between two events of the current stream, median of rounds."""
    import cupy

    found = []
    for _ in range(rounds + 1):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(begin, end) / calls * 1e3)
    return float(median(found[1:]))


def disturb(others: list[GraphStream], rng: np.random.Generator, blocks: int) -> None:
    """Fill and free `blocks` of memory of the default pool, on the current stream and on others."""
    import cupy

    def junk() -> None:
        sizes = rng.integers(1, 1 << 18, blocks)
        filled = [cupy.full(int(size), float("nan"), dtype="float32") for size in sizes]
        square = cupy.full((256, 256), float("nan"), dtype="float32")
        filled.append(cupy.matmul(square, square))

    junk()
    for lane in others:
        with lane.stream:
            junk()
    cupy.get_default_memory_pool().free_all_blocks()
