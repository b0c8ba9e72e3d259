"""Products that end in a bias, relu, its slope or a sum: the numbers of the plain operations."""

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
    """How the stand-in's cuBLASLt differs from another, put back afterwards."""
    from support.standin import epilogues

    settings = epilogues.settings
    before = set(settings.refused), settings.drops_nan
    yield settings
    settings.refused, settings.drops_nan = before


@pytest.fixture
def ends(cupy, gpu):
    """A function that makes FusedProducts anew, which tries every kind."""

    def make(precision="full"):
        gemm = Gemm(precision)
        return FusedProducts(Epilogues(precision, gemm.workspace), gpu.xp)

    return make


@pytest.fixture
def drawn(cupy, rng):
    """A function that draws float32 arrays on the device."""
    return lambda *shape: cupy.asarray(rng.standard_normal(shape).astype("float32"))


def near(found, expected):
    found, expected = found.get(), expected.get()
    return found.shape == expected.shape and np.allclose(found, expected, CLOSE, CLOSE)


@pytest.mark.parametrize("name", ["identity", "relu"])
@pytest.mark.parametrize(("rows", "n_in", "n_out"), [(16, 37, 24), (5, 8, 300), (1, 4, 4)])
def test_a_layer_there_and_back(name, rows, n_in, n_out, ends, drawn, gpu):
    made, pair = ends(), activation(name)
    x, w, bias, delta = drawn(rows, n_in), drawn(n_in, n_out), drawn(1, n_out), drawn(rows, 7)
    above = drawn(n_out, 7)
    z, a, _ = activated(gpu.xp, pair.f, gpu.xp.matmul(x, w), bias)
    found = made.apply(activated, (pair.f, Product(x, w), bias, None), ())
    assert near(found[1], a)
    assert found[2] is found[1]
    back = Product(delta, above.mT)
    expected = returned(gpu.xp, pair.slope, gpu.xp.matmul(delta, above.mT), z, a)
    fast = made.apply(returned, (pair.slope, back, found[0], found[1], None), ())
    if name == "identity":  # nothing to end with
        assert fast is None
    else:
        assert near(fast, expected)


def test_a_layers_gradients(ends, drawn, gpu, cupy):
    x, delta = drawn(16, 37), drawn(16, 24)
    into = cupy.empty((37, 24), "float32"), cupy.empty((1, 24), "float32")
    assert ends().apply(gradients, (x, delta), into) == into
    for found, expected in zip(into, gradients(gpu.xp, x, delta), strict=True):
        assert near(found, expected)


def test_all_kinds_are_trusted_where_they_do_what_is_meant(ends):
    for precision in ("full", "tf32"):
        assert ends(precision).epilogues.trusted == {*EPILOGUES}


def test_relu_that_makes_zero_of_a_nan_is_not_trusted(ends, lt, drawn):
    """A network whose numbers overflow would go on in silence."""
    lt.drops_nan = True
    made, f = ends(), activation("relu").f
    assert made.epilogues.trusted == {*EPILOGUES} - {RELU_BIAS, RELU_AUX_BIAS}
    given = (f, Product(drawn(4, 4), drawn(4, 4)), drawn(1, 4), None)
    assert made.apply(activated, given, ()) is None


def test_an_end_with_other_numbers_is_not_trusted(ends, card, monkeypatch):
    from support.standin import epilogues

    signs = epilogues.signs
    monkeypatch.setattr(epilogues, "signs", lambda *place: signs(*place)[::-1])
    assert DRELU in ends().epilogues.trusted  # written and read the same way
    written = []

    def other(*place):
        written.append(place)
        return signs(*place)[:: 1 if len(written) % 2 else -1]

    monkeypatch.setattr(epilogues, "signs", other)
    assert DRELU not in ends().epilogues.trusted


def test_what_the_heuristic_refuses_is_made_the_plain_way(ends, lt, drawn):
    lt.refused = {"RELU_AUX_BIAS", "BGRADA"}
    made, pair = ends(), activation("relu")
    product, bias = Product(drawn(8, 8), drawn(8, 8)), drawn(1, 8)
    z, a, _ = made.apply(activated, (pair.f, product, bias, None), ())  # by RELU_BIAS
    assert z is a
    assert made.apply(returned, (pair.slope, product, z, a, None), ()) is None
    assert made.apply(gradients, (drawn(8, 8), drawn(8, 8)), (drawn(8, 8), drawn(1, 8))) is None


def test_a_product_that_is_refused_after_all_is_made_the_plain_way(ends, drawn, card, monkeypatch):
    from nvmath.bindings import cublasLt as lt
    from support.standin import epilogues

    made, matmul, calls = ends(), epilogues.matmul, []

    def refusing(*given):
        calls.append(given)
        raise lt.cuBLASLtError.__new__(lt.cuBLASLtError, 15)

    given = (activation("relu").f, Product(drawn(8, 8), drawn(8, 8)), drawn(1, 8), None)
    monkeypatch.setattr(epilogues, "matmul", refusing)
    for _ in range(2):
        assert made.apply(activated, given, ()) is None
    assert len(calls) == 2  # with relu's signs and without, and never again
    monkeypatch.setattr(epilogues, "matmul", matmul)
    assert made.apply(activated, given, ()) is None


def test_what_cublaslt_was_asked_with_is_destroyed(ends, lt, drawn, card):
    from support.standin import epilogues

    before = len(epilogues.descriptions), len(epilogues.layouts)
    lt.refused = {kind.name for kind in EPILOGUES}
    made = ends()
    assert made.epilogues.trusted == frozenset()
    assert (len(epilogues.descriptions), len(epilogues.layouts)) == before


def test_nothing_is_asked_for_in_a_capture(ends, drawn, cupy):
    """A shape that is new there is made the plain way; one that is known is captured."""
    made, f, stream = ends(), activation("relu").f, cupy.cuda.Stream(non_blocking=True)
    given = (f, Product(drawn(8, 8), drawn(8, 8)), drawn(1, 8), None)
    pool = cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        assert made.apply(activated, given, ()) is not None
        made.restart()
        cupy.empty(1 << 16)  # memory for the capture
        stream.begin_capture()
        assert made.apply(activated, given, ()) is not None
        other = (f, Product(given[1].a[:4], given[1].b), given[2], None)
        assert made.apply(activated, other, ()) is None
        stream.end_capture()
    made.restart()


@pytest.mark.parametrize("change", ["float64", "population", "unaligned", "dropout"])
def test_what_it_is_not_for_is_left_alone(change, ends, drawn, cupy):
    made, f = ends(), activation("relu").f
    a, b, bias, mask = drawn(8, 8), drawn(8, 8), drawn(1, 8), None
    if change == "float64":
        a, b, bias = (x.astype("float64") for x in (a, b, bias))
    if change == "population":
        a, b, bias = (cupy.stack([x, x]) for x in (a, b, bias))
    if change == "unaligned":
        b = drawn(80).reshape(-1)[3:67].reshape(8, 8)
    if change == "dropout":
        mask = cupy.ones((8, 8), "float32")
    assert made.apply(activated, (f, Product(a, b), bias, mask), ()) is None
