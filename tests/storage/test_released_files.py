"""Files of every released format version load for ever, and answer what they answered then.

tests/data/make.py says how they were made. NAME.json holds what was asked and answered.
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
NEAR = {"F32": 1e-5, "F64": 1e-12}
TRAINED = 100  # times as far, after a few updates


def called(path):
    return f"{path.parent.name} {path.stem}"


@pytest.fixture(scope="module")
def kinds():
    """The fuzzing's table of kinds, so that every kind with a file here is fuzzed too."""
    from fuzz import fuzz_files

    return {**fuzz_files.KINDS, fuzz_files.CHECKPOINT: fuzz_files.resuming}


def asked(model, question):
    if not hasattr(model, "feature_names_in_"):
        return question
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(question, columns=model.feature_names_in_)


@pytest.mark.parametrize("path", MODELS, ids=called)
def test_the_reader_of_the_page_reads_every_released_file(path, kinds):
    page = (ROOT / "docs" / "model-file.md").read_text()
    (reader,) = re.findall(r"^```python\n(import hashlib.*?)^```", page, re.M | re.S)
    space: dict = {}
    exec(reader, space)
    _, config, arrays = space["read"](path)
    model = kinds[path.stem.partition("-")[0]].load(path)
    spec = model.spec if hasattr(model, "spec") else None
    assert spec is None or config["spec"]["loss"] == spec.loss
    assert {"layers.0.weights", "layers.0.bias"} <= set(arrays)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("path", MODELS, ids=called)
def test_a_released_file_answers_as_it_did(path, kinds):
    model = kinds[path.stem.partition("-")[0]].load(path)
    story = json.loads(path.with_suffix(".json").read_text())
    found = np.asarray(model.predict(asked(model, story["asked"])))
    found = found.astype(str) if found.dtype.kind == "M" else found
    if found.dtype.kind != "f":
        assert found.tolist() == story["answered"]
        return
    near = NEAR["F32" if b'"F32"' in path.read_bytes() else "F64"]
    np.testing.assert_allclose(found, story["answered"], rtol=near, atol=near)


TRAINED_ON = [path for path in FILES if b'"estimator.split"' in path.read_bytes()]


@pytest.mark.parametrize("path", TRAINED_ON, ids=called)
def test_a_released_estimator_trains_on(path, kinds):
    model = kinds[path.stem.partition("-")[0]].load(path)
    story = json.loads(path.with_suffix(".json").read_text())
    rows, y = asked(model, story["asked"]), np.asarray(story["answered"])
    y = y[:, 0] if path.stem == "regressor-quantiles" else y
    before = model._optimizer.step
    model.partial_fit(rows, y, **({"X_val": rows, "y_val": y} if model.early_stopping else {}))
    assert model._optimizer.step == before + 1
    assert all(np.isfinite(part).all() for part in model.coefs_)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=called)
def test_a_released_checkpoint_goes_on_as_it_did(path, tmp_path):
    story, copy, seen = json.loads(path.with_suffix(".json").read_text()), tmp_path / "run.ckpt", []
    copy.write_bytes(path.read_bytes())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on elsewhere")
        model = train(**story["asked"], checkpoint=copy, resume=True, callbacks=[seen.append])
    assert [report.epoch for report in seen] == [3, 4]
    found, near = model.predict(story["asked"]["X"]), NEAR["F32" if model.members else "F64"]
    near *= TRAINED
    np.testing.assert_allclose(found, story["answered"], rtol=near, atol=near)


def test_every_version_and_kind_has_files(kinds):
    for version in range(1, VERSION + 1):
        here = {p.stem.partition("-")[0] for p in FILES if p.parent.name == f"version-{version}"}
        assert here == set(kinds)


def test_every_file_has_its_story():
    assert FILES
    assert all(path.with_suffix(".json").exists() for path in FILES)
