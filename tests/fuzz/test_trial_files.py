"""Hostile files: the changes are effective, and every error of a loader is found."""

import hashlib
import json
import random
import re
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest

from fuzz import trial_files as module
from fuzz.mutate_bytes import DAMAGES, halves, joined, with_digest
from fuzz.mutate_header import FORGERIES, ODD_VALUES, join_file, odd_value, split_file
from fuzz.trial_files import (
    LOADED,
    MEMORY,
    MEMORY_PER_BYTE,
    REFUSED,
    Fault,
    Kind,
    load_measured,
    make_case,
    source,
    trial,
)  # fmt: skip
from xpmlp import Model, Spec, load, train
from xpmlp.devices.namespace import CPU
from xpmlp.layout import padded_size
from xpmlp.storage.model_file import encode
from xpmlp.training.labels import Labels

ROWS = np.random.default_rng(3).normal(size=(12, 3))


def use(model):
    assert model.predict(np.zeros((2, model.spec.n_in))).shape[-1] == 2


def pack(model):
    return encode(*model._parts())


NETWORK = Kind(load, pack, use)


@pytest.fixture(scope="module")
def good():
    labels = np.array(["no", "yes"])[np.arange(12) % 2]
    return pack(train("3-4-2", ROWS, labels, loss="cross_entropy", epochs=1))


@pytest.fixture(scope="module")
def other():
    return pack(train("3-2", ROWS, ROWS[:, :2], epochs=1, seed=5, members=2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_changes_a_file(name, good, other):
    changed = {DAMAGES[name](good, random.Random(seed), other) for seed in range(20)}
    assert len(changed - {good}) > 3


@pytest.mark.parametrize("name", [name for name in FORGERIES if name != "untouched"])
def test_every_forgery_changes_a_file(name, good, other):
    changed = set()
    for seed in range(20):
        parts = split_file(good)
        FORGERIES[name](parts, random.Random(seed), split_file(other))
        header, body = halves(join_file(parts))
        changed.add((header, body))
    unchanged = halves(join_file(split_file(good)))
    assert changed - {unchanged}


def test_a_seed_always_makes_the_same_file(good, other):
    fixed = join_file(split_file(FIXED))
    cases = [make_case(fixed, random.Random(f"0/{i}"), fixed) for i in range(200)]
    repeated = [make_case(fixed, random.Random(f"0/{i}"), fixed) for i in range(200)]
    assert cases == repeated
    assert len({case.data for case in cases}) > 150
    assert {name for case in cases for name in case.changes} == {*DAMAGES, *FORGERIES}


METADATA = {"config": '{"members":null,"a":[1,{"b":2.5}]}', "sha256": "0" * 64}
HEADER = {
    "__metadata__": METADATA,
    "layers.0.weights": {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 48]},
    "layers.0.bias": {"dtype": "F64", "shape": [3], "data_offsets": [48, 72]},
}
TEXT = json.dumps(HEADER, separators=(",", ":")).encode()
FIXED = len(TEXT).to_bytes(8, "little") + TEXT + bytes(range(72))


def test_odd_values_are_copies():
    shared = {id(value) for value in ODD_VALUES if isinstance(value, list | dict)}
    values = [odd_value(0, random.Random(seed)) for seed in range(500)]
    assert any(isinstance(value, list | dict) for value in values)
    assert not shared & {id(value) for value in values}


def test_with_digest_sets_a_valid_digest(good):
    data = with_digest(good[:-1] + b"\x55")
    digest = re.search(rb'"sha256":"([0-9a-f]{64})"', data)[1]
    blank = data.replace(digest, b"0" * 64, 1)
    assert hashlib.sha256(blank).hexdigest().encode() == digest
    assert with_digest(good) == good


def test_forgeries_get_past_the_digest(good, other, path):
    """Otherwise a checksum alone would pass: files with a valid digest load or are refused."""
    path.write_bytes(good)
    first = source("first", NETWORK, path)
    outcomes, messages = set(), set()
    for seed in range(300):
        case, outcome = trial(first, first, random.Random(seed), path)
        outcomes.add((outcome, case.sealed))
        if case.sealed and outcome == REFUSED:
            with pytest.raises(ValueError, match="not a whole model file") as caught:
                load(path)
            messages.add(str(caught.value).partition("file: ")[2][:12])
    assert {(LOADED, True), (LOADED, False), (REFUSED, True), (REFUSED, False)} <= outcomes
    assert len(messages) > 15


def first_fault(good, other, path, load, **changes):
    """The first fault of a loader that trials find, or None."""
    path.write_bytes(good)
    first = source("first", NETWORK, path)
    path.write_bytes(other)
    second = source("second", NETWORK, path)
    broken = first._replace(kind=NETWORK._replace(load=load, **changes))
    try:
        for seed in range(200):
            trial(broken, second, random.Random(seed), path)
    except Fault as fault:
        return str(fault)
    return None


def test_the_real_loader_has_no_fault(good, other, path):
    assert first_fault(good, other, path, load) is None


def without_path(path):
    try:
        return load(path)
    except ValueError as error:
        raise ValueError("not a model file") from error


def of_another_type(path):
    try:
        return load(path)
    except ValueError as error:
        raise KeyError(str(error)) from error


def endless(path):
    try:
        return load(path)
    except ValueError as error:
        raise ValueError(str(error) * 1000) from error


def warning(path):
    warnings.warn("this is odd", stacklevel=1)
    return load(path)


def trusting(path):
    """A loader that checks no digest."""
    data = path.read_bytes()
    path.write_bytes(with_digest(data))
    try:
        return load(path)
    finally:
        path.write_bytes(data)


def careless(path):
    """A loader that returns other numbers than those of the file."""
    model = load(path)
    model.flat[..., 0] += 1
    return model


def forgetful(path):
    """A loader that loses the labels."""
    model = load(path)
    return replace(model, _labels=Labels(None, False))


def wasteful(path):
    """A loader that empties a file that it refuses."""
    try:
        return load(path)
    except ValueError:
        path.unlink()
        path.touch()
        raise


def untidy(path):
    """A loader that leaves another file."""
    path.with_suffix(f".{time.monotonic_ns()}").touch()
    return load(path)


BROKEN = {
    "ValueError without the path": without_path,
    "KeyError": of_another_type,
    "characters": endless,
    "UserWarning": warning,
    "a changed file loads": trusting,
    "another layers.0.weights than it says": careless,
    "the good file loads as another": forgetful,
    "its folder is another": wasteful,
    "folder is another after the load": untidy,
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_faulty_loader_is_found(message, good, other, path):
    fault = first_fault(good, other, path, BROKEN[message])
    assert fault is not None
    assert message in fault or (message.startswith("another") and "saved again" in fault)
    assert fault.startswith("first, "), "it says of which file, and by which changes"


def test_only_the_warning_of_the_kind_is_allowed(good, other, path):
    assert first_fault(good, other, path, warning, warns=".*odd") is None
    assert "UserWarning" in first_fault(good, other, path, warning, warns="even")


def test_a_model_that_fails_when_used_is_found(good, other, path):
    def failing(model):
        raise IndexError("out of range")

    assert "then: IndexError: out of range" in first_fault(good, other, path, load, use=failing)


def test_a_slow_loader_is_found(good, path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(module, "SECONDS_PER_BYTE", 0.0)
    path.write_bytes(good)
    with pytest.raises(Fault, match=r"seconds for a file of"):
        load_measured(NETWORK, path, len(good))


def test_a_loader_that_takes_too_much_memory_is_found(good, path, traced):
    path.write_bytes(good)

    def greedy(path):
        return np.zeros(MEMORY + MEMORY_PER_BYTE * len(good)), load(path)

    with pytest.raises(Fault, match=r"bytes of memory for a file of"):
        load_measured(NETWORK._replace(load=greedy), path, len(good))
    assert load_measured(NETWORK, path, len(good)) is not None


@pytest.fixture
def traced():
    module.tracemalloc.start()
    yield
    module.tracemalloc.stop()


# texts that take the most memory for their size, as header or configuration
COSTLY = {
    "lists": lambda n: "[" + "[]," * n + "[]]",
    "objects": lambda n: "[" + "{}," * n + "{}]",
    "keys": lambda n: "{" + ",".join(f'"{i:x}":0' for i in range(n)) + "}",
    "numbers": lambda n: "[" + "1," * n + "1]",
    "floats": lambda n: "[" + "1.5," * n + "1]",
    "strings": lambda n: "[" + '"ab",' * n + '"ab"]',
    "one string": lambda n: '"' + "é" * n + '"',
    "depth": lambda n: "[" * 900 + "]" * 900,
    "a number": lambda n: "1" * n,
    "a long fraction": lambda n: "1." + "1" * n,
}  # fmt: skip


@pytest.mark.parametrize("where", ["header", "configuration", "classes"])
@pytest.mark.parametrize("kind", COSTLY)
def test_a_load_takes_at_most_a_multiple_of_the_size_of_the_file(kind, where, good, path, traced):
    parts, costly = split_file(good), COSTLY[kind](20_000)
    config = parts.header["__metadata__"]["config"]
    if where == "classes":
        config = json.dumps(parts.config | {"classes": "HEAVY"}).replace('"HEAVY"', costly)
    data = with_config(parts, costly if where == "configuration" else config)
    if where == "header":
        header, body = halves(data)
        header = header[:-1] + b',"x":' + costly.encode() + b"}"
        data = joined(header, body)
    path.write_bytes(with_digest(data))
    assert load_measured(NETWORK, path, len(data)) is None


def with_config(parts, config):
    """The file with this configuration, given as text."""
    parts.header["__metadata__"]["config"] = config
    return joined(json.dumps(parts.header, separators=(",", ":")).encode(), bytes(parts.body))


def test_a_large_file_takes_a_small_multiple_of_its_size(path, traced):
    spec = Spec.parse("1000-1000-2")
    flat = np.ones(padded_size(spec))
    Model(spec, flat, CPU, Labels(None, False)).save(path)
    size = path.stat().st_size
    module.tracemalloc.reset_peak()
    before = module.tracemalloc.get_traced_memory()[0]
    loaded = load(path)
    peak = module.tracemalloc.get_traced_memory()[1] - before
    assert loaded.flat.nbytes < peak < 5 * size
