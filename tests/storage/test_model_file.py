"""Model files: a saved model loads unchanged, and any other file is refused by name."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date, datetime

import numpy as np
import pytest

import xpmlp
from xpmlp import Spec, load, save, train
from xpmlp.devices.namespace import to_host
from xpmlp.layout import padded_size
from xpmlp.storage.checksummed import BLANK, MAX_HEADER_BYTES
from xpmlp.storage.model_file import encode


@pytest.fixture
def rows(rng):
    return rng.normal(size=(12, 3))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def small(rows, **arguments):
    return train("3-4-2", rows, rows[:, :2], **{"epochs": 2} | arguments)


def dense(n_in, n_out, **changes):
    """A dense layer as JSON."""
    layer = {"kind": "Dense", "n_in": n_in, "n_out": n_out, "activation": "relu", "dropout": 0.0}
    return layer | changes


def assert_same(loaded, model):
    assert to_host(loaded.flat).dtype == to_host(model.flat).dtype
    assert to_host(loaded.flat).tobytes() == to_host(model.flat).tobytes()
    assert loaded.spec == model.spec
    assert loaded.members == model.members
    assert loaded._labels.flat == model._labels.flat
    if model.classes_ is None:
        assert loaded.classes_ is None
    else:
        assert loaded.classes_.dtype == model.classes_.dtype
        assert loaded.classes_.tolist() == model.classes_.tolist()


# round trips

SPECS = {
    "plain": Spec.parse("3-4-2"),
    "one layer": Spec.parse("3-2"),
    "deep, with arguments": Spec.parse(
        "3-5-4-2", activation=["leaky_relu:0.2", "elu:0.5"], dropout=[0.1, 0.3], loss="huber:1.35"
    ),
    "an activation at the end": Spec.parse("3-4-2", activation=["tanh", "sigmoid"]),
    "one neuron": Spec.parse("3-1-2"),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("members", [None, 1, 3])
def test_model_round_trip(name, dtype, members, rows, path):
    model = train(
        SPECS[name], rows, 0.5 * np.tanh(rows[:, :2]), epochs=2, dtype=dtype, members=members
    )
    save(model, path)
    loaded = load(path)
    assert_same(loaded, model)
    assert loaded.predict(rows).tobytes() == model.predict(rows).tobytes()


@pytest.mark.parametrize("days", [
    [date(2020, 1, 2), date(2021, 3, 4)],
    [datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 3, 4, 6)],
    np.array(["2020-01-02", "2021-03-04"], dtype="datetime64[D]"),
], ids=["date", "datetime", "NumPy"])  # fmt: skip
def test_dates_as_labels_round_trip(days, rows, path):
    y = [days[i % 2] for i in range(len(rows))]
    model = train("3-4-2", rows, y, loss="cross_entropy", epochs=2)
    assert model.classes_.tolist() == np.asarray(days).tolist()
    save(model, path)
    loaded = load(path)
    assert_same(loaded, model)
    assert loaded.predict(rows).tolist() == model.predict(rows).tolist()
    assert set(loaded.predict(rows).tolist()) <= set(np.asarray(days).tolist())


@pytest.mark.parametrize("wrong", ["path", 3, {}, type("Parts", (), {"_parts": None})])
def test_only_a_model_is_saved(wrong, path):
    with pytest.raises(TypeError, match=r"^save takes a Model"):
        save(wrong, path)
    assert not os.path.exists(path)


def test_a_model_of_any_namespace_loads_on_the_cpu(place, rows, path):
    X, y = (place.xp.asarray(a, device=place.device) for a in (rows, rows[:, :2]))
    model = train("3-4-2", X, y, epochs=1)
    save(model, path)
    loaded = load(path)
    assert isinstance(loaded.flat, np.ndarray)
    assert_same(loaded, model)
    assert_same(load(path, device="cpu"), model)


SIDE = np.arange(12) % 2
LABELS = {
    "ints": SIDE,
    "uint8": SIDE.astype(np.uint8),
    "uint64": np.array([0, 2**64 - 1], dtype=np.uint64)[SIDE],
    "big-endian": SIDE.astype(">i4"),
    "bools": SIDE == 1,
    "floats": np.array([0.1, 1 / 3])[SIDE],
    "float32": np.array([0.1, 1 / 3], dtype=np.float32)[SIDE],
    "strings": np.array(["no", "yes, a long one"])[SIDE],
    "accents and emoji": np.array(["né", "🦉"])[SIDE],
    "quotes and newlines": np.array(['a"b', "c\\\n\x00d"])[SIDE],
    "empty strings": np.array(["", "b"])[SIDE],
    "zeros like a blank digest": np.array([BLANK, "b"])[SIDE],
    "object strings": np.array(["no", "yes"], dtype=object)[SIDE],
    "large ints": np.array([0, 2**70], dtype=object)[SIDE],
    "numpy strings": np.array(["no", "yes"], dtype=np.dtypes.StringDType())[SIDE],
    "bytes": np.array([b"no", b"\xffyes"])[SIDE],
    "days": np.array(["2026-01-01", "2026-02-01"], dtype="M8[D]")[SIDE],
    "nanoseconds": np.array(["2026-01-01", "2026-02-01"], dtype="M8[ns]")[SIDE],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_round_trip(kind, rows, path):
    model = train("3-4-2", rows, LABELS[kind], loss="cross_entropy", epochs=2)
    save(model, path)
    loaded = load(path)
    assert_same(loaded, model)
    assert loaded.predict(rows).tolist() == model.predict(rows).tolist()
    assert loaded.predict(rows).dtype == model.predict(rows).dtype


def test_a_label_may_look_like_a_blank_digest(rows, path):
    model = train(
        "3-4-2", rows, LABELS["zeros like a blank digest"], loss="cross_entropy", epochs=1
    )
    for _ in range(20):  # safetensors writes the metadata in an order that differs by the call
        save(model, path)
        assert_same(load(path), model)


@pytest.mark.parametrize("loss", ["poisson", "binary_cross_entropy", "quantile:0.1,0.9"])
def test_losses_and_links_round_trip(loss, rows, path):
    n_out = 2 if loss.startswith("quantile") else 1
    model = train(f"3-4-{n_out}", rows, SIDE, loss=loss, epochs=2)
    save(model, path)
    assert load(path).predict(rows).tolist() == model.predict(rows).tolist()
    assert load(path).predict_proba(rows).tolist() == model.predict_proba(rows).tolist()


def test_extreme_weights_come_back_bit_for_bit(rows, path):
    model = small(rows)
    weights = model.params[0].weights
    tiny = np.nextafter(0.0, 1)
    weights[0] = [-0.0, tiny, np.finfo(float).max, np.pi]
    save(model, path)
    loaded = load(path)
    assert_same(loaded, model)
    assert np.signbit(loaded.params[0].weights[0, 0])


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda flat: np.repeat(flat, 2, axis=-1)[..., ::2]]
)
@pytest.mark.parametrize("members", [None, 3])
def test_fortran_ordered_and_strided_arrays_survive(layout, members, rows, path):
    model = small(rows, members=members)
    rearranged = replace(model, flat=layout(model.flat))
    assert members is None or not rearranged.flat.flags.c_contiguous
    save(rearranged, path)
    assert_same(load(path), model)


def test_a_saved_model_saves_to_the_same_bytes_again(rows, path):
    model = small(rows)
    save(model, path)
    once = arrays_and_spec(path.read_bytes())
    save(load(path), path)
    assert arrays_and_spec(path.read_bytes()) == once


def arrays_and_spec(data):
    header, body = split_file(data)
    config = json.loads(header["__metadata__"]["config"])
    return {name: header[name] for name in header if name != "__metadata__"}, body, config["spec"]


def test_the_padding_of_the_buffer_is_not_saved(rows, path):
    save(small(rows), path)
    header, body = split_file(path.read_bytes())
    assert len(body) == 8 * (3 * 4 + 4 + 4 * 2 + 2)
    assert header["layers.0.weights"]["shape"] == [3, 4]
    assert header["layers.0.bias"]["shape"] == [4]
    assert (load(path).flat[12:32] == 0).all()


def test_safetensors_reads_the_arrays(rows, path):
    from safetensors.numpy import load_file

    model = small(rows, members=2)
    save(model, path)
    arrays = load_file(path)
    assert (arrays["layers.1.weights"] == model.params[1].weights).all()
    assert (arrays["layers.1.bias"] == model.params[1].bias[:, 0, :]).all()


@pytest.mark.filterwarnings("ignore:.* diverged and is stopped")
def test_the_results_of_training_are_standard_json(rows, path):
    """Even if a loss is NaN, which JSON lacks."""
    model = train(
        "3-4-4-2",
        rows,
        rows[:, :2],
        members=2,
        learning_rate=[1e-3, 1e30],
        optimizer="sgd",
        epochs=20,
    )
    save(model, path)
    header, _ = split_file(path.read_bytes())

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    config = json.loads(header["__metadata__"]["config"], parse_constant=refuse)
    assert config["trained"]["epochs"] == 20


# what cannot be saved


@pytest.mark.parametrize("part", ["activation", "loss"])
def test_a_user_function_is_refused_before_the_file_is_opened(part, rows, path):
    def own_activation(xp, z):
        return xp.tanh(z), 1 - xp.tanh(z) ** 2

    def own_loss(xp, score, target):
        e = score - target
        return xp.sum(0.5 * e * e, axis=-1), e

    custom = {"activation": own_activation, "loss": own_loss}[part]
    model = train(Spec.parse("3-4-2", **{part: custom}), rows, rows[:, :2], epochs=1)
    path.write_bytes(b"the old file")
    with pytest.raises(ValueError, match=f"own_{part}"):
        save(model, path)
    assert path.read_bytes() == b"the old file"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["\ud800", "b"]), "unpaired surrogate"),
        (np.array([0, 10**400], dtype=object), "beyond the range of float64"),
    ],
)
def test_labels_that_json_lacks_are_refused_before_the_file_is_opened(labels, message, rows, path):
    model = train("3-2", rows, labels[SIDE], loss="cross_entropy", epochs=1)
    with pytest.raises(ValueError, match=message):
        save(model, path)
    assert not path.exists()


def test_an_unwritable_path_is_named(rows, tmp_path):
    missing = tmp_path / "missing" / "model.safetensors"
    with pytest.raises(OSError, match=r".") as caught:
        save(small(rows), missing)
    assert str(missing) in str(caught.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(tmp_path / "nothing")


# invalid files


def try_load(path, data):
    """The model; None if `load` raises a ValueError that names the path."""
    path.write_bytes(data)
    try:
        return load(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 - a mutation may also leave the file valid
        return None


def split_file(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_file(header, body, *, signed=True):
    """A file of this header and body, with the correct digest if `signed`."""
    if signed and "__metadata__" in header:
        header["__metadata__"]["sha256"] = BLANK
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + body
    if signed:
        digest = hashlib.sha256(data).hexdigest()
        data = data.replace(BLANK.encode(), digest.encode(), 1)
    return data


def test_the_helpers_rebuild_a_file_that_loads(rows, path):
    model = small(rows)
    assert_same(try_load(path, join_file(*split_file(encode(*model._parts())))), model)


def test_random_damage_is_refused_or_harmless(rows, path, rng):
    model = small(rows, members=2)
    data = encode(*model._parts())
    other_file = encode(*small(rows, seed=5)._parts())

    def mutated():
        kind = rng.integers(7)
        at = int(rng.integers(len(data)))
        end = int(rng.integers(at, len(data)))
        if kind == 0:  # flip a bit
            return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        if kind == 1:
            return data[:at]
        if kind == 2:  # cut a piece out
            return data[:at] + data[end + 1 :]
        if kind == 3:  # repeat a piece
            return data[:end] + data[at:]
        if kind == 4:  # splice with another model's file
            return data[:at] + other_file[at:]
        if kind == 5:  # overwrite with noise
            return data[:at] + rng.bytes(end - at) + data[end:]
        return data + rng.bytes(1 + at % 40)

    for _ in range(500):
        damaged = mutated()
        loaded = try_load(path, damaged)
        if loaded is not None:
            assert damaged in (data, other_file)
            assert_same(loaded, model if damaged == data else small(rows, seed=5))


def test_every_flipped_byte_of_the_header_is_refused(rows, path):
    data = encode(*train("1-1", rows[:, :1], rows[:, 0], epochs=1)._parts())
    size = 8 + int.from_bytes(data[:8], "little")
    for at in range(0, size):
        for flip in (0x01, 0x20):
            assert try_load(path, data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]) is None


def test_every_truncation_is_refused(rows, path):
    data = encode(*train("1-1", rows[:, :1], rows[:, 0], epochs=1)._parts())
    for size in range(len(data)):
        assert try_load(path, data[:size]) is None


def test_random_edits_with_a_valid_digest_are_refused_or_a_model(rows, path, rng):
    """Never any other exception, whoever wrote the file."""
    data = encode(*train("3-4-2", rows, LABELS["strings"], loss="cross_entropy", epochs=1)._parts())
    invalid_values = [
        None,
        -1,
        0,
        3,
        2.5,
        "",
        "x",
        [],
        [1],
        {},
        True,
        10**30,
        "float32",
        [[3, 3, "relu", 0]],
    ]

    def edit(value, depth):
        """`value` with one random part of it replaced or removed."""
        if isinstance(value, dict | list) and value and (depth == 0 or rng.random() < 0.8):
            keys = list(value) if isinstance(value, dict) else range(len(value))
            key = keys[int(rng.integers(len(keys)))]
            if rng.random() < 0.15:
                del value[key]
            else:
                value[key] = edit(value[key], depth + 1)
            return value
        return invalid_values[int(rng.integers(len(invalid_values)))]

    for _ in range(300):
        header, body = split_file(data)
        if rng.random() < 0.7:
            metadata = header["__metadata__"]
            metadata["config"] = json.dumps(edit(json.loads(metadata["config"]), 0))
        else:
            tensors = {name: header[name] for name in header if name != "__metadata__"}
            header = {"__metadata__": header["__metadata__"]} | edit(tensors, 0)
        loaded = try_load(path, join_file(header, body))
        if loaded is not None:
            assert loaded.predict(rows).shape[-1:] in ((12,), (2,))


CONFIGS = {
    "a list": "[]",
    "null": "null",
    "not JSON": "{",
    "empty": "{}",
    "a key twice": '{"spec": 1, "spec": 2}',
    "deeply nested": "[" * 100_000,
    "a long number": "1" * 5000,
    "a number beyond float64": '{"a": 1e999}',
    "an unpaired surrogate": '{"a": "\\ud800"}',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_invalid_configuration_with_a_valid_digest_is_refused(kind, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["__metadata__"]["config"] = CONFIGS[kind]
    assert try_load(path, join_file(header, body)) is None


def test_a_duplicate_key_in_the_configuration_is_refused(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    config = header["__metadata__"]["config"]
    header["__metadata__"]["config"] = config[:-1] + ', "members": null}'
    path.write_bytes(join_file(header, body))
    with pytest.raises(ValueError, match="duplicate key"):
        load(path)


@pytest.mark.parametrize("value", ["[]", "null", 1, None, ["{}"]])
def test_a_configuration_that_is_not_an_object_is_named(value, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["__metadata__"]["config"] = value
    path.write_bytes(join_file(header, body))
    with pytest.raises(ValueError, match="it has no configuration"):
        load(path)


@pytest.mark.parametrize("value", [None, "", "2", 1, [BLANK]])
def test_an_invalid_digest_is_named(value, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["__metadata__"]["sha256"] = value
    path.write_bytes(join_file(header, body, signed=False))
    with pytest.raises(ValueError, match="it has no SHA-256"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("members", "three"),
        ("members", -1),
        ("members", 0),
        ("members", 2),
        ("members", 1.0),
        ("members", True),
        ("members", 10**15),
        ("dtype", "float16"),
        ("dtype", None),
        ("dtype", ["float32"]),
        ("dtype", "float32"),
        ("classes", [0]),
        ("classes", "ab"),
        ("classes", 5),
        ("classes", [[1], [2, 3]]),
        ("classes", ["a", "b", "c"]),
        ("classes_dtype", "no dtype"),
        ("classes_dtype", None),
        ("classes_dtype", 7),
        ("one_dimensional", "no"),
        ("spec", None),
        ("spec", {"layers": [dense(10**9, 2)], "loss": "cross_entropy"}),
        ("spec", {"layers": [], "loss": "cross_entropy"}),
        ("spec", {"layers": [dense(3, 2, activation="relux")], "loss": "cross_entropy"}),
        ("spec", {"layers": [dense(3, 2, dropout=2.0)], "loss": "cross_entropy"}),
        ("spec", {"layers": [dense(3, 2, kind="Denser")], "loss": "cross_entropy"}),
        ("spec", {"layers": [dense(3, 2, more=1)], "loss": "cross_entropy"}),
        ("spec", {"layers": [dense("3", 2)], "loss": "cross_entropy"}),
        ("spec", {"layers": [{"kind": "Layer"}], "loss": "cross_entropy"}),
        ("spec", {"layers": [{"kind": "Columnwise"}], "loss": "cross_entropy"}),
        ("spec", {"layers": [{"kind": "Residual", "layers": []}], "loss": "cross_entropy"}),
        ("spec", {"layers": [{"kind": "Residual", "layers": [[]]}], "loss": "cross_entropy"}),
    ],
    ids=str,
)
def test_a_wrong_entry_with_a_valid_digest_is_refused(key, value, rows, path):
    data = encode(*train("3-4-2", rows, SIDE, loss="cross_entropy", epochs=1)._parts())
    header, body = split_file(data)
    config = json.loads(header["__metadata__"]["config"])
    assert key in config
    config[key] = value
    header["__metadata__"]["config"] = json.dumps(config)
    assert try_load(path, join_file(header, body)) is None


@pytest.mark.parametrize(
    "key", ["spec", "members", "dtype", "classes", "classes_dtype", "one_dimensional"]
)
def test_a_missing_entry_with_a_valid_digest_is_refused(key, rows, path):
    header, body = split_file(
        encode(*train("3-2", rows, SIDE, loss="cross_entropy", epochs=1)._parts())
    )
    config = json.loads(header["__metadata__"]["config"])
    del config[key]
    header["__metadata__"]["config"] = json.dumps(config)
    assert try_load(path, join_file(header, body)) is None


INVALID_LABELS = {
    "a dtype of gigabytes": (["a", "b"], "<U1000000000"),
    "bytes of gigabytes": (["a", "b"], "|S2000000000"),
    "a dtype that is no Python": (["a", "b"], "(1"),
    "a dtype of an old spelling": (["a", "b"], "a5"),
    "a dtype of fields": (["a", "b"], "i4,i4"),
    "a unit that NumPy lacks": ([0, 1], "<M8[qq]"),
    "texts cut off": (["long", "longer"], "<U4"),
    "texts for numbers": (["0", "1"], "<i8"),
    "numbers that a dtype lacks": ([0, 300], "|u1"),
    "numbers that a dtype rounds": ([0.1, 0.2], "<f4"),
    "not sorted": (["b", "a"], "<U1"),
    "twice": (["a", "a"], "<U1"),
    "a number and a text": ([1, "a"], "|O"),
}


@pytest.mark.parametrize("kind", INVALID_LABELS)
def test_labels_that_save_does_not_write_are_refused(kind, rows, path):
    header, body = split_file(encode(*train("3-2", rows, SIDE, loss="cross_entropy")._parts()))
    config = json.loads(header["__metadata__"]["config"])
    config["classes"], config["classes_dtype"] = INVALID_LABELS[kind]
    header["__metadata__"]["config"] = json.dumps(config)
    assert try_load(path, join_file(header, body)) is None


@pytest.mark.slow
def test_labels_above_the_limit_are_refused_by_save(rows, path):
    wide = np.array(["no", "yes"], dtype="<U9000000")[SIDE]
    model = train("3-2", rows, wide, loss="cross_entropy", epochs=1)
    with pytest.raises(ValueError, match="class labels of dtype <U9000000 cannot be saved"):
        save(model, path)


@pytest.mark.parametrize(
    "layers",
    ["3-4-2", [3, 4, 2], [[4, 3, "relu", 0.0]], [{"kind": "Dense", "n_in": 3, "n_out": 2}]],
)
def test_layers_that_are_not_written_in_full_are_refused(layers, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    config = json.loads(header["__metadata__"]["config"])
    config["spec"]["layers"] = layers
    header["__metadata__"]["config"] = json.dumps(config)
    assert try_load(path, join_file(header, body)) is None


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_in_json_are_refused(constant, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    config = header["__metadata__"]["config"]
    header["__metadata__"]["config"] = config.replace('"epochs": 2', f'"epochs": {constant}')
    assert constant in header["__metadata__"]["config"]
    assert try_load(path, join_file(header, body)) is None


def test_an_error_is_short_whatever_the_file_says(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    config = json.loads(header["__metadata__"]["config"])
    header["__metadata__"]["config"] = json.dumps(config | {"members": "x" * 100_000})
    path.write_bytes(join_file(header, body))
    with pytest.raises(ValueError, match="members must be an integer") as caught:
        load(path)
    assert len(str(caught.value)) < 2000


def test_a_dtype_of_another_package_is_refused_without_importing_it(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["layers.0.bias"] |= {"dtype": "F8_E4M3", "shape": [32]}
    path.write_bytes(join_file(header, body))
    program = (
        "import sys, xpmlp\n"
        "try: xpmlp.load(sys.argv[1])\n"
        "except ValueError as e: print('layers.0.bias' in str(e), 'ml_dtypes' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("key", ["format", "format_version", "config", "sha256"])
@pytest.mark.parametrize("value", [None, "", "2", 1, "missing"])
def test_wrong_metadata_is_refused(key, value, rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    metadata = header["__metadata__"]
    if value == "missing":
        del metadata[key]
    else:
        metadata[key] = value
    assert try_load(path, join_file(header, body, signed=False)) is None
    if key != "sha256":
        assert try_load(path, join_file(header, body)) is None


def test_a_later_format_version_is_named(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["__metadata__"]["format_version"] = "2"
    path.write_bytes(join_file(header, body))
    with pytest.raises(ValueError, match=r"format version '2'.*reads 1"):
        load(path)


def test_renamed_and_swapped_tensors_are_refused_where_shapes_differ(rows, path):
    data = encode(*small(rows)._parts())

    def with_names(renamed):
        header, body = split_file(data)
        return join_file({renamed.get(name, name): entry for name, entry in header.items()}, body)

    first, second = "layers.0.weights", "layers.1.weights"
    assert try_load(path, with_names({})) is not None
    assert try_load(path, with_names({first: second, second: first})) is None
    assert try_load(path, with_names({first: "layers.2.weights"})) is None
    assert try_load(path, with_names({first: "layers.0.bias", "layers.0.bias": first})) is None


def test_a_tensor_too_many_or_too_few_is_refused(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    extended = header | {
        "extra": {"dtype": "F64", "shape": [1], "data_offsets": [len(body), len(body) + 8]}
    }
    assert try_load(path, join_file(extended, body + bytes(8))) is None
    last = max(
        (name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"]
    )
    start = header[last]["data_offsets"][0]
    fewer = {name: entry for name, entry in header.items() if name != last}
    assert try_load(path, join_file(fewer, body[:start])) is None


def test_tensors_of_another_dtype_are_refused(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    for name in header:
        if name != "__metadata__":
            header[name]["dtype"] = "I64"
    assert try_load(path, join_file(header, body)) is None


def test_tensors_of_a_kind_numpy_lacks_are_refused(rows, path):
    model = small(rows, dtype="float32")
    header, body = split_file(encode(*model._parts()))
    for name in header:
        if name != "__metadata__":
            header[name]["dtype"] = "BF16"
            header[name]["shape"] = [2 * header[name]["shape"][0], *header[name]["shape"][1:]]
    assert try_load(path, join_file(header, body)) is None


def test_a_duplicate_key_is_refused(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    text = json.dumps(header, separators=(",", ":"))
    for key in ("__metadata__", "layers.0.bias"):
        double = text[:-1] + f',"{key}":{json.dumps(header[key])}}}'
        data = struct.pack("<Q", len(double)) + double.encode() + body
        digest = hashlib.sha256(data).hexdigest()
        old = header["__metadata__"]["sha256"]
        assert try_load(path, data.replace(old.encode(), digest.encode(), 1)) is None


@pytest.mark.parametrize("size", [0, 1, MAX_HEADER_BYTES + 1, 2**40, 2**63, 2**64 - 1])
def test_an_impossible_header_size_is_refused_at_once(size, rows, path):
    data = encode(*small(rows)._parts())
    assert try_load(path, struct.pack("<Q", size) + data[8:]) is None


def test_a_header_beyond_the_limit_is_refused(rows, path):
    header, body = split_file(encode(*small(rows)._parts()))
    header["__metadata__"]["more"] = " " * MAX_HEADER_BYTES
    path.write_bytes(join_file(header, body))
    with pytest.raises(ValueError, match="truncated, or not a safetensors file"):
        load(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\x02" + bytes(7) + b"{}",
        b"\x02" + bytes(7) + b"[]",
        b"\x08" + bytes(7) + b'{"a":NaN}'[:8],
        b"\x04" + bytes(7) + b"\xff\xfe\xfd\xfc",
        struct.pack("<Q", 10_000) + b"[" * 10_000,
        bytes(4096),
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04\x95" + bytes(100),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_other_files_are_refused(data, path):
    assert try_load(path, data) is None


def test_a_safetensors_file_of_another_library_is_refused(path):
    from safetensors.numpy import save as pack

    assert try_load(path, pack({"layers.0.weights": np.zeros((2, 2))})) is None
    assert try_load(path, pack({"a": np.zeros(2)}, metadata={"format": "pt"})) is None


# where a file loads

PROGRAM = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            allowed = set(sys.stdlib_module_names) | {"numpy", "safetensors", "xpmlp"}
            if name.partition(".")[0] not in allowed:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocked())
    import numpy as np
    import xpmlp

    model = xpmlp.load(sys.argv[1])
    rows = np.load(sys.argv[2])
    assert (model.predict(rows) == np.load(sys.argv[3])).all()
    for name in ("sklearn", "torch", "cupy", "scipy", "pandas", "array_api_compat"):
        assert name not in sys.modules, name
"""


def test_loading_needs_only_numpy_and_safetensors(rows, tmp_path):
    model = train("3-4-2", rows, LABELS["strings"], loss="cross_entropy", epochs=2)
    files = [tmp_path / name for name in ("model", "rows.npy", "predicted.npy")]
    save(model, files[0])
    np.save(files[1], rows)
    np.save(files[2], model.predict(rows))
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), *map(str, files)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_loading_an_unknown_device_is_named(rows, path):
    save(small(rows), path)
    with pytest.raises(ValueError, match="device 'cqu'"):
        load(path, device="cqu")


def test_a_loaded_model_has_the_whole_padded_buffer(rows, path):
    save(small(rows), path)
    loaded = xpmlp.load(path)
    assert loaded.flat.shape == (padded_size(loaded.spec),)
