"""Products with a bias, relu, slope or sum as epilogue equal the separate operations."""

import numpy as np
import pytest

from xpmlp.activations import activation
from xpmlp.devices.epilogues import DRELU, EPILOGUES, RELU_AUX_BIAS, RELU_BIAS, Epilogues
from xpmlp.devices.gemm import Gemm
from xpmlp.network import activated, gradients, returned
from xpmlp.recording.fused_products import FusedProducts, Product

CLOSE = 1e-5  # relative: sums of 37 float32 in another order


@pytest.fixture
def cupy(gpu):
    import cupy

    return cupy


@pytest.fixture
def lt(card):
    """Settings of the stand-in's cuBLASLt, restored afterwards."""
    from support.standin import epilogues

    settings = epilogues.settings
    before = set(settings.refused), settings.drops_nan
    yield settings
    settings.refused, settings.drops_nan = before


@pytest.fixture
def make_products(cupy, gpu):
    """A function that makes new FusedProducts, which test every kind of epilogue."""

    def make(precision="full"):
        gemm = Gemm(precision)
        return FusedProducts(Epilogues(precision, gemm.workspace), gpu.xp)

    return make


@pytest.fixture
def random_array(cupy, rng):
    """A function that makes random float32 arrays on the device."""
    return lambda *shape: cupy.asarray(rng.standard_normal(shape).astype("float32"))


def is_close(actual, expected):
    actual, expected = actual.get(), expected.get()
    return actual.shape == expected.shape and np.allclose(actual, expected, CLOSE, CLOSE)


@pytest.mark.parametrize("name", ["identity", "relu"])
@pytest.mark.parametrize(("rows", "n_in", "n_out"), [(16, 37, 24), (5, 8, 300), (1, 4, 4)])
def test_forward_and_backward_of_a_layer(name, rows, n_in, n_out, make_products, random_array, gpu):
    products, pair = make_products(), activation(name)
    x, w, bias, delta = (
        random_array(rows, n_in),
        random_array(n_in, n_out),
        random_array(1, n_out),
        random_array(rows, 7),
    )
    next_weights = random_array(n_out, 7)
    z, a, _ = activated(gpu.xp, pair.f, gpu.xp.matmul(x, w), bias)
    actual = products.apply(activated, (pair.f, Product(x, w), bias, None), ())
    assert is_close(actual[1], a)
    assert actual[2] is actual[1]
    backward_product = Product(delta, next_weights.mT)
    expected = returned(gpu.xp, pair.slope, gpu.xp.matmul(delta, next_weights.mT), z, a)
    fast = products.apply(returned, (pair.slope, backward_product, actual[0], actual[1], None), ())
    if name == "identity":  # no epilogue
        assert fast is None
    else:
        assert is_close(fast, expected)


def test_gradients_of_a_layer(make_products, random_array, gpu, cupy):
    x, delta = random_array(16, 37), random_array(16, 24)
    into = cupy.empty((37, 24), "float32"), cupy.empty((1, 24), "float32")
    assert make_products().apply(gradients, (x, delta), into) == into
    for actual, expected in zip(into, gradients(gpu.xp, x, delta), strict=True):
        assert is_close(actual, expected)


def test_correct_epilogues_are_trusted(make_products):
    for precision in ("full", "tf32"):
        assert make_products(precision).epilogues.trusted == {*EPILOGUES}


def test_a_relu_epilogue_that_drops_nan_is_not_trusted(make_products, lt, random_array):
    """Otherwise an overflow would not be noticed."""
    lt.drops_nan = True
    products, f = make_products(), activation("relu").f
    assert products.epilogues.trusted == {*EPILOGUES} - {RELU_BIAS, RELU_AUX_BIAS}
    arguments = (f, Product(random_array(4, 4), random_array(4, 4)), random_array(1, 4), None)
    assert products.apply(activated, arguments, ()) is None


def test_an_epilogue_with_wrong_values_is_not_trusted(make_products, card, monkeypatch):
    from support.standin import epilogues

    signs = epilogues.signs
    monkeypatch.setattr(epilogues, "signs", lambda *arguments: signs(*arguments)[::-1])
    assert DRELU in make_products().epilogues.trusted  # written and read in the same layout
    outputs = []

    def wrong_values(*arguments):
        outputs.append(arguments)
        return signs(*arguments)[:: 1 if len(outputs) % 2 else -1]

    monkeypatch.setattr(epilogues, "signs", wrong_values)
    assert DRELU not in make_products().epilogues.trusted


def test_falls_back_where_the_heuristic_finds_nothing(make_products, lt, random_array):
    lt.refused = {"RELU_AUX_BIAS", "BGRADA"}
    products, pair = make_products(), activation("relu")
    product, bias = Product(random_array(8, 8), random_array(8, 8)), random_array(1, 8)
    z, a, _ = products.apply(activated, (pair.f, product, bias, None), ())  # by RELU_BIAS
    assert z is a
    assert products.apply(returned, (pair.slope, product, z, a, None), ()) is None
    assert (
        products.apply(
            gradients,
            (random_array(8, 8), random_array(8, 8)),
            (random_array(8, 8), random_array(1, 8)),
        )
        is None
    )


def test_falls_back_where_a_launch_fails(make_products, random_array, card, monkeypatch):
    from nvmath.bindings import cublasLt as lt
    from support.standin import epilogues

    products, matmul, calls = make_products(), epilogues.matmul, []

    def refusing(*arguments):
        calls.append(arguments)
        raise lt.cuBLASLtError.__new__(lt.cuBLASLtError, 15)

    arguments = (
        activation("relu").f,
        Product(random_array(8, 8), random_array(8, 8)),
        random_array(1, 8),
        None,
    )
    monkeypatch.setattr(epilogues, "matmul", refusing)
    for _ in range(2):
        assert products.apply(activated, arguments, ()) is None
    assert len(calls) == 2  # with relu's signs and without, and not again
    monkeypatch.setattr(epilogues, "matmul", matmul)
    assert products.apply(activated, arguments, ()) is None


def test_cublaslt_descriptors_are_destroyed(make_products, lt, random_array, card):
    from support.standin import epilogues

    before = len(epilogues.descriptions), len(epilogues.layouts)
    lt.refused = {kind.name for kind in EPILOGUES}
    products = make_products()
    assert products.epilogues.trusted == frozenset()
    assert (len(epilogues.descriptions), len(epilogues.layouts)) == before


def test_no_heuristic_runs_in_a_capture(make_products, random_array, cupy):
    """In a capture, a new shape runs without an epilogue; a known shape keeps its epilogue."""
    products, f, stream = make_products(), activation("relu").f, cupy.cuda.Stream(non_blocking=True)
    known_shape = (f, Product(random_array(8, 8), random_array(8, 8)), random_array(1, 8), None)
    pool = cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        assert products.apply(activated, known_shape, ()) is not None
        products.restart()
        cupy.empty(1 << 16)  # memory for the capture
        stream.begin_capture()
        assert products.apply(activated, known_shape, ()) is not None
        new_shape = (f, Product(known_shape[1].a[:4], known_shape[1].b), known_shape[2], None)
        assert products.apply(activated, new_shape, ()) is None
        stream.end_capture()
    products.restart()


@pytest.mark.parametrize("change", ["float64", "population", "unaligned", "dropout"])
def test_other_products_are_not_fused(change, make_products, random_array, cupy):
    products, f = make_products(), activation("relu").f
    a, b, bias, mask = random_array(8, 8), random_array(8, 8), random_array(1, 8), None
    if change == "float64":
        a, b, bias = (x.astype("float64") for x in (a, b, bias))
    if change == "population":
        a, b, bias = (cupy.stack([x, x]) for x in (a, b, bias))
    if change == "unaligned":
        b = random_array(80).reshape(-1)[3:67].reshape(8, 8)
    if change == "dropout":
        mask = cupy.ones((8, 8), "float32")
    assert products.apply(activated, (f, Product(a, b), bias, mask), ()) is None
