"""Checks of matrix products on a GPU: every layout and dtype, and in recorded steps."""

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
    check_all,
    check_bound,
    distance,
    new_stream,
    over_bound,
    record,
)
from xpmlp.devices import cuda
from xpmlp.devices.namespace import Place, running, to_host, to_place
from xpmlp.layout import padded_size, windows
from xpmlp.spec import Spec
from xpmlp.types import Array

# 2. products ----------------------------------------------------------------------------------

View = Callable[[Array], Array]


class Operands(NamedTuple):
    """A product: the shapes of two arrays, and the views of them that are its operands."""

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    view_a: View = lambda x: x
    view_b: View = lambda x: x


def transposed(x: Array) -> Array:
    return x.mT


NETWORK = Spec.parse("37-24-7")
WINDOWED = (padded_size(NETWORK),)


def weights(flat: Array) -> Array:
    """The last layer's weights in a flat buffer, (..., 24, 7)."""
    return windows(array_namespace(flat), NETWORK, flat)[-1].weights


OPERANDS = (
    Operands("2-D", (37, 65), (65, 41)),
    Operands("a transposed", (65, 37), (65, 41), transposed),
    Operands("b transposed", (37, 65), (41, 65), view_b=transposed),
    Operands("both transposed", (65, 37), (41, 65), transposed, transposed),
    Operands("deep", (128, 784), (784, 512)),
    Operands("few rows, long sum", (784, 4096), (16, 4096), view_b=transposed),
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
    Operands("3-D, a transposed", (5, 65, 37), (5, 65, 41), transposed),
    Operands("3-D, b transposed", (5, 37, 65), (5, 41, 65), view_b=transposed),
    Operands("3-D, both transposed", (5, 65, 37), (5, 41, 65), transposed, transposed),
    Operands("shared rows", (37, 65), (5, 65, 41)),
    Operands("shared weights", (5, 37, 65), (65, 41)),
    Operands("broadcast both ways", (5, 1, 37, 65), (7, 65, 41)),
    Operands("two axes apart", (3, 4, 37, 70), (3, 4, 65, 41), lambda x: x[..., 2:67]),
    Operands("window (P,)", (16, 24), WINDOWED, view_b=weights),
    Operands("window (P,), transposed", (16, 7), WINDOWED, view_b=lambda x: weights(x).mT),
    Operands("window (K, P)", (16, 24), (6, *WINDOWED), view_b=weights),
    Operands("window (K, P), transposed", (6, 16, 7), (6, *WINDOWED),
             view_b=lambda x: weights(x).mT),
)  # fmt: skip
PRODUCT_ALLOWED = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3}
# ten bits of mantissa: rounding gives 1.7e-3 (seed 0), and tensor cores may truncate instead
TF32_ALLOWED = 4e-3
TF32_LEAST = 2e-5  # full float32 is below


def random_array(place: Place, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """The same random numbers on the host and on `place`."""
    host = rng.standard_normal(shape).astype(dtype)
    return host, to_place(place, host)


def poison(place: Place) -> None:
    """Fill the free memory of the pool with NaN, which shows entries that a product omits."""
    import cupy

    blocks = [cupy.full(n, float("nan"), dtype="float64") for n in (64, 4096, 65536, 1 << 20)]
    del blocks


def differences(place: Place, dtype: str, seed: int) -> dict[str, float]:
    """Each product's distance from float64 NumPy, by name."""
    rng, errors = np.random.default_rng([seed, 2]), {}
    with running(place):
        for case in OPERANDS:
            (a, gpu_a), (b, gpu_b) = (random_array(place, rng, s, dtype) for s in (case.a, case.b))
            poison(place)
            product = place.xp.matmul(case.view_a(gpu_a), case.view_b(gpu_b))
            if product.dtype.name != dtype:
                raise TypeError(f"{case.name}: the dtype is {product.dtype.name}, not {dtype}")
            errors[case.name] = distance(to_host(product), case.view_a(a), case.view_b(b))
    return errors


def products(dtype: str) -> Callable[[Setting], Result]:
    """The check of every product in one dtype, at full precision."""

    def run(env: Setting) -> Result:
        errors, allowed = differences(env.place, dtype, env.seed), PRODUCT_ALLOWED[dtype]
        largest = float(np.max(list(errors.values())))  # NaN propagates
        return check_bound(largest, allowed, over_bound(errors, allowed), products=errors)

    return run


def tf32_products(env: Setting) -> Result:
    """Products of a namespace with TF32: less precise than full float32, but within the bound."""
    errors = differences(cuda.place(env.place.device.id, "tf32"), "float32", env.seed)
    largest, deep = float(np.max(list(errors.values()))), errors["deep"]
    full = differences(env.place, "float32", env.seed)["deep"]
    detail = over_bound(errors, TF32_ALLOWED)
    result = check_bound(largest, TF32_ALLOWED, detail, products=errors, full=full)
    if result.verdict == OK and not (deep > TF32_LEAST > full):
        detail = f"the deep product is off by {deep:.1e} in TF32 and {full:.1e} in full"
        return result._replace(verdict=FAULT, detail=f"{detail}: the precision has no effect")
    return result


def products_with_out(env: Setting) -> Result:
    """`out=` of every layout, and empty operands."""
    import cupy

    place, rng = env.place, np.random.default_rng([env.seed, 22])
    layouts: dict[str, View] = {
        "fresh": lambda x: x[:37, :41],
        "contiguous": lambda x: x.reshape(-1)[: 37 * 41].reshape(37, 41),
        "transposed": lambda x: x[:41, :37].mT,
        "window": lambda x: x.reshape(-1)[32 : 32 + 37 * 41].reshape(37, 41),
        "every other": lambda x: x[:74:2, :82:2],
        "backwards": lambda x: x[:37, :41][::-1],
    }
    errors = {}
    with running(place):
        a, gpu_a = random_array(place, rng, (37, 65), "float64")
        b, gpu_b = random_array(place, rng, (65, 41), "float64")
        for name, view in layouts.items():
            whole = cupy.full((90, 90), float("nan"))
            out = view(whole)
            same = place.xp.matmul(gpu_a, gpu_b, out=out) is out
            inside = int(cupy.isfinite(whole).sum()) == out.size
            errors[name] = distance(to_host(out), a, b) if same and inside else float("inf")
        c, gpu_c = random_array(place, rng, (48, 48), "float64")
        place.xp.matmul(gpu_c, gpu_c.mT, out=gpu_c)
        errors["over its operand"] = distance(to_host(gpu_c), c, c.T)
        poison(place)
        empty_sum = place.xp.matmul(cupy.ones((4, 0)), cupy.ones((0, 6)))
        errors["empty sum"] = float(abs(to_host(empty_sum)).max())
        shapes = [
            place.xp.matmul(cupy.ones(s), cupy.ones((3, 6))).shape for s in ((0, 3), (2, 0, 3))
        ]
        errors["no rows"] = 0.0 if shapes == [(0, 6), (2, 0, 6)] else float("inf")
    largest = float(np.max(list(errors.values())))
    allowed = PRODUCT_ALLOWED["float64"]
    return check_bound(largest, allowed, over_bound(errors, allowed), products=errors)


# 1, 3. products in recorded steps --------------------------------------------------------------


def tripwire(env: Setting) -> Result:
    """CuPy's own product raises during capture, which is why xpmlp has its own."""
    import cupy

    stream = new_stream(env.place)
    with stream.open():
        a = cupy.ones((4, 4), dtype="float32")
        cupy.matmul(a, a)
        try:
            record(stream, lambda: cupy.matmul(a, a), warmup=lambda: None)
        except NotImplementedError as error:
            return Result("raises NotImplementedError", detail=cuda.first_line(error))
    return Result("captured", "raises", NOTE, "CuPy captures its own products now: drop ours?")


def captured_products(env: Setting) -> Result:
    """A graph of products, replayed with new numbers in the same arrays."""
    place, rng = env.place, np.random.default_rng([env.seed, 3])
    errors: dict[str, float] = {}
    for dtype in ("float32", "float64"):
        stream = new_stream(place)
        with stream.open():
            pairs = [
                [random_array(place, rng, s, dtype)[1] for s in (case.a, case.b)]
                for case in OPERANDS
            ]

            def step(pairs: Any = pairs) -> list[Array]:
                return [
                    place.xp.matmul(case.view_a(a), case.view_b(b))
                    for case, (a, b) in zip(OPERANDS, pairs, strict=True)
                ]

            captured = record(stream, step)
            for replay in range(3):
                fresh = [[rng.standard_normal(x.shape).astype(dtype) for x in p] for p in pairs]
                for arrays, values in zip(pairs, fresh, strict=True):
                    for array, value in zip(arrays, values, strict=True):
                        array[...] = to_place(place, value)
                for out in captured.value:
                    out.fill(float("nan"))
                captured.launch()
                for case, (a, b), out in zip(OPERANDS, fresh, captured.value, strict=True):
                    error = distance(to_host(out), case.view_a(a), case.view_b(b))
                    errors[f"{case.name}, {dtype}, {replay}"] = error / PRODUCT_ALLOWED[dtype]
    largest = float(np.max(list(errors.values())))
    result = check_bound(largest, 1.0, over_bound(errors, 1.0), replays=3)
    return result._replace(figure=f"{largest:.2f} of the bound", allowed="1")


def epilogues(env: Setting) -> Result:
    """Which epilogues of products cuBLASLt has, with the results of the plain operations."""
    from xpmlp.devices.epilogues import EPILOGUES
    from xpmlp.recording.fused_products import FusedProducts

    with running(env.place):
        trusted = FusedProducts(env.place.xp.epilogues, env.place.xp).epilogues.trusted or ()
    conditions = {kind.name: kind in trusted for kind in EPILOGUES}
    result = check_all(conditions)  # without an epilogue the plain operations are used
    return result if result.verdict == OK else result._replace(verdict=NOTE)


CHECKS = (
    Check(1, "tripwire", tripwire),
    Check(2, "gemm-float64", products("float64")),
    Check(2, "gemm-float32", products("float32")),
    Check(2, "gemm-float16", products("float16")),
    Check(2, "gemm-tf32", tf32_products),
    Check(2, "gemm-out", products_with_out),
    Check(3, "gemm-captured", captured_products),
    Check(6, "epilogues", epilogues),
)
