"""A table's columns in an ONNX graph: encoded there as here, each an input by its name."""

import datetime
from dataclasses import replace

import numpy as np
import pytest

import xpmlp
from xpmlp.recording.onnx_graph import Graph
from xpmlp.storage.onnx import graph_of, serialize
from xpmlp.tabular.fitting import Plan, fit_table
from xpmlp.tabular.onnx import add_inputs
from xpmlp.tabular.preprocessing import MAX_CATEGORIES

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")
pytest.importorskip("onnx")

RELATIVE = 1e-6  # tolerance
ROWS = 300
TARGETS = ("price", "sold", "floors")  # numbers, texts, whole numbers


def frame():
    rng = np.random.default_rng(2)
    a = rng.normal(size=ROWS)
    start = datetime.datetime(2020, 1, 1)
    return polars.DataFrame(
        {
            "far from 0": a * 1e3 + 3e9,  # its digits are more than float32 has
            "gaps": [None if i % 5 == 0 else i / 3 for i in range(ROWS)],
            "texts": ['é "x"', "y", None] * (ROWS // 3),
            "no gaps": ["u", "v"] * (ROWS // 2),
            "many": [f"k{i % (MAX_CATEGORIES + 30)}" for i in range(ROWS)],
            "when": [start + datetime.timedelta(minutes=i) for i in range(ROWS)],
            "constant": [3.0] * ROWS,
            "flag": [i % 3 == 0 for i in range(ROWS)],
            "price": a * 2e4 + 5e5,
            "sold": np.where(a > 0, "yes", "no"),
            "floors": np.clip(a.astype(int), -1, 1) + 2,
        }
    )


@pytest.fixture(scope="module")
def models():
    network = {"hidden": [16], "activation": "silu", "dropout": 0.1}
    return {
        target: fit_table(
            frame(),
            Plan(target, drop=[other for other in TARGETS if other != target]),
            network=network,
            settings={"epochs": 3},
        ).model
        for target in TARGETS
    }


def fed(model, table):
    """The table's cells as the docstring of `to_onnx` says."""
    inputs = {}
    for known in model.columns:
        cells = table[known.name]
        if known.kind == "category":
            inputs[known.name] = np.array([cell or "" for cell in cells.to_list()], dtype=object)
        elif known.kind == "date":
            seconds = cells.cast(polars.Datetime("us")).dt.timestamp("us") / 1e6
            inputs[known.name] = seconds.to_numpy()
        else:
            numbers = cells.cast(polars.Float64).fill_null(float("nan"))
            inputs[known.name] = numbers.to_numpy()
    return inputs


def odd():
    """Rows with categories that training did not have, gaps where it had none, far numbers."""
    nan = float("nan")
    return polars.DataFrame(
        {
            "far from 0": [0.0, nan, 1e300, -1e300, 3e9],
            "gaps": [None, 5.0, -1e9, 0.0, 1.0],
            "texts": ["never", None, "y", None, "é"],
            "no gaps": ["never", None, "v", "u", " "],
            "many": [None, "k0", "k999", None, "k3"],
            "when": [None] + [datetime.datetime(1969, 1, 1)] * 4,
            "constant": [4.0, nan, 3.0, 0.0, 1e9],
            "flag": [True, None, False, True, False],
        }
    )


@pytest.mark.filterwarnings("ignore:.*of an unknown category")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", ["training's", "odd", "one"])
def test_what_a_table_model_predicts(target, rows, models, run_onnx):
    model, table = models[target], {"training's": frame(), "odd": odd(), "one": frame()[:1]}[rows]
    found = run_onnx(serialize(graph_of(model)), fed(model, table))
    if target == "price":
        assert list(found) == ["prediction"]
        assert found["prediction"].dtype == np.float64
        np.testing.assert_allclose(found["prediction"], model.predict(table), rtol=RELATIVE)
    else:
        assert list(found) == ["label", "probabilities"]
        assert found["label"].tolist() == model.predict(table).tolist()
        wanted = model.predict_proba(table)
        np.testing.assert_allclose(found["probabilities"], wanted, rtol=0, atol=RELATIVE)


def test_the_encoded_columns_are_the_networks_inputs(models, run_onnx):
    """Every input by itself: an average over many would hide one that is wrong."""
    model = models["price"]
    for table in (frame(), odd()):
        graph = Graph()
        graph.output("x", add_inputs(graph, model.columns))
        found = run_onnx(serialize(graph), fed(model, table))["x"]
        np.testing.assert_allclose(found, model.inputs(table).x, rtol=1e-7, atol=0)


def test_inputs_say_what_they_take(models):
    import onnx

    model = onnx.load_from_string(serialize(graph_of(models["sold"])))
    said = {value.name: value.doc_string for value in model.graph.input}
    assert said["when"] == "seconds since 1970, NaN where missing"
    assert said["texts"] == "empty where missing"
    assert said["gaps"] == "NaN where missing"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (metadata["target"], metadata["task"]) == ("sold", "classification")
    assert metadata["spec"] == models["sold"].spec.to_json()


def renamed(model, name):
    """The model with its first column called so."""
    first, *others = model.columns
    return replace(model, columns=(first._replace(name=name), *others))


@pytest.mark.parametrize(
    ("name", "said"),
    [("prediction", "column is called 'prediction'"), ("", "a column without a name")],
)
def test_a_column_that_cannot_be_an_input_is_refused(name, said, models, tmp_path):
    with pytest.raises(ValueError, match=said):
        xpmlp.to_onnx(renamed(models["price"], name), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Add.3", "constant.1", "layers.0.weights", "N", "a b\n'\"é"])
def test_a_column_may_have_any_other_name(name, models, run_onnx):
    model = renamed(models["price"], name)
    table = frame().rename({"far from 0": name})
    found = run_onnx(serialize(graph_of(model)), fed(model, table))["prediction"]
    np.testing.assert_allclose(found, model.predict(table), rtol=RELATIVE)
