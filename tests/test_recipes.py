"""The pages for those who change the code: what CONTRIBUTING.md adds from outside the package
works, and what ARCHITECTURE.md says of the code is so."""

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
    """A function from what is added to the names of its recipe, which it has run."""
    monkeypatch.chdir(tmp_path)

    def run(kind):
        blocks = re.findall(r"^```python\n(.*?)^```", PARTS[kind], re.M | re.S)
        assert blocks
        names = {"__name__": "recipe"}
        for block in blocks:
            exec(compile(block, f"{CONTRIBUTING}: {kind}", "exec"), names)
        return names

    return run


def saved(model):
    """The model after a file of it was written and read."""
    model.save("model.safetensors")
    return xpmlp.load("model.safetensors")


def trained(**options):
    """A population of three, with steps run one by one and with what can be recorded recorded."""
    spec = options.pop("spec", "1-8-1")
    options |= {"epochs": 20, "batch_size": 40, "members": 3, "dtype": "float64"}
    model = xpmlp.train(spec, X, X[:, 0] ** 2, **options)
    plain = xpmlp.train(spec, X, X[:, 0] ** 2, capture=False, **options)
    np.testing.assert_allclose(model.flat, plain.flat, rtol=1e-9, atol=1e-12)  # other roundings
    assert (model.history["loss"][-1] < model.history["loss"][0]).all()
    return model


def test_there_is_a_recipe_for_everything_that_can_be_added():
    assert set(PARTS) == KINDS
    assert all("In the package: " in text for text in PARTS.values())


def test_an_activation(recipe):
    names = recipe("activation")
    spec = xpmlp.Spec.parse("1-8-1", activation=names["softsign"])
    trained(spec=spec)
    own = xpmlp.MLPRegressor(
        activation=names["softsign"], learning_rate_init=0.01, max_iter=300, random_state=0
    )
    assert own.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
    with pytest.raises(ValueError, match="softsign, which a file cannot hold"):
        names["model"].save("model.safetensors")
    wrong = xpmlp.Spec.parse("1-8-1", activation=lambda xp, z: (z / (1 + xp.abs(z)), z))
    assert not xpmlp.gradcheck(wrong).passed


def test_an_optimizer(recipe):
    names = recipe("optimizer")
    model = names["model"]
    assert np.array_equal(saved(model).predict(X), model.predict(X))
    trained(optimizer=names["own"], optimizer_params={"beta": [0.5, 0.8, 0.9]})
    options = {"optimizer": names["own"], "seed": 1}
    whole = xpmlp.train("1-8-1", X, X[:, 0], epochs=6, **options)
    xpmlp.train("1-8-1", X, X[:, 0], epochs=3, checkpoint="run.ckpt", **options)
    resumed = xpmlp.train(
        "1-8-1", X, X[:, 0], epochs=6, checkpoint="run.ckpt", resume=True, **options
    )
    assert np.array_equal(resumed.flat, whole.flat)
    own = xpmlp.MLPRegressor(solver=names["own"], max_iter=300, random_state=0)
    assert own.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9


def test_a_loss(recipe):
    names = recipe("loss")
    trained(spec=names["spec"])
    own = xpmlp.MLPRegressor(
        loss=names["log_cosh"], learning_rate_init=0.01, max_iter=300, random_state=0
    )
    assert own.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
    with pytest.raises(ValueError, match="log_cosh, which a file cannot hold"):
        names["model"].save("model.safetensors")
    measure = xpmlp.losses.loss(names["log_cosh"])
    e = np.linspace(-3, 3, 7)[:, None]
    np.testing.assert_allclose(measure.value(np, e, 0 * e), np.log(np.cosh(e[:, 0])), atol=1e-15)


def test_a_schedule(recipe):
    names = recipe("schedule")
    assert np.array_equal(saved(names["model"]).predict(X), names["model"].predict(X))
    model = trained(schedule=names["sawtooth"])
    last = model.history["learning_rate"][9]  # of the update before the tenth epoch's end
    np.testing.assert_allclose(last, 1e-3 * (1 - 0.9 * 49 / 50), rtol=1e-12)


def test_an_initializer(recipe):
    names = recipe("initializer")
    X, model = names["X"], names["model"]
    assert np.array_equal(saved(model).predict(X), model.predict(X))
    trained(initializer=names["sparse"])


def test_a_layer_kind(recipe):
    names = recipe("layer kind")
    model, rows = names["model"], names["X"]
    found = saved(model)
    assert np.array_equal(found.predict(rows), model.predict(rows))
    assert np.abs(model.predict(rows) - np.sin(1.5 * rows[:, 0])).max() < 0.01
    spec = xpmlp.Spec.parse([layers.Dense(1, 3), names["Periodic"](3), layers.Dense(6, 1)])
    assert xpmlp.gradcheck(spec).passed
    trained(spec=spec)
    assert "a2 = periodic(a1, f2)" in str(xpmlp.ledger(spec))


def test_a_device(recipe, optional):
    optional("array_api_strict")
    names = recipe("device")
    xp, model = names["xp"], names["model"]
    rows = names["X"]
    found = model.predict(rows)
    assert found.__array_namespace__() is xp
    here = xpmlp.train("1-16-1", X, X[:, 0] ** 2, **names["options"])
    host = np.from_dlpack(found.to_device(xp.Device("CPU_DEVICE")))
    np.testing.assert_allclose(host, here.predict(X), rtol=1e-6, atol=1e-8)  # 200 steps
    assert np.array_equal(saved(model).predict(X), host)


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


# What ARCHITECTURE.md says


def test_the_way_from_fit_to_update_is_as_described():
    listed = re.findall(r"^    (?:\w+\.)?(\w+) +(\S+\.py) ", ARCHITECTURE.read_text(), re.M)
    assert len(listed) == 8
    stack = []  # of the last update, in so few steps that they are not worth recording

    def rule(xp, h, t, theta, g):
        stack[:] = [(f.name, Path(f.filename)) for f in traceback.extract_stack()]
        return (theta - h.learning_rate * g,)

    xpmlp.MLPClassifier(solver=rule, max_iter=20, tol=1.0).fit(X, X[:, 0] > 0)
    package = Path(xpmlp.__file__).parent
    own = [(n, p.relative_to(package).as_posix()) for n, p in stack if package in p.parents]
    called = iter(own)
    assert all(one in called for one in listed), own


def test_the_map_fits_on_two_screens():
    lines = ARCHITECTURE.read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", [ARCHITECTURE, CONTRIBUTING], ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    text = page.read_text()
    for name in re.findall(r"`([\w./*]+(?:\.py|\.md|/))`", text):
        patterns = (name, f"xpmlp/{name}", f"xpmlp/*/{name}")
        assert any(any(ROOT.glob(pattern)) for pattern in patterns), name
    for name in re.findall(r"`(?:tests|benchmarks|\.ci)/[\w/]+`", text):
        assert (ROOT / name.strip("`")).exists(), name


def test_every_table_that_is_named_is_there():
    """In capitals: `ACTIVATIONS`, `NAMESPACES` and the like."""
    named = re.findall(r"`([A-Z_]{4,})`[^.]*?`([\w/]+\.py)`", CONTRIBUTING.read_text())
    assert len(named) >= len(KINDS)
    for table, name in named:
        assert re.search(rf"^{table}\b", (ROOT / name).read_text(), re.M), table
