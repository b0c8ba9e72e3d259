"""An array's own namespace and device, and the way to and from the host."""

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


def same_namespace(found, place):
    """A GPU's place has products of our own beneath CuPy's names."""
    return found.xp.__name__ == place.xp.__name__


def test_an_array_knows_its_place(place, array):
    found = place_of(array)
    assert same_namespace(found, place)
    again = found.xp.asarray([1.0], device=found.device)
    assert place_of(again) == found


def test_two_devices_of_one_namespace_are_two_places():
    strict = pytest.importorskip("array_api_strict")
    here, there = (
        strict.asarray([1.0], device=strict.Device(d)) for d in ("device1", "CPU_DEVICE")
    )
    assert place_of(here) != place_of(there)
    assert place_of(here).name != place_of(there).name


@pytest.mark.parametrize(
    "value",
    [[1, 2], (1.0,), 3, "a", None, {"a": 1}, range(3), memoryview(b"ab"), object()],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_what_has_no_namespace_is_on_the_cpu(value):
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
def test_to_a_place_and_back_are_the_same_bits(place, dtype, shape, rng):
    value = (10 * rng.normal(size=shape)).astype(dtype)
    there = to_place(place, value)
    assert same_namespace(place_of(there), place)
    assert dtype_name(there) == dtype
    back = to_host(there)
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert back.tobytes() == value.tobytes()


@pytest.mark.parametrize("layout", ["fortran", "strided", "reversed", "broadcast", "read-only"])
def test_every_layout_arrives(place, layout):
    plain = np.arange(12.0).reshape(3, 4)
    value = {
        "fortran": np.asfortranarray(plain),
        "strided": np.arange(24.0).reshape(3, 8)[:, ::2] / 2,
        "reversed": plain[::-1, ::-1].copy()[::-1, ::-1],
        "broadcast": np.broadcast_to(plain[:1], (3, 4)),
        "read-only": plain.copy(),
    }[layout]
    if layout == "read-only":
        value.setflags(write=False)
    assert (to_host(to_place(place, value)) == value).all()


def test_a_dtype_asked_for_is_the_one_that_arrives(place):
    there = to_place(place, np.array([1, 2]), "float32")
    assert dtype_name(there) == "float32"
    assert (to_host(there) == [1, 2]).all()


def test_what_arrives_on_another_place_is_a_copy(place):
    value = np.ones(3)
    there = to_place(place, value)
    if place.xp is np:  # and what stays is not copied
        assert there is value
        return
    value[...] = 5
    assert (to_host(there) == 1).all()


def test_a_view_comes_to_the_host(place, array):
    assert to_host(array[:, 1]).tolist() == [2.0, 4.0]
    assert to_host(array.mT).tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_results_come_like_the_caller(place, array):
    same = like_caller(array, array, place_of(array))
    assert same is array
    from_host = like_caller(array, np.ones((2, 2)), CPU)
    assert place_of(from_host) == place_of(array)
    to_numpy = like_caller([1.0], array, place_of(array))
    assert isinstance(to_numpy, np.ndarray)
    assert (to_numpy == [[1, 2], [3, 4]]).all()


def test_a_tensor_that_wants_gradients_comes_to_the_host():
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
    """An array of a namespace that nobody here knows, such as JAX's, which NumPy can read."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.dtype, self.shape, self.ndim = self.values.dtype, self.values.shape, self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __array_namespace__(self, api_version=None):
        return SimpleNamespace(__name__="foreign")


def test_an_array_of_an_unknown_namespace_comes_to_the_host():
    found = to_host(Foreign([[1.0, 2.0]]))
    assert type(found) is np.ndarray
    assert found.tolist() == [[1.0, 2.0]]
