"""Files of every released format version load and give the predictions of that release.

tests/data/make.py writes them. NAME.json holds the rows and the predictions.
"""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from xpmlp import train
from xpmlp.storage.model_file import VERSION

pytest.importorskip("sklearn")
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
FILES = sorted(DATA.rglob("*.safetensors"))
CHECKPOINTS = [path for path in FILES if path.stem.startswith("checkpoint")]
MODELS = [path for path in FILES if path not in CHECKPOINTS]
# the last digits of a product differ between processors
TOLERANCE = {"F32": 1e-5, "F64": 1e-12}
AFTER_TRAINING = 100  # times the tolerance, after a few updates


def file_id(path):
    return f"{path.parent.name} {path.stem}"


@pytest.fixture(scope="module")
def kinds():
    """The kinds of the fuzz tests, so that every kind with a file here is fuzzed too."""
    from fuzz import fuzz_files

    return {**fuzz_files.KINDS, fuzz_files.CHECKPOINT: fuzz_files.checkpoint_kind}


def as_frame(model, rows):
    if not hasattr(model, "feature_names_in_"):
        return rows
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=model.feature_names_in_)


@pytest.mark.parametrize("path", MODELS, ids=file_id)
def test_the_documented_reader_reads_every_released_file(path, kinds):
    page = (ROOT / "docs" / "model-file.md").read_text()
    (reader,) = re.findall(r"^```python\n(import hashlib.*?)^```", page, re.M | re.S)
    namespace: dict = {}
    exec(reader, namespace)
    _, config, arrays = namespace["read"](path)
    model = kinds[path.stem.partition("-")[0]].load(path)
    spec = model.spec if hasattr(model, "spec") else None
    assert spec is None or config["spec"]["loss"] == spec.loss
    assert {"layers.0.weights", "layers.0.bias"} <= set(arrays)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("path", MODELS, ids=file_id)
def test_a_released_file_predicts_as_at_release(path, kinds):
    model = kinds[path.stem.partition("-")[0]].load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    actual = np.asarray(model.predict(as_frame(model, expected["asked"])))
    actual = actual.astype(str) if actual.dtype.kind == "M" else actual
    if actual.dtype.kind != "f":
        assert actual.tolist() == expected["answered"]
        return
    tolerance = TOLERANCE["F32" if b'"F32"' in path.read_bytes() else "F64"]
    np.testing.assert_allclose(actual, expected["answered"], rtol=tolerance, atol=tolerance)


TRAINED_ON = [path for path in FILES if b'"estimator.split"' in path.read_bytes()]


@pytest.mark.parametrize("path", TRAINED_ON, ids=file_id)
def test_a_released_estimator_trains_on(path, kinds):
    model = kinds[path.stem.partition("-")[0]].load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    rows, y = as_frame(model, expected["asked"]), np.asarray(expected["answered"])
    y = y[:, 0] if path.stem == "regressor-quantiles" else y
    before = model._optimizer.step
    model.partial_fit(rows, y, **({"X_val": rows, "y_val": y} if model.early_stopping else {}))
    assert model._optimizer.step == before + 1
    assert all(np.isfinite(part).all() for part in model.coefs_)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=file_id)
def test_a_released_checkpoint_resumes_as_at_release(path, tmp_path):
    expected, copy, files = (
        json.loads(path.with_suffix(".json").read_text()),
        tmp_path / "run.ckpt",
        [],
    )
    copy.write_bytes(path.read_bytes())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*in another environment")
        model = train(**expected["asked"], checkpoint=copy, resume=True, callbacks=[files.append])
    assert [report.epoch for report in files] == [3, 4]
    actual, tolerance = (
        model.predict(expected["asked"]["X"]),
        TOLERANCE["F32" if model.members else "F64"],
    )
    tolerance *= AFTER_TRAINING
    np.testing.assert_allclose(actual, expected["answered"], rtol=tolerance, atol=tolerance)


def test_every_version_and_kind_has_files(kinds):
    for version in range(1, VERSION + 1):
        stored = {p.stem.partition("-")[0] for p in FILES if p.parent.name == f"version-{version}"}
        assert stored == set(kinds)


def test_every_file_has_its_json():
    assert FILES
    assert all(path.with_suffix(".json").exists() for path in FILES)
