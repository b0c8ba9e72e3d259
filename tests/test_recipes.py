"""The pages for developers: the recipes of CONTRIBUTING.md work, and ARCHITECTURE.md describes the
code as it is."""

import re
import traceback
from pathlib import Path

import numpy as np
import pytest

import xpmlp
from xpmlp import layers

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[1]
CONTRIBUTING, ARCHITECTURE = ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"
PARTS = dict(
    re.findall(r"^## To add an? (.*?)\n(.*?)(?=^## |\Z)", CONTRIBUTING.read_text(), re.M | re.S)
)
KINDS = {
    "activation", "optimizer", "loss", "schedule", "initializer", "layer kind", "device", "metric",
}  # fmt: skip
X = np.linspace(-1, 1, 200)[:, None]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A function that runs the recipe of a kind and returns its names."""
    monkeypatch.chdir(tmp_path)

    def run(kind):
        blocks = re.findall(r"^```python\n(.*?)^```", PARTS[kind], re.M | re.S)
        assert blocks
        names = {"__name__": "recipe"}
        for block in blocks:
            exec(compile(block, f"{CONTRIBUTING}: {kind}", "exec"), names)
        return names

    return run


def save_and_load(model):
    """The model, loaded from a file that it was saved to."""
    model.save("model.safetensors")
    return xpmlp.load("model.safetensors")


def train_population(**options):
    """A population of three, which must match one trained without recording."""
    spec = options.pop("spec", "1-8-1")
    options |= {"epochs": 20, "batch_size": 40, "members": 3, "dtype": "float64"}
    model = xpmlp.train(spec, X, X[:, 0] ** 2, **options)
    eager = xpmlp.train(spec, X, X[:, 0] ** 2, capture=False, **options)
    np.testing.assert_allclose(model.flat, eager.flat, rtol=1e-9, atol=1e-12)  # rounded differently
    assert (model.history["loss"][-1] < model.history["loss"][0]).all()
    return model


def test_every_kind_has_a_recipe():
    assert set(PARTS) == KINDS
    assert all("In the package: " in text for text in PARTS.values())


def test_an_activation(recipe):
    names = recipe("activation")
    spec = xpmlp.Spec.parse("1-8-1", activation=names["softsign"])
    train_population(spec=spec)
    est = xpmlp.MLPRegressor(
        activation=names["softsign"], learning_rate_init=0.01, max_iter=300, random_state=0
    )
    assert est.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
    with pytest.raises(ValueError, match="softsign, which a file cannot hold"):
        names["model"].save("model.safetensors")
    wrong = xpmlp.Spec.parse("1-8-1", activation=lambda xp, z: (z / (1 + xp.abs(z)), z))
    assert not xpmlp.gradcheck(wrong).passed


def test_an_optimizer(recipe):
    names = recipe("optimizer")
    model = names["model"]
    assert np.array_equal(save_and_load(model).predict(X), model.predict(X))
    train_population(optimizer=names["own"], optimizer_params={"beta": [0.5, 0.8, 0.9]})
    options = {"optimizer": names["own"], "seed": 1}
    whole = xpmlp.train("1-8-1", X, X[:, 0], epochs=6, **options)
    xpmlp.train("1-8-1", X, X[:, 0], epochs=3, checkpoint="run.ckpt", **options)
    resumed = xpmlp.train(
        "1-8-1", X, X[:, 0], epochs=6, checkpoint="run.ckpt", resume=True, **options
    )
    assert np.array_equal(resumed.flat, whole.flat)
    est = xpmlp.MLPRegressor(solver=names["own"], max_iter=300, random_state=0)
    assert est.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9


def test_a_loss(recipe):
    names = recipe("loss")
    train_population(spec=names["spec"])
    est = xpmlp.MLPRegressor(
        loss=names["log_cosh"], learning_rate_init=0.01, max_iter=300, random_state=0
    )
    assert est.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
    with pytest.raises(ValueError, match="log_cosh, which a file cannot hold"):
        names["model"].save("model.safetensors")
    measure = xpmlp.losses.loss(names["log_cosh"])
    e = np.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(measure.value(np, e, 0 * e), np.log(np.cosh(e[:, 0])), atol=1e-15)


def test_a_schedule(recipe):
    names = recipe("schedule")
    assert np.array_equal(save_and_load(names["model"]).predict(X), names["model"].predict(X))
    model = train_population(schedule=names["sawtooth"])
    last = model.history["learning_rate"][9]  # of the last update of the tenth epoch
    np.testing.assert_allclose(last, 1e-3 * (1 - 0.9 * 49 / 50), rtol=1e-12)


def test_an_initializer(recipe):
    names = recipe("initializer")
    X, model = names["X"], names["model"]
    assert np.array_equal(save_and_load(model).predict(X), model.predict(X))
    train_population(initializer=names["sparse"])


def test_a_layer_kind(recipe):
    names = recipe("layer kind")
    model, rows = names["model"], names["X"]
    loaded = save_and_load(model)
    assert np.array_equal(loaded.predict(rows), model.predict(rows))
    assert np.abs(model.predict(rows) - np.sin(1.5 * rows[:, 0])).max() < 0.01
    spec = xpmlp.Spec.parse([layers.Dense(1, 3), names["Periodic"](3), layers.Dense(6, 1)])
    assert xpmlp.gradcheck(spec).passed
    train_population(spec=spec)
    assert "a2 = periodic(a1, f2)" in str(xpmlp.ledger(spec))


def test_a_device(recipe, optional):
    optional("array_api_strict")
    names = recipe("device")
    xp, model = names["xp"], names["model"]
    rows = names["X"]
    predicted = model.predict(rows)
    assert predicted.__array_namespace__() is xp
    numpy_model = xpmlp.train("1-16-1", X, X[:, 0] ** 2, **names["options"])
    host = np.from_dlpack(predicted.to_device(xp.Device("CPU_DEVICE")))
    np.testing.assert_allclose(host, numpy_model.predict(X), rtol=1e-6, atol=1e-8)  # 200 steps
    assert np.array_equal(save_and_load(model).predict(X), host)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_metric(recipe):
    names = recipe("metric")
    assert len(names["model"].history["largest"]) == 5
    clf, worst = names["clf"], names["worst_recall"]
    assert clf.best_validation_score_ == max(clf.validation_scores_) > 0.3
    early = xpmlp.MLPClassifier(
        max_iter=500, early_stopping=True, scoring=worst, n_iter_no_change=3, random_state=0
    )
    early.fit(names["X"], names["y"])
    assert early.n_iter_ < 500
    best = int(np.argmax(early.validation_scores_)) + 1
    assert early.n_iter_ - best >= 3


# ARCHITECTURE.md


def test_the_calls_from_fit_to_update_are_as_listed():
    listed = re.findall(r"^    (?:\w+\.)?(\w+) +(\S+\.py) ", ARCHITECTURE.read_text(), re.M)
    assert len(listed) == 8
    stack = []  # of the last update; the steps are too few to be recorded

    def rule(xp, h, t, theta, g):
        stack[:] = [(f.name, Path(f.filename)) for f in traceback.extract_stack()]
        return (theta - h.learning_rate * g,)

    xpmlp.MLPClassifier(solver=rule, max_iter=20, tol=1.0).fit(X, X[:, 0] > 0)
    package = Path(xpmlp.__file__).parent
    frames = [(n, p.relative_to(package).as_posix()) for n, p in stack if package in p.parents]
    called = iter(frames)
    assert all(call in called for call in listed), frames


def test_architecture_page_has_at_most_120_lines():
    lines = ARCHITECTURE.read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_every_named_file_exists(page):
    text = page.read_text()
    for name in re.findall(r"`([\w./*]+(?:\.py|\.md|/))`", text):
        patterns = (name, f"xpmlp/{name}", f"xpmlp/*/{name}")
        assert any(any(ROOT.glob(pattern)) for pattern in patterns), name
    for name in re.findall(r"`(?:tests|benchmarks|\.ci)/[\w/]+`", text):
        assert (ROOT / name.strip("`")).exists(), name


def test_every_named_table_exists():
    """Tables have names in capitals, such as `ACTIVATIONS` and `NAMESPACES`."""
    named = re.findall(r"`([A-Z_]{4,})`[^.]*?`([\w/]+\.py)`", CONTRIBUTING.read_text())
    assert len(named) >= len(KINDS)
    for table, name in named:
        assert re.search(rf"^{table}\b", (ROOT / name).read_text(), re.M), table
