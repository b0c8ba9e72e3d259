"""Streams that capture by CUDA's rules, and the captured graphs."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Range = tuple[int, int]  # addresses, [start, stop)


def spread(start: int, size: int, step: int, count: int) -> list[Range]:
    """`count` pieces of memory, `step` apart, merged if they touch."""
    if step <= size:
        return [(start, start + (count - 1) * step + size)]
    return [(start + k * step, start + k * step + size) for k in range(count)]


class Node(NamedTuple):
    """A node of a graph."""

    kind: str  # "kernel", "memcpy", "memset"
    name: str
    work: Callable[[], None]
    reads: Sequence[Range]
    writes: Sequence[Range]
    after: frozenset[int]  # the nodes that it waits for


@dataclass
class Capture:
    """A graph that is being captured by the stream it began on and those that joined it."""

    origin: "Stream"
    nodes: list[Node] = field(default_factory=list)
    streams: list["Stream"] = field(default_factory=list)
    invalid: bool = False
    thread: int = field(default_factory=threading.get_ident)

    def add(self, stream: "Stream", *work) -> None:
        self.nodes.append(Node(*work, after=stream.tail))
        stream.tail = frozenset([len(self.nodes) - 1])


@dataclass(eq=False)
class Stream:
    handle: int
    flags: int = 0
    capture: Capture | None = None
    tail: frozenset[int] = frozenset()  # the nodes of the capture that the next node waits for

    def wait_for(self, capture: Capture, tail: frozenset[int]) -> None:
        if self.capture is None:
            self.capture = capture
            capture.streams.append(self)
        self.tail |= tail


@dataclass
class Event:
    seconds: float = 0.0
    capture: Capture | None = None
    tail: frozenset[int] = frozenset()


@dataclass
class Executable:
    nodes: list[Node]
    blocks: set[int]  # starts of the blocks that it uses
    freed: bool = False  # whether one of them was freed


def ancestors(nodes: Sequence[Node]) -> list[int]:
    """For every node, a bit mask of the nodes that precede it."""
    masks: list[int] = []
    for node in nodes:
        before = 0
        for at in node.after:
            before |= masks[at] | 1 << at
        masks.append(before)
    return masks


def unjoined(capture: Capture) -> bool:
    """Whether a stream that joined the capture has work that its origin does not wait for."""
    before = ancestors(capture.nodes)
    joined = 0
    for at in capture.origin.tail:
        joined |= before[at] | 1 << at
    return any(not joined >> at & 1 for stream in capture.streams for at in stream.tail)


def overlap(first: Iterable[Range], second: Iterable[Range]) -> bool:
    second = list(second)
    return any(a < d and c < b for a, b in first for c, d in second)


def races(nodes: Sequence[Node]) -> list[str]:
    """Pairs of nodes that may run concurrently and of which one writes what the other accesses."""
    before, pairs = ancestors(nodes), []
    for j, late in enumerate(nodes):
        concurrent = ~before[j] & ((1 << j) - 1)
        while concurrent:
            i = concurrent.bit_length() - 1
            concurrent ^= 1 << i
            early = nodes[i]
            if overlap(early.writes, [*late.reads, *late.writes]) or overlap(
                early.reads, late.writes
            ):
                pairs.append(f"{early.name} (node {i}) and {late.name} (node {j})")
    return pairs


def depth(nodes: Sequence[Node]) -> int:
    """The longest chain of nodes that wait for one another."""
    depths: list[int] = []
    for node in nodes:
        depths.append(1 + max((depths[at] for at in node.after), default=0))
    return max(depths, default=0)
