"""A stand-in for CuPy on the host that records as a CUDA stream does, and is as strict.

What it keeps to: while a stream records, nothing is computed, nothing is read on the host, no
host memory is copied in and nothing waits; memory comes from a pool, and memory given back is
filled with NaN and lent again; a graph works on the memory that it was recorded with, whoever
holds that by then. So a step that a CUDA graph would not carry fails here, or gives NaN.
"""

import ctypes
import operator
import subprocess
import tempfile
import threading
import time
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class Forbidden(RuntimeError):
    """What CUDA refuses while a stream is capturing."""


now = threading.local()  # .stream that work goes to, .pool that memory comes from


def stream():
    return getattr(now, "stream", None) or NULL


def recording():
    return stream().nodes is not None


def forbid(what):
    if recording():
        raise Forbidden(f"{what} is not permitted when the stream is capturing")


# Memory


class Block:
    """A piece of memory; when nothing refers to it any more, its pool has it back."""

    def __init__(self, pool, memory):
        self.pool, self.memory = pool, memory

    def __del__(self):
        self.memory[:] = 0xFF  # NaN in every float
        self.pool.free.setdefault(self.memory.size, []).append(self.memory)
        self.pool.lent -= self.memory.size


POOLS = weakref.WeakSet()


class MemoryPool:
    def __init__(self, limit=None):
        self.free, self.lent, self.limit, self.allocations = {}, 0, limit, 0
        POOLS.add(self)

    def malloc(self, size):
        if self is DEFAULT_POOL:
            forbid("memory of the default pool")
        self.allocations += 1
        if self.limit is not None and self.lent + size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        self.lent += size
        waiting = self.free.get(size)
        memory = waiting.pop() if waiting else np.full(size, 0xFF, dtype=np.uint8)
        return Block(self, memory)

    def free_all_blocks(self):
        forbid("freeing memory")
        for blocks in self.free.values():
            for memory in blocks:
                RELEASED[id(memory)] = memory
        self.free.clear()

    def free_bytes(self):
        return self.total_bytes() - self.lent

    def used_bytes(self):
        return self.lent

    def total_bytes(self):
        return self.lent + sum(size * len(blocks) for size, blocks in self.free.items())


class OutOfMemoryError(MemoryError):
    pass


DEFAULT_POOL = MemoryPool()
RELEASED = weakref.WeakValueDictionary()  # by id, as long as a graph holds it


def memory_info():
    """Bytes of the card that no pool has, and all."""
    forbid("asking for memory")
    if DEFAULT_POOL.limit is not None:
        return int(DEFAULT_POOL.limit - DEFAULT_POOL.total_bytes()), int(DEFAULT_POOL.limit)
    return 2**40 - sum(pool.total_bytes() for pool in POOLS), 2**40


@contextmanager
def using_allocator(malloc):
    before = getattr(now, "malloc", None)
    now.malloc = malloc
    try:
        yield
    finally:
        now.malloc = before


def empty(shape, dtype=np.float64, **_):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    block = (getattr(now, "malloc", None) or DEFAULT_POOL.malloc)(max(size, 1))
    return Array(block.memory[:size].view(dtype).reshape(shape), block)


# Streams and graphs


class Stream:
    def __init__(self, non_blocking=False):
        self.nodes, self.before = None, []
        self.ptr = id(self)

    def __enter__(self):
        self.before.append(stream())
        now.stream = self
        return self

    def __exit__(self, *_):
        now.stream = self.before.pop()

    def synchronize(self):
        if self.nodes is not None:
            self.nodes = "invalid"
            raise Forbidden("operation not permitted when stream is capturing")

    def begin_capture(self):
        self.nodes = []

    def end_capture(self):
        nodes, self.nodes = self.nodes, None
        if nodes == "invalid":
            raise Forbidden("the capture was invalidated")
        return Graph(self, nodes)

    def is_capturing(self):
        return self.nodes is not None


class Graph:
    def __init__(self, of, nodes):
        self.stream, self.nodes, self.launches = of, nodes, 0
        self.graph = nodes  # CuPy's is a handle

    def launch(self, on=None):
        forbid("launching a graph")
        self.launches += 1
        for work, inputs, out, memory in self.nodes:
            if any(id(m) in RELEASED for m in memory):
                raise Forbidden("the graph works in memory that was freed")
            work(inputs, out)


NULL = Stream()


class Event:
    """Work is done when it is asked for, so the host's clock tells the device's time."""

    def record(self, on=None):
        forbid("a time")
        self.at = time.perf_counter()

    def synchronize(self):
        forbid("waiting for an event")


def elapsed(begin, end):
    return (end.at - begin.at) * 1e3


DRIVER = SimpleNamespace(  # of cuda.bindings
    cuGraphGetNodes=lambda graph, count=0: (0, graph[:count], len(graph)),
    cuGraphNodeGetType=lambda node: (0, SimpleNamespace(name="CU_GRAPH_NODE_TYPE_KERNEL")),
)


def execute(work, inputs, out):
    """Work on arrays, now or when the graph that is being recorded is launched.

    work: of the inputs' and of the results' memory.
    """
    of = stream()
    parts = [x.data if isinstance(x, Array) else x for x in inputs]
    places = [x.data for x in out]
    if of.nodes is None:
        work(parts, places)
    elif of.nodes == "invalid":
        raise Forbidden("the capture was invalidated")
    else:
        memory = [x.block.memory for x in (*inputs, *out) if isinstance(x, Array)]
        of.nodes.append((work, parts, places, memory))


# Arrays


def compute(function, *arguments, **keywords):
    """The array that a function of NumPy's gives."""
    given = [*arguments, *keywords.values()]
    if any(isinstance(one, np.ndarray) for one in given):
        raise TypeError("a NumPy array among a device's")
    inputs = list(arrays_in(given))
    # memory, not arrays: those are not to live longer because of what is recorded
    memory, named = plain(arguments), dict(zip(keywords, plain(keywords.values()), strict=True))
    with np.errstate(all="ignore"):
        found = function(*memory, **named)
    view = next((x for x in inputs if np.may_share_memory(found, x.data)), None)
    if view is not None:
        return Array(found, view.block)
    out = empty(found.shape, found.dtype)

    def work(parts, places):
        with np.errstate(all="ignore"):
            places[0][...] = function(*memory, **named)

    execute(work, inputs, [out])
    return out


def arrays_in(values):
    for one in values:
        if isinstance(one, Array):
            yield one
        elif isinstance(one, list | tuple):
            yield from arrays_in(one)


def plain(values):
    return [
        one.data
        if isinstance(one, Array)
        else type(one)(plain(one))
        if type(one) in (list, tuple)
        else one
        for one in values
    ]


class Array:
    """An array of the stand-in."""

    def __init__(self, data, block):
        self.data, self.block = data, block

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    device = property(lambda self: DEVICE)
    mT = property(lambda self: Array(self.data.mT, self.block))

    def __array_namespace__(self, api_version=None):
        return XP

    def __len__(self):
        return len(self.data)

    def __getitem__(self, key):
        if isinstance(key, Array):
            forbid("a mask")
        return Array(self.data[key], self.block)

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray):
            raise TypeError("a NumPy array is written to a device's")

        def work(parts, places):
            places[0][key] = parts[0]

        execute(work, [value], [self])

    def read(self):
        forbid("a read")
        return self.data

    def get(self):
        return self.read().copy()

    def copy(self):
        return compute(np.copy, self)

    def fill(self, value):
        self[...] = value

    def reshape(self, *shape):
        return XP.reshape(self, shape)

    def sum(self):
        return total(self)

    def all(self):
        return XP.all(self)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.read(), dtype=dtype)

    def __bool__(self):
        return bool(self.read())

    def __float__(self):
        return float(self.read())

    def __int__(self):
        return int(self.read())

    def __index__(self):
        return operator.index(self.read()[()])

    def __iter__(self):
        raise TypeError("iteration over an array")


def forward(name):
    return lambda self, *others: compute(getattr(operator, name), self, *others)


def backward(name):
    return lambda self, other: compute(getattr(operator, name), other, self)


for one in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor", "rshift", "lshift"):
    known = f"{one}_" if one in ("and", "or") else one
    setattr(Array, f"__{one}__", forward(known))
    setattr(Array, f"__r{one}__", backward(known))
for one in ("neg", "invert", "lt", "le", "gt", "ge", "eq", "ne", "abs"):
    setattr(Array, f"__{one}__", forward(one))


# The namespace


class Device:
    def synchronize(self):
        forbid("waiting for the device")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    id = 0


DEVICE = Device()


def asarray(value, *, dtype=None, device=None, copy=None):
    if isinstance(value, Array):
        if not copy and dtype in (None, value.dtype):
            return value
        return compute(lambda x: np.array(x, dtype=dtype), value)
    forbid("a copy from the host")
    host = np.array(value, dtype=dtype)
    out = empty(host.shape, host.dtype)
    out.data[...] = host
    return out


def creation(name):
    def create(*arguments, device=None, dtype=None, **keywords):
        return compute(lambda: getattr(np, name)(*arguments, dtype=dtype, **keywords))

    return create


def like(name):
    def create(of, *arguments, dtype=None, device=None):
        return compute(lambda x: getattr(np, name)(x, *arguments, dtype=dtype), of)

    return create


def matmul(a, b, out=None):
    if out is None:
        return compute(np.matmul, a, b)
    execute(lambda parts, places: np.matmul(*parts, out=places[0]), [a, b], [out])
    return out


def total(x, axis=None, keepdims=False, out=None):
    if out is None:
        return compute(np.sum, x, axis=axis, keepdims=keepdims)
    execute(
        lambda parts, places: np.sum(parts[0], axis=axis, keepdims=keepdims, out=places[0]),
        [x],
        [out],
    )
    return out


def function(name):
    found = getattr(np, name)

    def call(*arguments, **keywords):
        return compute(found, *arguments, **keywords)

    return call


NAMES = (
    "abs", "exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "maximum",
    "minimum", "where", "astype", "max", "min", "mean", "isfinite", "isnan", "all", "any", "take",
    "concat", "stack", "argmax", "broadcast_to", "reshape", "moveaxis", "expand_dims", "squeeze",
    "permute_dims", "square", "sign", "logical_and", "logical_or", "logical_not",
)  # fmt: skip
MADE = ("zeros", "ones", "full", "arange", "linspace", "eye")
TYPES = ("float32", "float64", "int32", "int64", "uint32", "bool")

XP = SimpleNamespace(
    __name__="recording",
    __array_namespace_info__=np.__array_namespace_info__,
    isdtype=np.isdtype,
    finfo=np.finfo,
    asarray=asarray,
    empty=lambda shape, dtype=np.float64, device=None: empty(shape, dtype),
    matmul=matmul,
    sum=total,
    vecdot=lambda a, b: compute(np.vecdot, a, b),
    **{name: function(name) for name in NAMES},
    **{name: creation(name) for name in MADE},
    **{f"{name}_like": like(f"{name}_like") for name in ("zeros", "ones", "full")},
    **{name: getattr(np, name) for name in TYPES},
)


# Kernels


C = {"float32": "float", "float64": "double", "uint32": "unsigned int"}


@cache
def compiled(parameters, inputs, operation):
    """A kernel's body as a loop of the host's."""
    lines = []
    for k, (raw, dtype, name) in enumerate(parameters):
        kind = ("const " if k < inputs else "") + C[dtype]
        there = f"({kind}*)p[{k}]"
        lines.append(f"{kind}* {name} = {there};" if raw else f"{kind}& {name} = ({there})[i];")
    text = (
        "#include <cmath>\nusing namespace std;\n"
        'extern "C" void run(void** p, long n) {\n'
        f"for (long i = 0; i < n; ++i) {{ {' '.join(lines)}\n{operation}\n}} }}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cpp"
        path.write_text(text)
        command = ["g++", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o"]
        subprocess.run([*command, str(path.with_suffix(".so")), str(path)], check=True)
        return ctypes.CDLL(str(path.with_suffix(".so")))


class ElementwiseKernel:
    """CuPy's, run on the host by a C++ compiler."""

    def __init__(self, inputs, outputs, operation, name, options=()):
        assert name.isidentifier()
        assert options == ("--fmad=false",)
        written = [part.split() for part in (*inputs.split(","), *outputs.split(","))]
        self.parameters = tuple((part[0] == "raw", *part[-2:]) for part in written)
        self.inputs = len(inputs.split(","))
        self.library = compiled(self.parameters, self.inputs, operation)

    def __call__(self, *arrays, size=None):
        assert len(arrays) == len(self.parameters)
        for x, (_, dtype, _) in zip(arrays, self.parameters, strict=True):
            assert isinstance(x, Array)
            assert x.dtype == dtype
        inputs, out = arrays[: self.inputs], arrays[self.inputs :]
        shape = np.broadcast_shapes(*(x.shape for x in inputs)) if size is None else None
        assert size is not None or all(x.shape == shape for x in out)
        assert (size is None) != self.parameters[0][0], "a size, and it alone, is for raw arrays"
        execute(lambda parts, places: self.work(parts, places, shape, size), inputs, out)

    def work(self, parts, places, shape, size):
        # a thread reads all of its inputs before it writes
        read = [np.array(x if size else np.broadcast_to(x, shape), order="C") for x in parts]
        found = [np.empty(x.shape, dtype=x.dtype) for x in places]
        pointers = (ctypes.c_void_p * len((*read, *found)))(
            *(x.ctypes.data for x in (*read, *found))
        )
        self.library.run(pointers, ctypes.c_long(size or found[0].size))
        for place, values in zip(places, found, strict=True):
            place[...] = values


class ReductionKernel:
    """CuPy's, of the one that is asked for: the sum of products."""

    def __init__(self, inputs, output, mapped, reduced, after, identity, name):
        assert (inputs, output) == ("T x, T y", "T z")
        assert (mapped, reduced, after, identity) == ("x * y", "a + b", "z = a", "0")
        assert name.isidentifier()

    def __call__(self, x, y, axis):
        assert x.dtype == y.dtype
        return compute(lambda a, b: np.sum(a * b, axis=axis), x, y)


def own_matmul(a, b):
    """CuPy's product is refused while a stream records (cupy#6290); ours is `XP.matmul`."""
    if recording():
        raise NotImplementedError("calling cuBLAS API during stream capture is not supported")
    return matmul(a, b)


def into(name):
    def call(*arguments, out):
        execute(lambda parts, places: getattr(np, name)(*parts, out=places[0]), arguments, [out])
        return out

    return call


CUPY = SimpleNamespace(
    ndarray=Array,
    empty=empty,
    empty_like=lambda x: empty(x.shape, x.dtype),
    full=XP.full,
    ones=XP.ones,
    asarray=asarray,
    isfinite=XP.isfinite,
    sum=total,
    add=into("add"),
    negative=into("negative"),
    matmul=own_matmul,
    ElementwiseKernel=ElementwiseKernel,
    ReductionKernel=ReductionKernel,
    get_default_memory_pool=lambda: DEFAULT_POOL,
    cuda=SimpleNamespace(
        Stream=Stream,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        get_current_stream=stream,
        Event=Event,
        get_elapsed_time=elapsed,
        runtime=SimpleNamespace(memGetInfo=memory_info),
    ),
)
