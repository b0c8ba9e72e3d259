"""Checks of what lies beneath the math on a GPU: products, capture, error paths, times.

Each is a function of a Setting that returns figures and a verdict, or raises. They are run by
`scripts/gpu_check.py`; those of whole trainings stand in `fit.gpu_checks`.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from xpmlp.backends import cuda
from xpmlp.backends.doctor import installed
from xpmlp.backends.gpu_bench import (
    FAULT,
    FIGURE,
    NOTE,
    OK,
    Check,
    Lane,
    Result,
    Setting,
    device_us,
    distance,
    held_to,
    host_us,
    nodes,
    worst,
)  # fmt: skip
from xpmlp.backends.namespace import Place, running, to_host, to_place
from xpmlp.core.layout import padded_size, windows
from xpmlp.core.spec import Spec
from xpmlp.core.types import Array

# 1. versions ----------------------------------------------------------------------------------


def identity(place: Place) -> dict[str, Any]:
    """The card, its driver and the libraries: what figures are worth nothing without."""
    import cupy
    from nvmath.bindings import cublas

    with running(place):
        handle = cublas.create()
        try:
            product = int(cublas.get_version(handle))
        finally:
            cublas.destroy(handle)
        about = cuda.card(place.device.id)
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return about | {"device": place.name, "cupy": cupy.__version__, "cublas": product,
                    "nvrtc": nvrtc, "packages": installed()}  # fmt: skip


def versions(on: Setting) -> Result:
    found = identity(on.place)
    shown = (f"{found['name']}, driver {found['driver']}, runtime {found['runtime']}, "
             f"cupy {found['cupy']}, cublas {found['cublas']}")  # fmt: skip
    return Result(shown, figures=found)


def tripwire(on: Setting) -> Result:
    """CuPy's own product under capture raises: the reason why xpmlp brings one."""
    import cupy

    lane = Lane(on.place)
    with lane.open():
        a = cupy.ones((4, 4), dtype="float32")
        cupy.matmul(a, a)
        try:
            lane.capture(lambda: cupy.matmul(a, a), warm=lambda: None)
        except NotImplementedError as error:
            return Result("raises NotImplementedError", detail=cuda.first_line(error))
    return Result("captured", "raises", NOTE, "CuPy captures its own products now: drop ours?")


# 2. products ----------------------------------------------------------------------------------

View = Callable[[Array], Array]


class Operands(NamedTuple):
    """A product: how its operands are cut from fresh arrays of these shapes."""

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    of_a: View = lambda x: x
    of_b: View = lambda x: x


def turned(x: Array) -> Array:
    return x.mT


NETWORK = Spec.parse("37-24-7")
WINDOWED = (padded_size(NETWORK),)


def weights(flat: Array) -> Array:
    """The last layer's weights in a flat buffer, (..., 24, 7)."""
    return windows(array_namespace(flat), NETWORK, flat)[-1].weights


OPERANDS = (
    Operands("2-D", (37, 65), (65, 41)),
    Operands("a turned", (65, 37), (65, 41), turned),
    Operands("b turned", (37, 65), (41, 65), of_b=turned),
    Operands("both turned", (65, 37), (41, 65), turned, turned),
    Operands("deep", (128, 784), (784, 512)),
    Operands("few rows, long sum", (784, 4096), (16, 4096), of_b=turned),
    Operands("one row", (1, 65), (65, 1)),
    Operands("outer", (37, 1), (1, 41)),
    Operands("vector @ matrix", (65,), (65, 41)),
    Operands("matrix @ vector", (37, 65), (65,)),
    Operands("dot", (65,), (65,)),
    Operands("columns of a wider matrix", (37, 90), (65, 41), lambda x: x[:, 7:72]),
    Operands("rows from an odd start", (40, 65), (65, 43), lambda x: x[3:], lambda x: x[:, 1:42]),
    Operands("backwards", (37, 65), (65, 41), lambda x: x[::-1]),
    Operands("every other", (37, 130), (130, 82), lambda x: x[:, ::2], lambda x: x[::2, ::2]),
    Operands("3-D", (5, 37, 65), (5, 65, 41)),
    Operands("3-D, a turned", (5, 65, 37), (5, 65, 41), turned),
    Operands("3-D, b turned", (5, 37, 65), (5, 41, 65), of_b=turned),
    Operands("3-D, both turned", (5, 65, 37), (5, 41, 65), turned, turned),
    Operands("shared rows", (37, 65), (5, 65, 41)),
    Operands("shared weights", (5, 37, 65), (65, 41)),
    Operands("broadcast both ways", (5, 1, 37, 65), (7, 65, 41)),
    Operands("two axes apart", (3, 4, 37, 70), (3, 4, 65, 41), lambda x: x[..., 2:67]),
    Operands("window (P,)", (16, 24), WINDOWED, of_b=weights),
    Operands("window (P,), turned", (16, 7), WINDOWED, of_b=lambda x: weights(x).mT),
    Operands("window (K, P)", (16, 24), (6, *WINDOWED), of_b=weights),
    Operands("window (K, P), turned", (6, 16, 7), (6, *WINDOWED), of_b=lambda x: weights(x).mT),
)
PRODUCT_ALLOWED = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3}
TF32_ALLOWED = 2e-3  # ten bits of mantissa
TF32_SEEN = 2e-5  # full float32 stays below


def draw(place: Place, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """The same random numbers on the host and at `place`."""
    host = rng.standard_normal(shape).astype(dtype)
    return host, to_place(place, host)


def poison(place: Place) -> None:
    """Fill the free memory of the pool with NaN, so that what a product leaves out is seen."""
    import cupy

    blocks = [cupy.full(n, float("nan"), dtype="float64") for n in (64, 4096, 65536, 1 << 20)]
    del blocks


def differences(place: Place, dtype: str, seed: int) -> dict[str, float]:
    """By name of the product, its distance from float64 NumPy."""
    rng, found = np.random.default_rng([seed, 2]), {}
    with running(place):
        for case in OPERANDS:
            (a, on_a), (b, on_b) = (draw(place, rng, s, dtype) for s in (case.a, case.b))
            poison(place)
            product = place.xp.matmul(case.of_a(on_a), case.of_b(on_b))
            if product.dtype.name != dtype:
                raise TypeError(f"{case.name}: {dtype} came back as {product.dtype.name}")
            found[case.name] = distance(to_host(product), case.of_a(a), case.of_b(b))
    return found


def products(dtype: str) -> Callable[[Setting], Result]:
    """The check of every product in one dtype, at full precision."""

    def run(on: Setting) -> Result:
        found, allowed = differences(on.place, dtype, on.seed), PRODUCT_ALLOWED[dtype]
        largest = float(np.max(list(found.values())))  # NaN wins
        return held_to(largest, allowed, worst(found, allowed), products=found)

    return run


def in_tf32(on: Setting) -> Result:
    """TF32 is asked for per namespace: it is coarser than full float32, and not too coarse."""
    found = differences(cuda.place(on.place.device.id, "tf32"), "float32", on.seed)
    largest, deep = float(np.max(list(found.values()))), found["deep"]
    full = differences(on.place, "float32", on.seed)["deep"]
    result = held_to(largest, TF32_ALLOWED, worst(found, TF32_ALLOWED), products=found, full=full)
    if result.verdict == OK and not (deep > TF32_SEEN > full):
        said = f"the deep product is off by {deep:.1e} in TF32 and {full:.1e} in full"
        return result._replace(verdict=FAULT, detail=f"{said}: the precision has no effect")
    return result


def into_out(on: Setting) -> Result:
    """`out=` of every layout, and sizes of nothing."""
    import cupy

    place, rng = on.place, np.random.default_rng([on.seed, 22])
    layouts: dict[str, View] = {
        "fresh": lambda x: x[:37, :41],
        "contiguous": lambda x: x.reshape(-1)[: 37 * 41].reshape(37, 41),
        "turned": lambda x: x[:41, :37].mT,
        "window": lambda x: x.reshape(-1)[32 : 32 + 37 * 41].reshape(37, 41),
        "every other": lambda x: x[:74:2, :82:2],
        "backwards": lambda x: x[:37, :41][::-1],
    }
    found = {}
    with running(place):
        (a, on_a), (b, on_b) = (draw(place, rng, s, "float64") for s in ((37, 65), (65, 41)))
        for name, view in layouts.items():
            whole = cupy.full((90, 90), float("nan"))
            out = view(whole)
            same = place.xp.matmul(on_a, on_b, out=out) is out
            inside = int(cupy.isfinite(whole).sum()) == out.size
            found[name] = distance(to_host(out), a, b) if same and inside else float("inf")
        c, on_c = draw(place, rng, (48, 48), "float64")
        place.xp.matmul(on_c, on_c.mT, out=on_c)
        found["over its operand"] = distance(to_host(on_c), c, c.T)
        poison(place)
        nothing = place.xp.matmul(cupy.ones((4, 0)), cupy.ones((0, 6)))
        found["sum of nothing"] = float(abs(to_host(nothing)).max())
        shapes = [
            place.xp.matmul(cupy.ones(s), cupy.ones((3, 6))).shape for s in ((0, 3), (2, 0, 3))
        ]
        found["no rows"] = 0.0 if shapes == [(0, 6), (2, 0, 6)] else float("inf")
    largest = float(np.max(list(found.values())))
    allowed = PRODUCT_ALLOWED["float64"]
    return held_to(largest, allowed, worst(found, allowed), products=found)


# 3. products under capture --------------------------------------------------------------------


def captured_products(on: Setting) -> Result:
    """A graph of products, replayed with other numbers in the same arrays."""
    place, rng = on.place, np.random.default_rng([on.seed, 3])
    found: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        lane = Lane(place)
        with lane.open():
            pairs = [[draw(place, rng, s, dtype)[1] for s in (case.a, case.b)] for case in OPERANDS]

            def step(pairs: Any = pairs) -> list[Array]:
                return [
                    place.xp.matmul(case.of_a(a), case.of_b(b))
                    for case, (a, b) in zip(OPERANDS, pairs, strict=True)
                ]

            captured = lane.capture(step)
            for replay in range(3):
                fresh = [[rng.standard_normal(x.shape).astype(dtype) for x in p] for p in pairs]
                for arrays, values in zip(pairs, fresh, strict=True):
                    for array, value in zip(arrays, values, strict=True):
                        array[...] = to_place(place, value)
                for out in captured.value:
                    out.fill(float("nan"))
                captured.launch()
                for case, (a, b), out in zip(OPERANDS, fresh, captured.value, strict=True):
                    far = distance(to_host(out), case.of_a(a), case.of_b(b))
                    found[f"{case.name}, {dtype}, {replay}"] = far / PRODUCT_ALLOWED[dtype]
    largest = float(np.max(list(found.values())))
    result = held_to(largest, 1.0, worst(found, 1.0), replays=3)
    return result._replace(figure=f"{largest:.2f} of the allowed", allowed="1")


# 9. error paths -------------------------------------------------------------------------------

ASK = """
from xpmlp.backends.devices import place_for
try:
    place_for({word!r})
    print("no error")
except Exception as error:
    print(type(error).__name__ + ": " + str(error))
"""
HIDE_MODULE = "import sys; sys.modules[{name!r}] = None\n"
HIDE_LIBRARY = """
from cuda import pathfinder
found = pathfinder.load_nvidia_dynamic_lib
def load(name):
    if name == {name!r}:
        raise pathfinder.DynamicLibNotFoundError(name + " is hidden")
    return found(name)
pathfinder.load_nvidia_dynamic_lib = load
"""


class Path(NamedTuple):
    """A way in which a GPU cannot be used, and the stage that is to say so."""

    name: str
    stage: int
    before: str = ""  # what the child process runs first
    word: str = ""  # the device word; empty is the one under test
    environment: tuple[tuple[str, str], ...] = ()
    sure: bool = True  # False: the libraries may find another way, which is worth a note only


PATHS = (
    Path("no GPU visible", 2, environment=(("CUDA_VISIBLE_DEVICES", ""),)),
    Path("gpu:99", 2, word="gpu:99"),
    Path("no nvmath", 4, HIDE_MODULE.format(name="nvmath")),
    Path("no NVRTC", 3, HIDE_LIBRARY.format(name="nvrtc"), sure=False),
    Path("no cuBLAS", 4, HIDE_LIBRARY.format(name="cublas"), sure=False),
)


def answer(path: Path, word: str) -> str:
    """What a fresh process says when it is asked for the device; its kernel cache is empty."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"CUPY_CACHE_DIR": cache} | dict(path.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-c", path.before + ASK.format(word=path.word or word)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[-1] if lines else f"nothing, exit status {done.returncode}"


def error_paths(on: Setting) -> Result:
    said = {path.name: answer(path, on.place.name) for path in PATHS}
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for path in PATHS:
        start = f"GPUUnavailableError: no usable GPU: stage {path.stage} of 4"
        if not (said[path.name].startswith(start) and "To mend it: " in said[path.name]):
            wrong[path.sure].append(f"{path.name}: {said[path.name]}")
    verdict = FAULT if wrong[True] else NOTE if wrong[False] else OK
    count = len(PATHS) - sum(map(len, wrong.values()))
    figure = f"{count} of {len(PATHS)} name the stage"
    detail = "; ".join(wrong[True] + wrong[False])
    return Result(figure, "all", verdict, detail, {"said": said})


# 10. times beneath ----------------------------------------------------------------------------


def repeated(count: int, call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def host_times(on: Setting) -> Result:
    """What a call costs the host: the price of everything that is not captured."""
    import cupy

    lane = Lane(on.place)
    with lane.open():
        _, x = draw(on.place, np.random.default_rng(on.seed), (128, 128), "float32")
        y = cupy.empty_like(x)

        def ufunc() -> Any:
            return cupy.add(x, x, out=y)

        captured = lane.capture(ufunc)
        found = {
            "ufunc": host_us(ufunc),
            "ufunc, new array": host_us(lambda: x + x),
            "matmul": host_us(lambda: on.place.xp.matmul(x, x)),
            "CuPy's matmul": host_us(lambda: cupy.matmul(x, x)),
            "launch": host_us(captured.launch),
        }
    shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    return Result(f"{shown} us", verdict=FIGURE, figures=found)


def node_cost(on: Setting) -> Result:
    """What one more small kernel costs in a graph: 65 nodes against 1, each after the other."""
    import cupy

    lane, found = Lane(on.place), {}
    with lane.open():
        _, x = draw(on.place, np.random.default_rng(on.seed), (1024,), "float32")
        for count in (1, 65):
            run = repeated(count, lambda: cupy.negative(x, out=x))
            captured = lane.capture(run)
            seen = nodes(captured.graph).total()
            if seen != count:
                raise RuntimeError(f"{count} kernels made a graph of {seen} nodes")
            found[f"{count} nodes"] = device_us(captured.launch, 50)
    found["node"] = (found["65 nodes"] - found["1 nodes"]) / 64
    shown = f"{found['node']:.2f} us a node, {found['1 nodes']:.1f} us for a graph of one"
    return Result(shown, verdict=FIGURE, figures=found)


def row_sums(on: Setting) -> Result:
    """The bias gradient's reduction, over the axis that is not the last."""
    lane, found = Lane(on.place), {}
    with lane.open():
        for rows, columns in ((128, 512), (8192, 4096)):
            _, x = draw(on.place, np.random.default_rng(on.seed), (rows, columns), "float32")

            def total(x: Array = x) -> Array:
                return on.place.xp.sum(x, axis=-2, keepdims=True)

            captured = lane.capture(repeated(16, total))
            found[f"({rows}, {columns})"] = device_us(captured.launch, 5) / 16
    shown = ", ".join(f"{name} {value:.1f} us" for name, value in found.items())
    return Result(shown, verdict=FIGURE, figures=found)


CHECKS = (
    Check(1, "versions", versions),
    Check(1, "tripwire", tripwire),
    Check(2, "gemm-float64", products("float64")),
    Check(2, "gemm-float32", products("float32")),
    Check(2, "gemm-float16", products("float16")),
    Check(2, "gemm-tf32", in_tf32),
    Check(2, "gemm-out", into_out),
    Check(3, "gemm-captured", captured_products),
    Check(9, "error-paths", error_paths),
    Check(10, "host-times", host_times),
    Check(10, "node-cost", node_cost),
    Check(10, "row-sums", row_sums),
)
