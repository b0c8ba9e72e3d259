"""CuPy's kernels: compiled by NVRTC as for a GPU, and run as compiled by the host's C++ compiler.

A warning of NVRTC is an error, and so is arithmetic in float64 where no parameter is a double.
"""

import ctypes
import hashlib
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from support.standin.cache import folder, written_once
from support.standin.card import Launch, card
from support.standin.graphs import Range, spread

HERE = Path(__file__).parent / "host"
COMPILE = ("g++", "-O1", "-w", "-std=c++17", "-fPIC", "-ffp-contract=off")
LINES = ("complex.cuh", "atomics.cuh", "math_constants.h", "float16.cuh", "bfloat16.cuh")
MEMBERS = 1024  # largest outer axis whose pieces are separate ranges
OPTIONS = ("-ftz=true", "-arch=compute_90", "--device-as-default-execution-space")
ITEM = {
    "bool": 1, "char": 1, "signed char": 1, "unsigned char": 1, "short": 2, "unsigned short": 2,
    "int": 4, "unsigned int": 4, "float": 4, "float16": 2, "double": 8, "long": 8, "long long": 8,
    "unsigned long": 8, "unsigned long long": 8,
}  # fmt: skip


class KernelError(AssertionError):
    """A kernel that should not run on a GPU."""


@cache
def headers() -> Path:
    """The folder of headers for kernels, with one precompiled header of all of them."""
    import cupy_backends

    included = Path(cupy_backends.__file__).parents[1] / "cupy/_core/include/cupy/carray.cuh"
    text = included.read_text().replace("class bfloat16;", "").replace("class float16;", "")
    texts = [text, *((HERE / name).read_text() for name in ("prefix.h", "suffix.h"))]
    digest = hashlib.sha256("".join([*texts, *COMPILE]).encode()).hexdigest()[:16]

    def build(where: Path) -> None:
        (where / "cupy").mkdir(parents=True)
        (where / "cupy" / "carray.cuh").write_text(text)
        for name in LINES:  # prefix.h declares their contents
            (where / "cupy" / name).write_text("#pragma once\n")
        for name in ("prefix.h", "suffix.h"):
            (where / name).write_text((HERE / name).read_text())
        lines = ["prefix.h", "cupy/carray.cuh", *(f"cupy/{name}" for name in LINES)]
        (where / "all.h").write_text("".join(f'#include "{line}"\n' for line in lines))
        command = [*COMPILE, f"-I{where}", "-x", "c++-header", where / "all.h"]
        subprocess.run([*command, "-o", where / "all.h.gch"], check=True)

    return written_once(folder() / f"headers-{digest}", build)


@dataclass
class Source:
    """Source text and options that CuPy passes to the compiler."""

    text: str
    options: tuple[str, ...]

    @property
    def key(self) -> str:
        options = [option for option in self.options if not option.startswith("-I")]
        return hashlib.sha256(f"{options}{self.text}".encode()).hexdigest()[:32]


sources: dict[str, Source] = {}


def parameters(text: str, name: str) -> list[str]:
    """The declarations of a kernel's parameters."""
    match = re.search(rf"__global__\s+void\s+{re.escape(name)}\s*\(", text)
    if match is None:
        raise KernelError(f"no kernel {name} in its source")
    depth, ends = 0, [match.end() - 1]
    for at in range(match.end(), len(text)):
        letter = text[at]
        if letter in "<(":
            depth += 1
        elif letter == ")" and depth == 0:
            ends.append(at)
            break
        elif letter in ">)":
            depth -= 1
        elif letter == "," and depth == 0:
            ends.append(at)
    return [text[a + 1 : b].strip() for a, b in pairwise(ends)]


def ptx(source: Source) -> str:
    """The PTX of a source by NVRTC; KernelError if it warns."""

    def build(unfinished: Path) -> None:
        from cupy_backends.cuda.libs import nvrtc

        program = nvrtc.createProgram(source.text, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, (*source.options, *OPTIONS))
        except nvrtc.NVRTCError as error:
            raise KernelError(f"NVRTC: {nvrtc.getProgramLog(program)}") from error
        log = nvrtc.getProgramLog(program).strip("\0\n ")
        if log:
            raise KernelError(f"NVRTC warns: {log}")
        unfinished.write_bytes(nvrtc.getPTX(program))
        nvrtc.destroyProgram(program)

    return written_once(folder() / f"{source.key}.ptx", build).read_text()


def check_precision(name: str, declared: Sequence[str], source: str, text: str) -> None:
    if any("double" in declaration for declaration in declared):
        return
    lines = {line.strip() for line in text.splitlines() if ".f64" in line and ".reg" not in line}
    if re.search(r"\b(sin|cos)\(", source):  # NVIDIA's functions reduce large angles in float64
        lines = {line for line in lines if not line.startswith(("cvt.", "mul.", "neg."))}
    if lines:
        raise KernelError(f"{name} computes in float64, without a double: {sorted(lines)[:3]}")


class Kernel:
    """A kernel that can be launched."""

    def __init__(self, source: Source, name: str) -> None:
        self.name, self.declared = name, parameters(source.text, name)
        self.pointers = [pointer(declaration) for declaration in self.declared]
        check_precision(name, self.declared, source.text, ptx(source))
        waits = "__syncthreads" in source.text
        threads = 2 if waits else 0 if "CUPY_FOR" in source.text else 1

        def build(unfinished: Path) -> None:
            source_path = unfinished.with_suffix(".cpp")
            end = f'\n#define THREADS {threads}\n#define KERNEL {name}\n#include "suffix.h"\n'
            source_path.write_text(source.text + end)
            where = headers()
            command = [*COMPILE, "-shared", f"-I{where}", "-include", where / "all.h", source_path]
            result = subprocess.run(
                [*command, "-o", unfinished], capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise KernelError(f"g++ does not compile {name}: {result.stderr[:2000]}")

        path = written_once(folder() / f"{source.key}-{headers().name[-16:]}.so", build)
        library = ctypes.PyDLL(str(path))  # declaration thread at a time: its memory is static
        library.parameters.restype = ctypes.c_size_t
        sizes = (ctypes.c_size_t * max(1, library.parameters()))()
        library.parameter_sizes(sizes)
        self.sizes = list(sizes)[: len(self.declared)]
        self.run = library.launch
        self.run.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p]
        self.run.restype = None

    def ranges(self, values: Sequence[bytes]) -> tuple[list[Range], list[Range]]:
        """The memory ranges that it reads, and those that it may write."""
        reads: list[Range] = []
        writes: list[Range] = []
        for parameter, value in zip(self.pointers, values, strict=True):
            if parameter is not None:
                ranges = reads if parameter.const else writes
                ranges += parameter.ranges(value)
        return reads, writes


class Pointer(NamedTuple):
    """A kernel parameter that points to memory."""

    const: bool
    item: int  # bytes of an element of a CArray; 0 for a bare pointer
    axes: int

    def ranges(self, value: bytes) -> list[Range]:
        """The addresses it points to: those of the array, or up to the end of its block."""
        if not self.item:
            start = int.from_bytes(value, "little")
            block = card.block_of(start)
            return [(start, start if block is None else block.start + block.size)]
        # a CArray is a pointer, a size, a shape, and strides in bytes
        start, size, *numbers = struct.unpack_from(f"{2 + 2 * self.axes}q", value)
        if size == 0:
            return []
        extents, strides = numbers[: self.axes], numbers[self.axes :]
        reach = [(n - 1) * step for n, step in zip(extents, strides, strict=True)]
        inner = sum(r for r in reach[1:] if r > 0) + self.item
        if self.axes and strides[0] > inner and min(reach) >= 0 and extents[0] <= MEMBERS:
            return spread(start, inner, strides[0], extents[0])
        before, after = (sum(r for r in reach if r < 0), sum(r for r in reach if r > 0))
        return [(start + before, start + after + self.item)]


def pointer(declared: str) -> Pointer | None:
    """The parameter of a kernel; None if it is a number."""
    match = re.search(r"CArray<(.+?),\s*(\d+)\s*,", declared)
    if match:
        return Pointer("const" in declared, ITEM[match[1].strip()], int(match[2]))
    return Pointer("const" in declared, 0, 0) if "*" in declared else None


kernels: dict[tuple[str, str], Kernel] = {}
modules: dict[int, str] = {}
functions: dict[int, Kernel] = {}


def load(data: bytes) -> int:
    number = card.new()
    modules[number] = data.decode()
    return number


def function_of(module: int, name: str) -> int:
    card.forbid_while_capturing(f"kernel {name} is loaded")
    key = modules[module]
    if (key, name) not in kernels:
        kernels[key, name] = Kernel(sources[key], name)
    number = card.new()
    functions[number] = kernels[key, name]
    return number


def launch(
    function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
    shared: int, stream: int, arguments: int, extra: int,
) -> None:  # fmt: skip
    assert (gy, gz, by, bz, shared) == (1, 1, 1, 1, 0), "the stand-in runs grids of one dimension"
    kernel = functions[function]
    pointers = (ctypes.c_void_p * len(kernel.sizes)).from_address(arguments)
    pairs = zip(pointers, kernel.sizes, strict=True)
    values = [ctypes.string_at(pointer, size) for pointer, size in pairs]
    copies = [ctypes.create_string_buffer(value, len(value)) for value in values]
    parameters = (ctypes.c_void_p * len(copies))(*map(ctypes.addressof, copies))
    reads, writes = kernel.ranges(values)
    card.touch([*reads, *writes])
    card.launches.append(Launch(kernel.name, gx, bx, stream, card.is_capturing(stream)))

    def work(alive: Any = copies) -> None:
        kernel.run(gx, bx, ctypes.addressof(parameters))

    card.submit(stream, "kernel", kernel.name, work, reads, writes)


card.extra |= {
    "driver.moduleLoadData": load,
    "driver.moduleUnload": lambda number: modules.pop(number, None),
    "driver.moduleGetFunction": function_of,
    "driver.launchKernel": launch,
}


def thrust_sort(dtype: Any, start: int, keys: int, shape: Sequence[int]) -> None:
    """Sorts over the last axis, instead of Thrust, which is machine code for a GPU."""
    size = int(np.prod(shape)) * dtype.itemsize
    flat = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(start)).view(dtype)
    flat.reshape(shape).sort(axis=-1)


def thrust_argsort(dtype: Any, order: int, start: int, keys: int, shape: Sequence[int]) -> None:
    size = int(np.prod(shape))
    values = np.ctypeslib.as_array((ctypes.c_ubyte * (size * dtype.itemsize)).from_address(start))
    places = np.ctypeslib.as_array((ctypes.c_int64 * size).from_address(order)).reshape(shape)
    places[...] = np.argsort(values.view(dtype).reshape(shape), axis=-1, kind="stable")


def install() -> None:
    """Let CuPy compile with `Kernel`; the machine code is the key of the source."""
    from cupy.cuda import compiler, function, thrust

    thrust.sort, thrust.argsort = thrust_sort, thrust_argsort

    def compiled(source: str, options: tuple[str, ...] = (), **unused: Any) -> Any:
        compiler._get_nvrtc_version()  # as CuPy does before it looks into its cache
        request = Source(source, tuple(options))
        sources[request.key] = request
        module = function.Module()
        module.load(request.key.encode())
        module._set_mapping(None)
        return module

    compiler._compile_module_with_cache = compiled
