"""ONNX files: onnx's reference and onnxruntime compute from them what `predict` returns."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import xpmlp
from xpmlp import Activation, Loss, Model, Spec, to_onnx, train
from xpmlp.activations import ACTIVATIONS
from xpmlp.devices.namespace import CPU
from xpmlp.layout import padded_size, windows
from xpmlp.losses import softmax
from xpmlp.names import title
from xpmlp.storage import onnx as exporting
from xpmlp.storage.onnx import graph_of, serialize
from xpmlp.training.labels import Labels

pytest.importorskip("onnx")

NAMES = [*ACTIVATIONS, "leaky_relu:0.3", "elu:2"]
LINKS = {  # of every kind: identity, exp, sigmoid, softmax
    "squared_error": 3,
    "quantile:0.1,0.5,0.9": 3,
    "poisson": 2,
    "binary_cross_entropy": 2,
    "cross_entropy": 4,
}
EXTREME = [0.0, -0.0, 1.0, -1.0, 80.0, -80.0, 1e3, -1e3]

RELATIVE = 1e-6  # tolerance
SMALLEST = float(np.finfo(np.float32).tiny)  # below it a float32 has fewer digits


NUMBERS = Labels(None, flat=False)


def random_model(spec, rng, lead=(), labels=NUMBERS):
    """A model with random weights."""
    flat = np.zeros((*lead, padded_size(spec)), dtype=np.float32)
    for weights, bias in windows(np, spec, flat):
        weights[...] = rng.normal(size=weights.shape) / np.sqrt(weights.shape[-2])
        bias[...] = rng.normal(size=bias.shape) / 2
    return Model(spec, flat, CPU, labels)


def unweighted(spec):
    """A network of one layer whose score is its input, to the bit."""
    flat = np.zeros(padded_size(spec), dtype=np.float32)
    windows(np, spec, flat)[0].weights[...] = np.eye(spec.n_in)
    return Model(spec, flat, CPU, NUMBERS)


def export(model):
    return serialize(graph_of(model))


def assert_close(actual, expected):
    """Within RELATIVE of the largest value: sums in another order differ where terms cancel."""
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.fixture
def rows(rng):
    return rng.normal(size=(40, 5)).astype(np.float32)


# numbers


@pytest.mark.parametrize("name", NAMES)
def test_an_activation_agrees_with_predict(name, run_onnx):
    tiny = [sign * 10.0**-k for k in (1, 2, 4, 6, 7, 8, 12, 20, 30) for sign in (-1, 1)]
    z = np.concatenate([EXTREME, tiny, np.linspace(-12, 12, 4001)]).astype(np.float32)[:, None]
    model = unweighted(Spec.parse([[1, 1, name]]))
    expected, actual = model.predict(z), run_onnx(export(model), {"X": z})["prediction"]
    allowed = RELATIVE * np.abs(expected) + SMALLEST
    assert (np.abs(actual.astype(float) - expected) <= allowed).all()


@pytest.mark.parametrize("loss", LINKS)
def test_a_link_agrees_with_predict(loss, run_onnx):
    width = LINKS[loss]
    scores = [value for value in EXTREME if loss != "poisson" or value <= 80]
    score = np.array([np.roll(scores, k)[:width] for k in range(len(scores))], dtype=np.float32)
    score = np.concatenate([score, np.linspace(-9, 9, 60 * width).reshape(-1, width)], axis=0)
    score = score.astype(np.float32)
    model = unweighted(Spec.parse([[width, width, None]], loss=loss))
    actual = run_onnx(export(model), {"X": score})["prediction"]
    np.testing.assert_allclose(actual, model.predict(score), rtol=RELATIVE, atol=SMALLEST)


def test_an_overflowing_exp_is_infinite_in_onnx(run_onnx):
    model = unweighted(Spec.parse([[1, 1, None]], loss="poisson"))
    assert run_onnx(export(model), {"X": np.float32([[1e3]])})["prediction"] == np.inf


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", LINKS)
def test_every_activation_with_every_link(name, loss, rows, rng, run_onnx):
    model = random_model(Spec.parse([5, 16, 8, LINKS[loss]], activation=name, loss=loss), rng)
    data = export(model)
    for x in (rows, rows[:1]):
        assert_close(run_onnx(data, {"X": x})["prediction"], model.predict(x))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_rows_through_every_activation(name, rng, run_onnx):
    model = random_model(Spec.parse([5, 16, 8, 2], activation=name), rng)
    x = np.array([np.roll(EXTREME, k)[:5] for k in range(8)], dtype=np.float32)
    actual = run_onnx(export(model), {"X": x})["prediction"]
    for row, expected in zip(actual, model.predict(x), strict=True):
        assert_close(row, expected)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_a_batch_may_have_any_size(count, rng, run_onnx):
    model = random_model(Spec.parse("5-7-1"), rng, labels=Labels(None, True))
    x = rng.normal(size=(count, 5)).astype(np.float32)
    assert_close(run_onnx(export(model), {"X": x})["prediction"], model.predict(x))


@pytest.mark.parametrize("y", [(40,), (40, 1), (40, 3)], ids=str)
def test_predictions_have_the_shape_of_y(y, rows, rng, run_onnx):
    model = train([5, 4, y[-1] if len(y) > 1 else 1], rows, rng.normal(size=y), epochs=1)
    actual = run_onnx(export(model), {"X": rows})["prediction"]
    assert actual.shape == model.predict(rows).shape == y


def test_a_model_in_float64_is_written_in_float32(rows, rng, run_onnx):
    model = train("5-8-2", rows.astype(float), rng.normal(size=(40, 2)), epochs=2)
    assert model.flat.dtype == np.float64
    assert_close(
        run_onnx(export(model), {"X": rows})["prediction"], model.predict(rows.astype(float))
    )


def test_dropout_is_not_exported(rows, rng, run_onnx):
    model = random_model(Spec.parse("5-8-2", dropout=0.5), rng)
    assert_close(run_onnx(export(model), {"X": rows})["prediction"], model.predict(rows))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_population_has_a_leading_axis(members, loss, rows, rng, run_onnx):
    labels = NUMBERS if loss == "squared_error" else Labels(np.array([3, 5]), True)
    model = random_model(Spec.parse("5-8-2", loss=loss), rng, (members,), labels)
    outputs = run_onnx(export(model), {"X": rows})
    if loss == "squared_error":
        assert_close(outputs["prediction"], model.predict(rows))
    else:
        assert_close(outputs["probabilities"], model.predict_proba(rows))
        assert outputs["label"].tolist() == model.predict(rows).tolist()


def test_a_model_of_any_namespace_is_exported(place, rows, rng):
    X, y = (place.xp.asarray(a, device=place.device) for a in (rows, rows[:, :2]))
    model = train("5-4-2", X, y, epochs=1)
    host = Model(model.spec, np.asarray(model.__getstate__()["flat"]), CPU, model._labels)
    assert export(model) == export(host)


# labels

SIDE = np.arange(40) % 2
LABELS = {
    "ints": SIDE,
    "negative": SIDE - 7,
    "uint8": SIDE.astype(np.uint8),
    "the largest": np.array([0, 2**63 - 1])[SIDE],
    "bools": SIDE == 1,
    "whole floats": SIDE + 1.0,
    "strings": np.array(["no", "yes, a long one"])[SIDE],
    "accents and emoji": np.array(["né", "🦉"])[SIDE],
    "empty": np.array(["", "b"])[SIDE],
    "object strings": np.array(["no", "yes"], dtype=object)[SIDE],
    "numpy strings": np.array(["no", "yes"], dtype=np.dtypes.StringDType())[SIDE],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_labels_and_probabilities_agree_with_predict(kind, loss, rows, run_onnx):
    sizes = [5, 4, 2 if loss == "cross_entropy" else 1]
    model = train(Spec.parse(sizes, loss=loss), rows, LABELS[kind], epochs=2)
    outputs = run_onnx(export(model), {"X": rows})
    assert list(outputs) == ["label", "probabilities"]
    assert outputs["label"].tolist() == model.predict(rows).tolist()
    assert outputs["label"].dtype.kind in "iUOT"
    assert_close(outputs["probabilities"], model.predict_proba(rows))


def test_many_classes(rows, rng, run_onnx):
    names = np.array(["a", "b", "c", "d", "e"])
    model = random_model(Spec.parse("5-8-5", loss="cross_entropy"), rng, labels=Labels(names, True))
    rows = 9 * rows
    outputs = run_onnx(export(model), {"X": rows})
    assert len(set(outputs["label"].tolist())) > 2
    assert outputs["label"].tolist() == model.predict(rows).tolist()


REFUSED = {
    "fractions": np.array([0.1, 1 / 3]),
    "bytes": np.array([b"no", b"yes"]),
    "days": np.array(["2026-01-01", "2026-02-01"], dtype="M8[D]"),
    "too large": np.array([0, 2**63], dtype=np.uint64),
    "no text": np.array(["\ud800", "b"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_unsupported_by_onnx_raise(kind, rng, tmp_path):
    spec = Spec.parse("5-2", loss="cross_entropy")
    model = random_model(spec, rng, labels=Labels(REFUSED[kind], True))
    with pytest.raises(ValueError, match=r"class label.* cannot be exported"):
        to_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# functions of the user's own


def snake(xp, z):
    return z + xp.sin(z) ** 2, 1 + 2 * xp.sin(z) * xp.cos(z)


def softsign(xp, z):
    return z / (1 + xp.abs(z)), 1 / (1 + xp.abs(z)) ** 2


def stepped(xp, z):
    return xp.where(z > 0, z, np.float32(0.1) * z) * (z < 5), xp.astype(z > 0, z.dtype)


OWN = {
    "snake": snake,
    "softsign": softsign,
    "truths as numbers": stepped,
    "a softmax within": Activation(softmax, lambda xp, z, a: a * (1 - a)),
}


@pytest.mark.parametrize("name", OWN)
def test_a_user_activation_is_exported(name, rows, rng, run_onnx):
    model = random_model(Spec.parse("5-8-2", activation=OWN[name]), rng)
    assert_close(run_onnx(export(model), {"X": rows})["prediction"], model.predict(rows))


def test_a_user_loss_and_its_link_are_exported(rows, rng, run_onnx):
    def quartic(xp, score, target):
        e = score - target
        return xp.sum(e**4, axis=-1), 4 * e**3

    def odds(xp, score):
        return xp.expm1(score)

    for loss in (quartic, Loss(quartic, quartic, odds)):
        model = random_model(Spec.parse("5-8-2", loss=loss), rng)
        assert_close(run_onnx(export(model), {"X": rows})["prediction"], model.predict(rows))


def test_a_slope_is_not_written(rng):
    import onnx

    model = random_model(Spec.parse("5-8-2", activation=snake), rng)
    nodes = onnx.load_from_string(export(model)).graph.node
    assert {"Sin", "Cos"} & {node.op_type for node in nodes} == {"Sin"}


def calls_more(xp, z):
    return xp.cumulative_sum(z, axis=-1), z


def calls_numpy(xp, z):
    return np.clip(z, 0, 1), z


def reads(xp, z):
    return (z, z) if z[0, 0] > 0 else (-z, z)


def decides(xp, z):
    return (z, z) if (z > 0) else (-z, z)


def of_a_row(xp, z):
    return z - z[..., :1, :], z


def sums(xp, z):
    return xp.sum(z, axis=-1), z


def is_constant(xp, z):
    return xp.ones_like(z), xp.zeros_like(z)


def of_another_size(xp, z):
    return z * np.ones(8), z


UNTRACEABLE = [
    calls_more, calls_numpy, reads, decides, of_a_row, sums, is_constant, of_another_size,
]  # fmt: skip


@pytest.mark.parametrize("function", UNTRACEABLE, ids=title)
def test_a_function_that_cannot_be_exported_is_named(function, rng, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an old file")
    model = random_model(Spec.parse("5-8-8-2", activation=["relu", function]), rng)
    message = rf"layer 2 \({function.__name__}\) cannot be exported: it "
    with pytest.raises(ValueError, match=message):
        to_onnx(model, path)
    linked = random_model(Spec.parse("5-2", loss=Loss(*[function] * 3)), rng)
    with pytest.raises(ValueError, match="the link of loss 'yours' cannot be exported"):
        to_onnx(linked, path)
    assert path.read_bytes() == b"an old file"
    assert os.listdir(tmp_path) == ["model.onnx"]


# the file


def test_the_metadata_of_the_file(rows, tmp_path):
    import onnx

    path = tmp_path / "model.onnx"
    spec = Spec.parse("5-4-1", activation="leaky_relu:0.2", dropout=0.1, loss="huber:1.35")
    model = train(spec, rows, rows[:, 0], epochs=1)
    to_onnx(model, path)
    onnx_model = onnx.load(path)
    assert (onnx_model.producer_name, onnx_model.producer_version) == ("xpmlp", xpmlp.__version__)
    assert [(o.domain, o.version) for o in onnx_model.opset_import] == [("", 13)]
    assert (
        onnx_model.ir_version == 7
    )  # the version of that opset: older runtimes refuse a later one
    metadata = {entry.key: entry.value for entry in onnx_model.metadata_props}
    assert metadata == {"spec": spec.to_json()}
    (x,) = onnx_model.graph.input
    assert (x.name, x.type.tensor_type.elem_type) == ("X", onnx.TensorProto.FLOAT)
    assert [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] == ["N", 5]
    initializers = {tensor.name for tensor in onnx_model.graph.initializer}
    assert {
        "layers.0.weights",
        "layers.0.bias",
        "layers.1.weights",
        "layers.1.bias",
    } <= initializers
    custom = random_model(Spec.parse("5-4-1", activation=snake), np.random.default_rng(0))
    assert json.loads(graph_of(custom).metadata["spec"])["layers"][0]["activation"] == "snake"


def test_a_loaded_model_is_exported_to_the_same_bytes(rows, tmp_path):
    model = train("5-4-1", rows, rows[:, 0], epochs=1)
    model.save(tmp_path / "model.safetensors")
    assert export(xpmlp.load(tmp_path / "model.safetensors")) == export(model)


@pytest.mark.parametrize(
    "value", [None, "model.safetensors", 3, {}, np.ones(3), Spec.parse("2-1"), Model], ids=repr
)
def test_only_a_model_is_exported(value, tmp_path):
    with pytest.raises(TypeError, match="to_onnx takes a Model, a TableModel or"):
        to_onnx(value, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_path_is_named(rows, rng, tmp_path):
    model = random_model(Spec.parse("5-1"), rng)
    for path in (tmp_path / "no" / "model.onnx", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            to_onnx(model, path)
    with pytest.raises(ValueError, match="path must be a path; got None"):
        to_onnx(model, None)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_beyond_float32_is_named(rows):
    model = train("5-1", rows.astype(float), rows[:, 0], epochs=1)
    windows(np, model.spec, model.flat)[0].weights[2] = -1e300
    with pytest.raises(ValueError, match=r"layers\.0\.weights has -1e\+300, beyond float32"):
        graph_of(model)


def test_a_model_too_large_for_one_file_is_refused(rng, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_BYTES", 1000)
    assert len(export(random_model(Spec.parse("5-4-1"), rng))) < 1000
    with pytest.raises(ValueError, match=r"takes 2.,... bytes; an ONNX file holds 1,000 at most"):
        export(random_model(Spec.parse("5-900-1"), rng))


def test_a_missing_onnx_is_named_with_its_extra(tmp_path):
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import xpmlp\n"
        "model = xpmlp.train('1-1', [[0.0], [1.0]], [0.0, 1.0], epochs=1)\n"
        "try:\n    xpmlp.to_onnx(model, sys.argv[1])\n"
        "except ImportError as error:\n    print(error)"
    )
    command = [sys.executable, "-W", "error", "-c", code, tmp_path / "model.onnx"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'xpmlp[onnx]'" in result.stdout
    assert list(tmp_path.iterdir()) == []
