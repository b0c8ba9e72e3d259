"""Training on a GPU that is not the current one: the same bits, and the caller's stays current."""

import json
from functools import partial

import numpy as np
import pytest

import xpmlp
from xpmlp.cli.main import main
from xpmlp.devices.namespace import to_host
from xpmlp.storage.checkpoint import Checkpoint
from xpmlp.training.train import finish, make_trainer

SECOND = "gpu:1"
ROWS = 40

pytestmark = pytest.mark.parametrize(
    "two_cards",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    indirect=True,
    ids=["apart", "peers"],
)
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def current(two_cards):
    """Number 0 is current, before each test and after it."""
    import cupy

    yield cupy.cuda.runtime.getDevice
    assert cupy.cuda.runtime.getDevice() == 0


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(ROWS, 3)).astype("float32")
    return X, (X[:, 0] * X[:, 1]).astype("float32")


def on(number, array):
    """The array on that GPU."""
    import cupy

    with cupy.cuda.Device(number):
        return cupy.asarray(array)


def lies_on(array) -> int:
    return array.device.id


def same_model(one, other) -> None:
    assert to_host(one.flat).tobytes() == to_host(other.flat).tobytes()
    assert one.history.keys() == other.history.keys()
    for name in one.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name], name)


HELD = np.random.default_rng(5).normal(size=(2, 20, 3)).astype("float32")
TRAININGS = {
    "captured": ("3-5-1", {"epochs": 40}),
    "eager": ("3-5-1", {"epochs": 3, "capture": False, "clip": 0.1}),
    "population": ("3-5-1", {"epochs": 40, "members": 3, "learning_rate": [0.1, 0.01, 0.001]}),
    "held out": (
        "3-5-1",
        {"epochs": 40, "X_val": HELD[0], "y_val": HELD[1][:, 0], "patience": 3, "keep": "best"},
    ),
    "dropout": ([3, 5, 1], {"epochs": 40, "l2": 0.01, "schedule": "cosine"}),
    "restored": ("3-5-1", {"epochs": 4, "learning_rate": 1e30, "on_divergence": "restore"}),
    "stopped by its patience": ("3-5-1", {"epochs": 40, "patience": 1, "learning_rate": 0.0}),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_the_one_on_the_first(name, rows):
    spec, arguments = TRAININGS[name]
    if name == "dropout":
        spec = xpmlp.Spec.parse(spec, dropout=0.3)
    if name == "restored":
        arguments = arguments | {"optimizer": "sgd"}
    first, second = (xpmlp.train(spec, *rows, device=d, **arguments) for d in ("gpu:0", SECOND))
    same_model(first, second)
    assert lies_on(second.flat) == 1


@pytest.mark.slow
@pytest.mark.parametrize("from_", [0, 1])
@pytest.mark.parametrize("word", [None, "gpu:0", SECOND])
def test_rows_may_lie_on_either(from_, word, rows):
    X, y = (on(from_, part) for part in rows)
    weight, held = on(from_, np.ones(ROWS)), {"X_val": X, "y_val": y}
    more = {"epochs": 3, "sample_weight": weight, **held}
    model = xpmlp.train("3-5-1", X, y, device=word, **more)
    assert model.place.name == (word or f"gpu:{from_}")
    same_model(model, xpmlp.train("3-5-1", *rows, device="gpu:0", epochs=3,
                                  X_val=rows[0], y_val=rows[1]))  # fmt: skip
    for number in (0, 1):
        found = model.predict(on(number, rows[0]))
        assert lies_on(found) == number
        assert found.get().tobytes() == model.predict(rows[0]).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [0, 1, 2]], ids=str)
def test_labels_come_to_where_the_rows_lie(labels, rows):
    X, y = rows[0], np.resize(labels, ROWS)
    several = len(labels) > 2
    spec = "3-5-3" if several else "3-5-1"
    more = {"loss": "cross_entropy" if several else "binary_cross_entropy", "epochs": 3}
    first, second = (xpmlp.train(spec, X, y, device=d, **more) for d in ("gpu:0", SECOND))
    same_model(first, second)
    for x in (X, on(0, X), on(1, X)):
        found = to_host(second.predict(x))
        np.testing.assert_array_equal(found, first.predict(X))
        assert to_host(second.predict_proba(x)).tobytes() == first.predict_proba(X).tobytes()


@pytest.mark.parametrize("bad", ["nan", "alike", "large"])
def test_rows_on_another_are_checked_there(bad, rows):
    X = rows[0].astype("float64")
    if bad == "alike":
        X[:] = 1
    else:
        X[3, 1] = np.nan if bad == "nan" else 1e300
    train = partial(xpmlp.train, "3-2-1", on(1, X), on(0, rows[1]), epochs=1, dtype="float32")
    if bad == "alike":
        with pytest.warns(UserWarning, match="constant"):
            train()
    else:
        with pytest.raises(ValueError, match="row 3, column 1"):
            train()


def watching(current, rows, seen):
    """A callback that asks a report for all it gives; the caller's GPU is current in it."""

    def watch(report):
        assert current() == 0
        model = report.model()
        answers = [to_host(model.predict(x)) for x in (rows[0], on(0, rows[0]), on(1, rows[0]))]
        assert all(a.tobytes() == answers[0].tobytes() for a in answers)
        seen.append(answers[0])
        report.scale_learning_rate(0.5)
        report.scale_learning_rate(on(0, np.asarray(1.0)))
        report.stop(False)
        if report.epoch == 7:
            report.stop(on(1, np.asarray(True)))
        return on(0, np.asarray(False))

    return watch


def test_callbacks_ask_and_steer_from_the_callers_gpu(current, rows):
    seen, models = {}, {}
    for device in ("gpu:0", SECOND):
        seen[device] = []
        callback = watching(current, rows, seen[device])
        models[device] = xpmlp.train("3-5-1", *rows, device=device, callbacks=[callback], epochs=40)
    same_model(*models.values())
    assert len(seen[SECOND]) == 7
    np.testing.assert_array_equal(*seen.values())


def test_a_generator_leaves_the_callers_gpu_current(current, rows):
    import cupy

    found = {}
    for device, mine in (("gpu:0", 0), (SECOND, 0), ("gpu:0", 1), (SECOND, 1)):
        with cupy.cuda.Device(mine):
            for report in xpmlp.epochs("3-5-1", *rows, device=device, epochs=40):
                assert current() == mine
                report.stop(report.epoch == 5)
                found[device, mine] = report.model()
            assert current() == mine
    first, *others = found.values()
    for other in others:
        same_model(first, other)


@pytest.mark.slow
def test_a_generator_may_be_left_early(current, rows):
    for report in xpmlp.epochs("3-5-1", *rows, device=SECOND, epochs=40):
        if report.epoch == 2:
            break
    assert current() == 0


@pytest.mark.slow
def test_a_checkpoint_is_written_and_resumed(current, rows, tmp_path):
    more = {"device": SECOND, "epochs": 40}
    whole = xpmlp.train("3-5-1", *rows, **more)
    path = tmp_path / "run.ckpt"

    def watch(report):
        assert current() == 0
        return report.epoch == 5

    xpmlp.train("3-5-1", *rows, checkpoint=path, callbacks=[watch], **more)
    written = path.read_bytes()
    path.write_bytes(written)
    run = make_trainer("3-5-1", *rows, **more)
    with Checkpoint(path).opened(run, resume=True):
        assert current() == 0
        assert run.stopped
    path.unlink()

    def interrupt(report):
        if report.epoch == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        xpmlp.train("3-5-1", *rows, checkpoint=path, callbacks=[interrupt], **more)
    same_model(whole, xpmlp.train("3-5-1", *rows, checkpoint=path, resume=True, **more))


@pytest.mark.slow
def test_an_interruption_has_the_model(current, rows):
    run = make_trainer("3-5-1", *rows, device=SECOND, epochs=40)

    def halt(report):
        run.counter.stop_signal = 2

    with pytest.raises(KeyboardInterrupt) as interrupted:
        finish(run, [halt])
    assert current() == 0
    assert np.isfinite(interrupted.value.model.predict(rows[0])).all()


@pytest.mark.slow
def test_members_are_models_of_their_own(rows):
    model = xpmlp.train("3-5-1", *rows, device=SECOND, members=2, epochs=2)
    one = model.member(1)
    np.testing.assert_allclose(one.predict(rows[0]), model.predict(rows[0])[1], rtol=1e-5)


@pytest.mark.slow
def test_a_saved_model_is_loaded_there(rows, tmp_path):
    model = xpmlp.train("3-5-1", *rows, device=SECOND, epochs=2)
    model.save(tmp_path / "m.safetensors")
    loaded = xpmlp.load(tmp_path / "m.safetensors", device=SECOND)
    assert lies_on(loaded.flat) == 1
    assert loaded.predict(rows[0]).tobytes() == model.predict(rows[0]).tobytes()


# Estimators and the command line

FITS = {
    "adam": {},
    "eager": {"max_iter": 2},
    "early": {"early_stopping": True, "n_iter_no_change": 3},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 2, "tol": 1.0},
    "lbfgs": {"solver": "lbfgs", "max_iter": 10},
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("classes", [False, True])
def test_estimators_fit_and_answer(classes, name, current, rows):
    X, y = rows
    kind, y = (xpmlp.MLPClassifier, y > 0) if classes else (xpmlp.MLPRegressor, y)
    if name == "lbfgs":
        more = {}
    else:
        more = {"callbacks": [lambda report: (report.model(), current())[1] != 0]}
    given = {"random_state": 0, "hidden_layer_sizes": (5,), "max_iter": 20, **FITS[name], **more}
    first, second = (kind(device=d, **given).fit(X, y) for d in ("gpu:0", SECOND))
    assert first.n_iter_ == second.n_iter_
    assert first.n_iter_ > 1
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        assert to_host(a).tobytes() == to_host(b).tobytes()
        assert lies_on(b) == 1
    expected = first.predict(X)
    for x in (X, on(0, X), on(1, X)):
        found = second.predict(x)
        np.testing.assert_array_equal(to_host(found), expected)
        if classes:
            second.predict_log_proba(x)
        assert second.score(x, y) == first.score(X, y)
    assert current() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("number", [0, 1])
def test_estimators_take_rows_from_either(number, rows, tmp_path):
    X, y = rows[0], rows[1] > 0
    given = {"random_state": 0, "hidden_layer_sizes": (5,), "max_iter": 3, "early_stopping": True}
    expected = xpmlp.MLPClassifier(device="gpu:0", **given).fit(X, y)
    for word in (None, "gpu:0", SECOND):
        est = xpmlp.MLPClassifier(device=word, **given).fit(on(number, X), on(number, y))
        for a, b in zip(expected.coefs_, est.coefs_, strict=True):
            assert to_host(a).tobytes() == to_host(b).tobytes()
        assert lies_on(est.coefs_[0]) == (number if word is None else int(word[-1]))
        est.save(tmp_path / "est.safetensors")
        again = xpmlp.MLPClassifier.load(tmp_path / "est.safetensors", device=SECOND)
        np.testing.assert_array_equal(again.predict(X), est.predict(X))


@pytest.mark.slow
def test_estimators_go_on(rows):
    X, y = rows[0], rows[1] > 0
    given = {"random_state": 0, "hidden_layer_sizes": (5,), "warm_start": True, "max_iter": 3}
    ests = [xpmlp.MLPClassifier(device=d, n_iter_no_change=9, **given) for d in ("gpu:0", SECOND)]
    for est in ests:
        for _ in range(3):
            est.partial_fit(X, y, classes=[False, True])
    for a, b in zip(*(est.coefs_ for est in ests), strict=True):
        assert to_host(a).tobytes() == to_host(b).tobytes()


@pytest.mark.slow
def test_the_command_line_trains_there(tmp_path, monkeypatch, capsys, rng):
    polars = pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    a, b = rng.normal(size=(2, 60))
    polars.DataFrame({"a": a, "b": b, "price": 3 * a + b}).write_csv("houses.csv")
    found = []
    for device in ("gpu:0", SECOND):
        words = ["train", "houses.csv", "--target", "price", "--epochs", "20", "--hidden", "8"]
        words += ["--json", "--quiet", "--save", "m.safetensors", "--device", device]
        assert main(words) == 0
        found.append(json.loads(capsys.readouterr().out))
        assert found[-1].pop("device") == device
        del found[-1]["seconds"]
    assert found[0] == found[1]
