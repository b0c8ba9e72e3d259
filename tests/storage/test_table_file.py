"""Model files of tables: they load unchanged, and a changed file is refused."""

import hashlib
import json
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

import xpmlp
from xpmlp.storage.checksummed import BLANK
from xpmlp.tabular.fitting import Plan, fit_table
from xpmlp.tabular.model import TableModel, load

polars = pytest.importorskip("polars")
pytest.importorskip("sklearn")


def frame():
    rng = np.random.default_rng(2)
    a = rng.normal(size=60)
    return polars.DataFrame(
        {
            "a": a,
            "gaps": [None if i % 5 == 0 else i / 3 for i in range(60)],
            "c": ['é "x"', "y", None] * 20,
            "y": a * 2,
            "k": np.where(a > 0, "up", "down"),
        }
    )


def fit(target):
    plan = Plan(target, drop=["k" if target == "y" else "y"])
    network = {"hidden": [4], "activation": "tanh", "dropout": 0.0}
    return fit_table(frame(), plan, network=network, settings={"epochs": 2}).model


@pytest.fixture(scope="module")
def number():
    return fit("y")


@pytest.fixture(scope="module")
def label():
    return fit("k")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("target", ["number", "label"])
def test_a_table_model_loads_unchanged(target, request, path):
    model = request.getfixturevalue(target)
    model.save(path)
    loaded = load(path)
    assert isinstance(loaded, TableModel)
    for name in ("columns", "target", "task", "center", "scale", "trained", "spec"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.model.flat.tobytes() == model.model.flat.tobytes()
    assert loaded.predict(frame()).tolist() == model.predict(frame()).tolist()
    second_path = path.with_name("again")
    xpmlp.save(loaded, second_path)
    assert load(second_path).columns == model.columns


def test_xpmlp_load_returns_the_table_model(number, path):
    number.save(path)
    assert isinstance(xpmlp.load(path), TableModel)


def test_loading_needs_only_numpy_and_predicting_narwhals(number, path):
    number.save(path)
    frame().write_csv(path.with_name("t.csv"))
    program = textwrap.dedent("""
        import sys
        REFUSED = {"narwhals", "sklearn", "matplotlib", "tqdm", "threadpoolctl", "polars"}
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in REFUSED:
                    raise ImportError(f"{name} is refused here")
        sys.meta_path.insert(0, Refuse())
        import xpmlp
        model = xpmlp.load(sys.argv[1])
        print(model.target, model.task, [known.name for known in model.columns])
        REFUSED -= {"polars", "narwhals"}
        import polars
        print(*model.predict(polars.read_csv(sys.argv[2])).tolist())
    """)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path, path.with_name("t.csv")],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == "y regression ['a', 'gaps', 'c']"
    predictions = [float(word) for word in second.split()]
    np.testing.assert_allclose(predictions, number.predict(frame()), rtol=1e-6)


# changed files


def split_file(data):
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["config"]), data[8 + size :]


def join_file(header, config, body):
    """A file with the correct digest."""
    header["__metadata__"] |= {"config": json.dumps(config), "sha256": BLANK}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + body
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(f'"sha256":"{BLANK}"'.encode(), f'"sha256":"{digest}"'.encode(), 1)


def set_entry(*keys, value):
    """A change of one entry of the configuration; a `value` of None deletes it."""

    def change(config):
        *parents, last = keys
        for key in parents:
            config = config[key]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return change


COLUMN = ("table", "columns", 0)
CHANGED = {
    "no target": set_entry("table", "target", value=None),
    "a target that is not a string": set_entry("table", "target", value=3),
    "no task": set_entry("table", "task", value=None),
    "another task": set_entry("table", "task", value="ranking"),
    "the other task": set_entry("table", "task", value="classification"),
    "no columns": set_entry("table", "columns", value=None),
    "columns that are not a list": set_entry("table", "columns", value={"a": 1}),
    "a column too few": set_entry(*COLUMN, value=None),
    "a column that is not an object": set_entry(*COLUMN, value="a"),
    "a column without a name": set_entry(*COLUMN, "name", value=None),
    "a column of another kind": set_entry(*COLUMN, "kind", value="colour"),
    "a column with more inputs": set_entry(*COLUMN, "gaps", value=True),
    "gaps that are not boolean": set_entry(*COLUMN, "gaps", value=0),
    "a category too many": set_entry("table", "columns", 2, "categories", value=["y", "z", "w"]),
    "a category twice": set_entry("table", "columns", 2, "categories", value=["y", "y"]),
    "a category that is not a string": set_entry(
        "table", "columns", 2, "categories", value=["y", 1]
    ),
    "two columns of one name": set_entry(*COLUMN, "name", value="gaps"),
    "a table that is a list": set_entry("table", value=[1]),
    "a table that is a word": set_entry("table", value="table"),
    "no scores": set_entry("table", "trained", value=None),
    "no metrics": set_entry("table", "trained", value={}),
    "scores that are not numbers": set_entry(
        "table", "trained", value={"metrics": {"r2": "good"}, "baseline": {}}
    ),
    "a score beyond float64": set_entry("table", "trained", "metrics", value={"r2": 10**400}),
    "an unpaired surrogate in a name": set_entry(*COLUMN, "name", value="\ud800"),
    "another network": set_entry(
        "spec", "layers", value=[[4, 9, "tanh", 0.0], [1, 4, "identity", 0.0]]
    ),
    "no trained": set_entry("trained", value=None),
    "categories in one string": set_entry("table", "columns", 2, "categories", value="y"),
    "categories of a number": set_entry(*COLUMN, "categories", value=["y"]),
    "no counts of rows": set_entry("table", "trained", "rows", value=None),
    "counts that are not numbers": set_entry("table", "trained", "rows", value={"training": [1]}),
    "two axes of answers": set_entry("one_dimensional", value=False),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_changed_configuration_is_refused_with_the_path(kind, number, path):
    number.save(path)
    header, config, body = split_file(path.read_bytes())
    CHANGED[kind](config)
    path.write_bytes(join_file(header, config, body))
    with pytest.raises(ValueError, match="is not a whole model file") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_join_file_unchanged_is_read(number, path):
    """The files of the other tests are refused only for their change."""
    number.save(path)
    path.write_bytes(join_file(*split_file(path.read_bytes())))
    assert load(path).columns == number.columns


@pytest.mark.parametrize("name", ["table.center", "table.scale", "table.target"])
@pytest.mark.parametrize("array", ["gone", "nan", "shape"])
def test_changed_arrays_are_refused_with_the_path(name, array, number, path):
    number.save(path)
    header, config, body = split_file(path.read_bytes())
    if array == "gone":
        header[f"table.other.{name}"] = header.pop(name)
    elif array == "shape":
        header[name]["shape"] = [1, *header[name]["shape"]]
    else:
        at, _ = header[name]["data_offsets"]
        body = body[:at] + struct.pack("<d", float("nan")) + body[at + 8 :]
    path.write_bytes(join_file(header, config, body))
    with pytest.raises(ValueError, match="is not a whole model file") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_population_is_not_the_network_of_a_table(number, path):
    several = replace(number, model=replace(number.model, flat=number.model.flat[None, :]))
    several.save(path)
    with pytest.raises(ValueError, match="does not predict one value per row"):
        load(path)


def test_a_nan_score_is_saved(number, path):
    """R2 of a single held-out row is NaN, which JSON lacks."""
    nan_scores = replace(
        number, trained=number.trained | {"metrics": {"r2": float("nan"), "mae": 1.0}}
    )
    nan_scores.save(path)
    metrics = load(path).trained["metrics"]
    assert metrics["mae"] == 1.0
    assert np.isnan(metrics["r2"])


def test_extreme_centers_and_scales_predict_without_a_warning(number, path):
    """A file may have any finite number, and so may a table."""
    a, gaps, c = number.columns
    columns = (a._replace(center=-1.7e308, scale=1e-300), gaps._replace(scale=1.7e308), c)
    replace(number, columns=columns).save(path)
    cells = {"a": [1.7e308, 0.0, None], "gaps": [1e300, -1e300, None], "c": ["y", None, "y"]}
    loaded = load(path)
    assert np.isfinite(loaded.inputs(cells).x).all()
    assert np.abs(loaded.inputs(cells).x).max() <= 3.001
    assert np.isfinite(loaded.predict(cells)).all()
    replace(number, center=1.7e308, scale=1.7e308).save(path)
    assert load(path).predict(frame()).shape == (60,)


def test_classes_must_fit_the_task(label, path):
    label.save(path)
    header, config, body = split_file(path.read_bytes())
    config["table"]["task"] = "regression"
    path.write_bytes(join_file(header, config, body))
    with pytest.raises(ValueError, match="classes do not fit its task 'regression'"):
        load(path)


def test_any_changed_byte_is_refused(label, path):
    label.save(path)
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="is not a whole model file"):
            load(path)
