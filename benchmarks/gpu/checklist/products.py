"""Checks of the products on a GPU: every layout and dtype, and in recorded steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from benchmarks.gpu.checklist.check import (
    FAULT,
    NOTE,
    OK,
    Check,
    Result,
    Setting,
    counted,
    distance,
    held_to,
    new_lane,
    recorded,
    worst,
)
from xpmlp.devices import cuda
from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.layout import padded_size, windows
from xpmlp.spec import Spec
from xpmlp.types import Array

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
# ten bits of mantissa: rounding gives 1.7e-3 (seed 0), and tensor cores may truncate instead
TF32_ALLOWED = 4e-3
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


# 1, 3. products in recorded steps --------------------------------------------------------------


def tripwire(on: Setting) -> Result:
    """CuPy's own product under capture raises: the reason why xpmlp brings one."""
    import cupy

    lane = new_lane(on.place)
    with lane.open():
        a = cupy.ones((4, 4), dtype="float32")
        cupy.matmul(a, a)
        try:
            recorded(lane, lambda: cupy.matmul(a, a), warm=lambda: None)
        except NotImplementedError as error:
            return Result("raises NotImplementedError", detail=cuda.first_line(error))
    return Result("captured", "raises", NOTE, "CuPy captures its own products now: drop ours?")


def captured_products(on: Setting) -> Result:
    """A graph of products, replayed with other numbers in the same arrays."""
    place, rng = on.place, np.random.default_rng([on.seed, 3])
    found: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        lane = new_lane(place)
        with lane.open():
            pairs = [[draw(place, rng, s, dtype)[1] for s in (case.a, case.b)] for case in OPERANDS]

            def step(pairs: Any = pairs) -> list[Array]:
                return [
                    place.xp.matmul(case.of_a(a), case.of_b(b))
                    for case, (a, b) in zip(OPERANDS, pairs, strict=True)
                ]

            captured = recorded(lane, step)
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


def epilogues(on: Setting) -> Result:
    """Which ends of products cuBLASLt has, and ends as the plain operations would."""
    from xpmlp.devices.epilogues import EPILOGUES
    from xpmlp.recording.fused_products import FusedProducts

    with running(on.place):
        trusted = FusedProducts(on.place.xp.epilogues, on.place.xp).epilogues.trusted or ()
    found = {kind.name: kind in trusted for kind in EPILOGUES}
    result = counted(found)  # without one the plain operations are there
    return result if result.verdict == OK else result._replace(verdict=NOTE)


CHECKS = (
    Check(1, "tripwire", tripwire),
    Check(2, "gemm-float64", products("float64")),
    Check(2, "gemm-float32", products("float32")),
    Check(2, "gemm-float16", products("float16")),
    Check(2, "gemm-tf32", in_tf32),
    Check(2, "gemm-out", into_out),
    Check(3, "gemm-captured", captured_products),
    Check(6, "epilogues", epilogues),
)
