"""Arrays of any memory layout survive a round trip through every public way to save.

safetensors writes an array that is not C-contiguous wrongly, without an error (its issue 825).
"""

from dataclasses import replace

import numpy as np
import pytest

import xpmlp
from xpmlp import MLPClassifier, MLPRegressor, TableModel
from xpmlp.tabular.preprocessing import ColumnEncoder

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ROWS = np.random.default_rng(3).normal(size=(30, 3))
SIDE = np.arange(30) % 3


def every_other(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def backwards(array):
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": every_other,
    "backwards": backwards,
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


def network(layout, **settings):
    model = xpmlp.train("3-4-2", ROWS, ROWS[:, :2], epochs=1, **settings)
    return replace(model, flat=layout(model.flat))


def table(layout):
    model = xpmlp.train("3-4-1", ROWS, ROWS[:, 0], epochs=1)
    columns = tuple(ColumnEncoder(name, "number", 0.5, 2.0, False, (), False) for name in "abc")
    return TableModel(
        replace(model, flat=layout(model.flat)), columns, "y", "regression", 0.0, 1.0,
        {"metrics": {}, "baseline": {}, "rows": {}},
    )  # fmt: skip


def estimator(layout, kind, y, **settings):
    """A fitted estimator with all arrays of its file in that layout."""
    est = kind(hidden_layer_sizes=(4, 3), max_iter=3, random_state=0, **settings).fit(ROWS, y)
    est.coefs_ = [layout(part) for part in est.coefs_]
    est.intercepts_ = [layout(part) for part in est.intercepts_]
    state = getattr(est, "_optimizer", None)
    if state is not None:
        state.slots = tuple(layout(part) for part in state.slots)
        if state.last is not None:
            state.last, state.kept = layout(state.last), layout(state.kept)
    return est


MODELS = {
    "network": network,
    "population": lambda layout: network(layout, members=3),
    "float32": lambda layout: network(layout, dtype="float32"),
    "table": table,
    "classifier": lambda layout: estimator(layout, MLPClassifier, SIDE),
    "early": lambda layout: estimator(layout, MLPClassifier, SIDE, early_stopping=True),
    "regressor": lambda layout: estimator(layout, MLPRegressor, ROWS[:, 0], solver="lbfgs"),
}
SAVES = {"method": lambda model, path: model.save(path), "xpmlp.save": xpmlp.save}


def arrays(model):
    """The contents of the model's file, as bytes in C order."""
    network, sections, tensors = model._parts()
    layers = [part.tobytes() for layer in network.params for part in layer]
    return layers, sections, {name: value.tobytes() for name, value in tensors.items()}


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MODELS)
def test_arrays_of_any_layout_survive(kind, layout, save, tmp_path):
    model = MODELS[kind](LAYOUTS[layout])
    contiguous = MODELS[kind](np.ascontiguousarray)
    SAVES[save](model, tmp_path / "model")
    est = kind in ("classifier", "early", "regressor")
    loaded = (type(model) if est else xpmlp).load(tmp_path / "model")
    assert without_seconds(arrays(loaded)) == without_seconds(arrays(contiguous))


def without_seconds(contents):
    layers, sections, tensors = contents
    for section in sections.values():
        pairs = section.get("fitted", {}).get("history_", {}).get("dict", [])
        pairs[:] = [pair for pair in pairs if pair[0] != "seconds"]
    return layers, sections, tensors


def test_layouts_are_not_contiguous():
    """Otherwise the test above would check nothing."""
    model = network(np.asfortranarray, members=3)
    assert not model.flat.flags.c_contiguous
    assert not any(part.flags.c_contiguous for part in estimator(
        every_other, MLPClassifier, SIDE).coefs_)  # fmt: skip
