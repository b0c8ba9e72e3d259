"""The columns of a table in an ONNX graph: one named input each, encoded as by xpmlp."""

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
            "far from 0": a * 1e3 + 3e9,  # needs more digits than float32 has
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
            Plan(target, drop=[column for column in TARGETS if column != target]),
            network=network,
            settings={"epochs": 3},
        ).model
        for target in TARGETS
    }


def onnx_inputs(model, table):
    """The table's cells in the form that the docstring of `to_onnx` documents."""
    inputs = {}
    for column in model.columns:
        cells = table[column.name]
        if column.kind == "category":
            inputs[column.name] = np.array([cell or "" for cell in cells.to_list()], dtype=object)
        elif column.kind == "date":
            seconds = cells.cast(polars.Datetime("us")).dt.timestamp("us") / 1e6
            inputs[column.name] = seconds.to_numpy()
        else:
            numbers = cells.cast(polars.Float64).fill_null(float("nan"))
            inputs[column.name] = numbers.to_numpy()
    return inputs


def unusual_table():
    """Rows with unknown categories, new gaps and outliers."""
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
def test_onnx_predictions_match_the_table_model(target, rows, models, run_onnx):
    model, table = (
        models[target],
        {"training's": frame(), "odd": unusual_table(), "one": frame()[:1]}[rows],
    )
    actual = run_onnx(serialize(graph_of(model)), onnx_inputs(model, table))
    if target == "price":
        assert list(actual) == ["prediction"]
        assert actual["prediction"].dtype == np.float64
        np.testing.assert_allclose(actual["prediction"], model.predict(table), rtol=RELATIVE)
    else:
        assert list(actual) == ["label", "probabilities"]
        assert actual["label"].tolist() == model.predict(table).tolist()
        expected = model.predict_proba(table)
        np.testing.assert_allclose(actual["probabilities"], expected, rtol=0, atol=RELATIVE)


def test_the_mean_of_a_gaussian_loss_is_exported(run_onnx):
    network = {"hidden": [16], "activation": "silu", "loss": "gaussian"}
    plan = Plan("price", drop=["sold", "floors"])
    model = fit_table(frame(), plan, network=network, settings={"epochs": 3}).model
    actual = run_onnx(serialize(graph_of(model)), onnx_inputs(model, frame()))["prediction"]
    np.testing.assert_allclose(actual, model.predict(frame()), rtol=RELATIVE)


def test_the_encoded_columns_are_the_networks_inputs(models, run_onnx):
    """Every input is compared separately: an average would hide a wrong one."""
    model = models["price"]
    for table in (frame(), unusual_table()):
        graph = Graph()
        graph.output("x", add_inputs(graph, model.columns))
        encoded = run_onnx(serialize(graph), onnx_inputs(model, table))["x"]
        np.testing.assert_allclose(encoded, model.inputs(table).x, rtol=1e-7, atol=0)


def test_inputs_document_their_values(models):
    import onnx

    model = onnx.load_from_string(serialize(graph_of(models["sold"])))
    doc_strings = {value.name: value.doc_string for value in model.graph.input}
    assert doc_strings["when"] == "seconds since 1970, NaN where missing"
    assert doc_strings["texts"] == "empty where missing"
    assert doc_strings["gaps"] == "NaN where missing"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (metadata["target"], metadata["task"]) == ("sold", "classification")
    assert metadata["spec"] == models["sold"].spec.to_json()


def renamed(model, name):
    """The model with another name of its first column."""
    first, *rest = model.columns
    return replace(model, columns=(first._replace(name=name), *rest))


@pytest.mark.parametrize(
    ("name", "message"),
    [("prediction", "column is called 'prediction'"), ("", "a column without a name")],
)
def test_a_column_that_cannot_be_an_input_is_refused(name, message, models, tmp_path):
    with pytest.raises(ValueError, match=message):
        xpmlp.to_onnx(renamed(models["price"], name), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Add.3", "constant.1", "layers.0.weights", "N", "a b\n'\"é"])
def test_a_column_may_have_any_other_name(name, models, run_onnx):
    model = renamed(models["price"], name)
    table = frame().rename({"far from 0": name})
    actual = run_onnx(serialize(graph_of(model)), onnx_inputs(model, table))["prediction"]
    np.testing.assert_allclose(actual, model.predict(table), rtol=RELATIVE)
