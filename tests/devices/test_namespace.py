"""The namespace and device of an array, and transfers to and from the host."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.devices.namespace import (
    CPU,
    dtype_name,
    is_array,
    like_caller,
    place_of,
    to_host,
    to_place,
)

DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool"]


@pytest.fixture
def array(place):
    return place.xp.asarray([[1.0, 2.0], [3.0, 4.0]], device=place.device)


def same_namespace(actual, place):
    """The namespace of a GPU replaces CuPy's products."""
    return actual.xp.__name__ == place.xp.__name__


def test_place_of_an_array(place, array):
    actual = place_of(array)
    assert same_namespace(actual, place)
    array_there = actual.xp.asarray([1.0], device=actual.device)
    assert place_of(array_there) == actual


def test_two_devices_of_one_namespace_are_two_places():
    strict = pytest.importorskip("array_api_strict")
    first, second = (
        strict.asarray([1.0], device=strict.Device(d)) for d in ("device1", "CPU_DEVICE")
    )
    assert place_of(first) != place_of(second)
    assert place_of(first).name != place_of(second).name


@pytest.mark.parametrize(
    "value",
    [[1, 2], (1.0,), 3, "a", None, {"a": 1}, range(3), memoryview(b"ab"), object()],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_objects_without_a_namespace_are_on_the_cpu(value):
    assert place_of(value) is CPU
    assert not is_array(value)


def test_frames_are_on_the_cpu():
    for module in ("pandas", "polars"):
        frame = pytest.importorskip(module).DataFrame({"a": [1.0]})
        assert place_of(frame) is CPU
        assert not is_array(frame)


def test_numpy_arrays_and_scalars_are_arrays():
    for value in (
        np.zeros(2),
        np.float64(1),
        np.ma.masked_array([1.0]),
        np.zeros(2).view(np.matrix),
    ):
        assert is_array(value)
        assert place_of(value) is CPU


def test_arrays_of_every_namespace_are_arrays(array):
    assert is_array(array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 2)])
def test_round_trip_to_a_place_keeps_the_bits(place, dtype, shape, rng):
    value = (10 * rng.normal(size=shape)).astype(dtype)
    converted = to_place(place, value)
    assert same_namespace(place_of(converted), place)
    assert dtype_name(converted) == dtype
    restored = to_host(converted)
    assert isinstance(restored, np.ndarray)
    assert (restored.dtype, restored.shape) == (value.dtype, value.shape)
    assert restored.tobytes() == value.tobytes()


@pytest.mark.parametrize("layout", ["fortran", "strided", "reversed", "broadcast", "read-only"])
def test_every_layout_is_transferred(place, layout):
    contiguous = np.arange(12.0).reshape(3, 4)
    value = {
        "fortran": np.asfortranarray(contiguous),
        "strided": np.arange(24.0).reshape(3, 8)[:, ::2] / 2,
        "reversed": contiguous[::-1, ::-1].copy()[::-1, ::-1],
        "broadcast": np.broadcast_to(contiguous[:1], (3, 4)),
        "read-only": contiguous.copy(),
    }[layout]
    if layout == "read-only":
        value.setflags(write=False)
    assert (to_host(to_place(place, value)) == value).all()


def test_a_transfer_converts_to_the_given_dtype(place):
    converted = to_place(place, np.array([1, 2]), "float32")
    assert dtype_name(converted) == "float32"
    assert (to_host(converted) == [1, 2]).all()


def test_a_transfer_to_another_place_copies(place):
    value = np.ones(3)
    converted = to_place(place, value)
    if place.xp is np:  # without a transfer there is no copy
        assert converted is value
        return
    value[...] = 5
    assert (to_host(converted) == 1).all()


def test_a_view_is_transferred_to_the_host(place, array):
    assert to_host(array[:, 1]).tolist() == [2.0, 4.0]
    assert to_host(array.mT).tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_results_are_returned_in_the_callers_namespace(place, array):
    same = like_caller(array, array, place_of(array))
    assert same is array
    from_host = like_caller(array, np.ones((2, 2)), CPU)
    assert place_of(from_host) == place_of(array)
    to_numpy = like_caller([1.0], array, place_of(array))
    assert isinstance(to_numpy, np.ndarray)
    assert (to_numpy == [[1, 2], [3, 4]]).all()


def test_a_tensor_with_requires_grad_is_transferred_to_the_host():
    torch = pytest.importorskip("torch")
    assert to_host(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_numpy_needs_no_other_package():
    program = (
        "import sys, numpy as np; from xpmlp.devices.namespace import place_of, to_host;"
        "place_of(np.ones(2)), place_of([1]), to_host(np.ones(2));"
        "sys.exit(any(name in sys.modules for name in ('array_api_compat', 'torch', 'cupy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


class Foreign:
    """An array of an unsupported namespace, such as JAX's, that NumPy can read."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.dtype, self.shape, self.ndim = self.values.dtype, self.values.shape, self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __array_namespace__(self, api_version=None):
        return SimpleNamespace(__name__="foreign")


def test_an_array_of_an_unknown_namespace_is_transferred_to_the_host():
    actual = to_host(Foreign([[1.0, 2.0]]))
    assert type(actual) is np.ndarray
    assert actual.tolist() == [[1.0, 2.0]]
