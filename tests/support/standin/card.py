"""The devices of the stand-in: memory, streams, and handlers of CUDA's calls."""

import bisect
import ctypes
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from support.standin.graphs import (
    Capture,
    Event,
    Executable,
    Node,
    Range,
    Stream,
    races,
    unjoined,
)

OUT_OF_MEMORY, INVALID_VALUE, INVALID_DEVICE = 2, 1, 101
NO_DRIVER, NO_DEVICE, ILLEGAL_ADDRESS, NOT_READY = 35, 100, 700, 600
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_MERGE, CAPTURE_UNJOINED = 900, 901, 903, 904
CAPTURE_ISOLATION, CAPTURED_EVENT = 905, 907
VERSION = 13000
ATTRIBUTES = {1: 1024, 10: 32, 16: 132, 75: 9, 76: 0, 115: 1}  # by cudaDeviceAttr; others are 1
PROPERTIES = {
    "name": b"stand-in for an H200", "warpSize": 32, "multiProcessorCount": 132,
    "maxThreadsPerBlock": 1024, "major": 9, "minor": 0, "totalGlobalMem": 140 << 30,
}  # fmt: skip
BYTES = 140 << 30
ALLOCATED, FREED = 0xFF, 0xEE  # fill bytes of memory: NaN as a float, and never zero
FILLED = 8 << 20  # bytes of a block that are filled: untouched pages cost nothing
BLOCK = 512  # alignment of allocations in bytes

libc = ctypes.CDLL(None)
libc.aligned_alloc.restype = ctypes.c_void_p
libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


class Block(NamedTuple):
    """An allocation."""

    start: int
    size: int
    device: int  # -1: pinned memory of the host


class Launch(NamedTuple):
    """A launched kernel or product."""

    name: str
    grid: int
    threads: int  # in a block
    stream: int
    captured: bool


def address(size: int, alignment: int) -> int:
    return libc.aligned_alloc(alignment, -(-max(size, 1) // alignment) * alignment)


class Card:
    """All devices of the process, with handlers of CUDA's calls under CUDA's names."""

    def __init__(self) -> None:
        self.error: type[Exception] = RuntimeError  # CuPy's error class, once it is imported
        self.pointer_attributes: Any = None
        self.devices, self.peers, self.current = 0, False, 0
        self.total = BYTES
        self.fault = 0  # a sticky error
        self.starts: list[int] = []  # of all blocks, in order
        self.blocks: dict[int, Block] = {}
        self.used: Counter[int] = Counter()  # bytes by device
        self.streams: dict[int, Stream] = {0: Stream(0)}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Node]] = {}
        self.executables: dict[int, Executable] = {}
        self.captures: list[Capture] = []
        self.complaints: list[str] = []
        self.launches: deque[Launch] = deque(maxlen=100_000)
        self.extra: dict[str, Callable[..., Any]] = {}  # handlers of kernels
        self.last = 1000

    # For tests

    def plug(self, devices: int, *, peers: bool = False) -> None:
        self.devices, self.peers, self.current, self.fault = devices, peers, 0, 0
        self.total = BYTES
        self.complaints.clear()

    def unplug(self) -> None:
        self.devices = 0
        self.end_captures()

    def end_captures(self) -> None:
        """End every capture, whatever its state."""
        for capture in self.captures:
            for stream in capture.streams:
                stream.capture, stream.tail = None, frozenset()
        self.captures.clear()

    def check(self) -> None:
        """Raise AssertionError if something was done that no training should do."""
        if self.captures:
            self.complain("a stream is left capturing")
        assert not self.complaints, "; ".join(dict.fromkeys(self.complaints))

    def limit(self, count: int) -> None:
        """Leave so many bytes of every device free."""
        self.total = max((self.used[d] for d in range(max(1, self.devices))), default=0) + count

    def free_bytes(self, device: int = 0) -> int:
        return self.total - self.used[device]

    @property
    def pinned_bytes(self) -> int:
        return sum(block.size for block in self.blocks.values() if block.device < 0)

    # For the other modules

    def new(self) -> int:
        """A unique handle."""
        self.last += 1
        return self.last

    def fail(self, status: int) -> None:
        raise self.error(status)

    def complain(self, message: str) -> None:
        self.complaints.append(message)

    def forbid_while_capturing(self, action: str) -> None:
        if any(capture.thread == threading.get_ident() for capture in self.captures):
            self.complain(f"{action} while a stream captures")

    def block_of(self, start: int) -> Block | None:
        at = bisect.bisect_right(self.starts, start) - 1
        if at < 0:
            return None
        block = self.blocks[self.starts[at]]
        return block if start < block.start + block.size else None

    def touch(self, ranges: Sequence[Range]) -> None:
        """Raise the sticky error 700 if a kernel accesses memory that is not allocated or is on
        another device without peer access."""
        for start, stop in ranges:
            if start == stop:
                continue
            block = self.block_of(start)
            reachable = block is not None and (block.device in (-1, self.current) or self.peers)
            if not reachable or stop > block.start + block.size:
                self.fault = ILLEGAL_ADDRESS
                self.fail(ILLEGAL_ADDRESS)

    def submit(
        self,
        handle: int,
        kind: str,
        name: str,
        work: Callable[[], None],
        reads: Sequence[Range] = (),
        writes: Sequence[Range] = (),
    ) -> None:
        """Run work on a stream at once, or add it to the graph that the stream captures."""
        stream = self.streams[handle]
        if stream.capture is None:
            if handle == 0:
                self.forbid_while_capturing(f"{name} on the legacy stream")
            work()
        elif stream.capture.invalid:
            self.fail(CAPTURE_INVALIDATED)
        else:
            stream.capture.add(stream, kind, name, work, tuple(reads), tuple(writes))

    def is_capturing(self, handle: int) -> bool:
        return self.streams[handle].capture is not None

    def handlers(self, error: type[Exception], attributes: Any) -> dict[str, Callable[..., Any]]:
        """Handlers by "runtime." or "driver." and CUDA's name."""
        self.error, self.pointer_attributes = error, attributes
        handlers = {f"runtime.{name}": self.by_name(name) for name in RUNTIME} | self.extra
        return {name: self.guarded(name, handler) for name, handler in handlers.items()}

    def by_name(self, name: str) -> Callable[..., Any]:
        """A handler that is looked up at every call, so that a test may replace it."""

        def call(*arguments: Any) -> Any:
            return getattr(self, name)(*arguments)

        return call

    def guarded(self, name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        releases = name.endswith(("Destroy", "free", "freeHost", "Unload", "check_status"))

        def call(*arguments: Any) -> Any:
            if not releases:
                if not self.devices:
                    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
                    self.fail(NO_DEVICE if hidden else NO_DRIVER)
                if self.fault:
                    self.fail(self.fault)
            return handler(*arguments)

        return call

    # Devices

    def _ensure_context(self) -> None:
        pass

    def _getCUDAMajorVersion(self) -> int:
        return VERSION // 1000

    def driverGetVersion(self) -> int:
        return VERSION

    def runtimeGetVersion(self) -> int:
        return VERSION

    def check_status(self, status: int) -> None:
        if status:
            self.fail(status)

    def getDeviceCount(self) -> int:
        return self.devices

    def getDevice(self) -> int:
        return self.current

    def setDevice(self, device: int) -> None:
        if not 0 <= device < self.devices:
            self.fail(INVALID_DEVICE)
        self.current = device

    def deviceGetAttribute(self, attribute: int, device: int) -> int:
        return ATTRIBUTES.get(attribute, 1)

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        return dict(PROPERTIES)

    def deviceCanAccessPeer(self, device: int, peer: int) -> int:
        return int(self.peers)

    def _deviceEnsurePeerAccess(self, peer: int) -> None:
        pass

    def deviceSynchronize(self) -> None:
        if self.captures:
            for capture in self.captures:
                capture.invalid = True
            self.fail(CAPTURE_UNSUPPORTED)

    # Memory

    def allocate(self, size: int, device: int, alignment: int) -> int:
        start = address(size, alignment)
        ctypes.memset(start, ALLOCATED, min(size, FILLED))
        bisect.insort(self.starts, start)
        self.blocks[start] = Block(start, size, device)
        self.used[device] += size
        return start

    def release(self, start: int) -> None:
        block = self.blocks.pop(start)
        self.starts.remove(start)
        self.used[block.device] -= block.size
        for executable in self.executables.values():
            executable.freed |= start in executable.blocks
        ctypes.memset(start, FREED, min(block.size, FILLED))
        libc.free(start)

    def malloc(self, size: int) -> int:
        self.forbid_while_capturing("memory is taken from the device")
        if self.used[self.current] + size > self.total:
            self.fail(OUT_OF_MEMORY)
        return self.allocate(size, self.current, BLOCK)

    def free(self, start: int) -> None:
        self.forbid_while_capturing("memory is given back to the device")
        self.release(start)

    def hostAlloc(self, size: int, flags: int) -> int:
        return self.allocate(size, -1, 4096)

    def freeHost(self, start: int) -> None:
        self.release(start)

    def memGetInfo(self) -> tuple[int, int]:
        return self.free_bytes(self.current), self.total

    def copied(self, handle: int, to: int, start: int, size: int) -> None:
        def work() -> None:
            ctypes.memmove(to, start, size)

        ends = (self.block_of(start), self.block_of(to))
        if self.is_capturing(handle) and any(end is None or end.device < 0 for end in ends):
            self.complain("a copy between host and device is captured")
        reads, writes = ([(at, at + size)] for at in (start, to))
        self.submit(handle, "memcpy", "a copy", work, reads, writes)

    def memcpyAsync(self, to: int, start: int, size: int, kind: int, stream: int) -> None:
        self.copied(stream, to, start, size)

    def memcpyPeerAsync(
        self, to: int, device: int, start: int, other: int, size: int, stream: int
    ) -> None:
        self.copied(stream, to, start, size)

    def memcpy(self, to: int, start: int, size: int, kind: int) -> None:
        self.deviceSynchronize()
        ctypes.memmove(to, start, size)

    def memcpyPeer(self, to: int, device: int, start: int, other: int, size: int) -> None:
        self.memcpy(to, start, size, 0)

    def memset(self, start: int, value: int, size: int) -> None:
        self.deviceSynchronize()
        ctypes.memset(start, value, size)

    def memsetAsync(self, start: int, value: int, size: int, stream: int) -> None:
        writes = [(start, start + size)]
        self.touch(writes)
        self.submit(
            stream, "memset", "a fill", lambda: ctypes.memset(start, value, size), (), writes
        )

    def pointerGetMemoryType(self, start: int) -> int:
        return 0

    def pointerGetAttributes(self, start: int) -> Any:
        block = self.block_of(start)
        kind = 0 if block is None else 1 if block.device < 0 else 2
        device = 0 if block is None else max(0, block.device)
        return self.pointer_attributes(device, start, start, kind)

    # Streams and events

    def streamCreateWithPriority(self, flags: int, priority: int) -> int:
        handle = self.new()
        self.streams[handle] = Stream(handle, flags)
        return handle

    def streamCreateWithFlags(self, flags: int) -> int:
        return self.streamCreateWithPriority(flags, 0)

    def streamCreate(self) -> int:
        return self.streamCreateWithPriority(0, 0)

    def streamDestroy(self, handle: int) -> None:
        self.streams.pop(handle, None)

    def streamGetFlags(self, handle: int) -> int:
        return self.streams[handle].flags

    def streamGetPriority(self, handle: int) -> int:
        return 0

    def streamSynchronize(self, handle: int) -> None:
        capture = self.streams[handle].capture
        if capture is not None:
            capture.invalid = True
            self.fail(CAPTURE_UNSUPPORTED)

    def streamQuery(self, handle: int) -> int:
        self.streamSynchronize(handle)
        return 0  # everything is done

    def streamWaitEvent(self, handle: int, number: int) -> None:
        stream, event = self.streams[handle], self.events[number]
        if event.capture is None:
            if stream.capture is not None:
                stream.capture.invalid = True
                self.fail(CAPTURE_ISOLATION)
        elif stream.capture not in (None, event.capture):
            self.fail(CAPTURE_MERGE)
        else:
            stream.wait_for(event.capture, event.tail)

    def eventCreateWithFlags(self, flags: int) -> int:
        number = self.new()
        self.events[number] = Event()
        return number

    def eventCreate(self) -> int:
        return self.eventCreateWithFlags(0)

    def eventDestroy(self, number: int) -> None:
        self.events.pop(number, None)

    def eventRecord(self, number: int, handle: int) -> None:
        stream = self.streams[handle]
        self.events[number] = Event(time.perf_counter(), stream.capture, stream.tail)

    def eventQuery(self, number: int) -> int:
        if self.events[number].capture is not None:
            self.fail(CAPTURED_EVENT)
        return 0  # it has happened

    def eventSynchronize(self, number: int) -> None:
        self.eventQuery(number)

    def eventElapsedTime(self, begin: int, end: int) -> float:
        for number in (begin, end):
            self.eventQuery(number)
        return (self.events[end].seconds - self.events[begin].seconds) * 1e3

    # Graphs

    def streamBeginCapture(self, handle: int, mode: int = 2) -> None:
        stream = self.streams[handle]
        if stream.capture is not None or handle == 0:
            self.fail(CAPTURE_UNSUPPORTED if handle == 0 else INVALID_VALUE)
        capture = Capture(stream, streams=[stream])
        stream.capture, stream.tail = capture, frozenset()
        self.captures.append(capture)

    def streamIsCapturing(self, handle: int) -> int:
        return int(self.is_capturing(handle))

    def streamEndCapture(self, handle: int) -> int:
        capture = self.streams[handle].capture
        if capture is None or capture.origin.handle != handle:
            self.fail(INVALID_VALUE)
        has_unjoined = unjoined(capture)
        for stream in capture.streams:
            stream.capture, stream.tail = None, frozenset()
        self.captures.remove(capture)
        if capture.invalid or has_unjoined:
            self.fail(CAPTURE_INVALIDATED if capture.invalid else CAPTURE_UNJOINED)
        for pair in races(capture.nodes):
            self.complain(f"branches of a graph race: {pair}")
        graph = self.new()
        self.graphs[graph] = capture.nodes
        return graph

    def graphInstantiate(self, graph: int) -> int:
        nodes, blocks = self.graphs[graph], set()
        for node in nodes:
            for start, _ in (*node.reads, *node.writes):
                block = self.block_of(start)
                if block is not None:
                    blocks.add(block.start)
        number = self.new()
        self.executables[number] = Executable(nodes, blocks)
        return number

    def graphDestroy(self, graph: int) -> None:
        self.graphs.pop(graph, None)

    def graphExecDestroy(self, number: int) -> None:
        self.executables.pop(number, None)

    def graphUpload(self, number: int, handle: int) -> None:
        pass

    def graphLaunch(self, number: int, handle: int) -> None:
        if self.is_capturing(handle):
            self.fail(CAPTURE_UNSUPPORTED)
        executable = self.executables[number]
        if executable.freed:
            self.complain("a graph works in memory that was freed")
            self.fault = ILLEGAL_ADDRESS
            self.fail(ILLEGAL_ADDRESS)
        for node in executable.nodes:
            node.work()


RUNTIME = (
    "_ensure_context", "_getCUDAMajorVersion", "driverGetVersion", "runtimeGetVersion",
    "check_status", "getDeviceCount", "getDevice", "setDevice", "deviceGetAttribute",
    "getDeviceProperties", "deviceCanAccessPeer", "_deviceEnsurePeerAccess", "deviceSynchronize",
    "malloc", "free", "hostAlloc", "freeHost", "memGetInfo", "memcpyAsync", "memcpyPeerAsync",
    "memcpy", "memcpyPeer", "memset", "memsetAsync", "pointerGetMemoryType",
    "pointerGetAttributes", "streamCreateWithPriority", "streamCreateWithFlags", "streamCreate",
    "streamDestroy", "streamGetFlags", "streamGetPriority", "streamSynchronize", "streamQuery",
    "streamWaitEvent", "eventCreateWithFlags", "eventCreate", "eventDestroy", "eventRecord",
    "eventQuery", "eventSynchronize", "eventElapsedTime", "streamBeginCapture",
    "streamIsCapturing", "streamEndCapture", "graphInstantiate", "graphDestroy",
    "graphExecDestroy", "graphUpload", "graphLaunch",
)  # fmt: skip

card = Card()
