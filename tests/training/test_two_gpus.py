"""Training on a GPU that is not the current one gives the same bits and leaves the current one."""

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
    """GPU 0 is current before and after each test."""
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


def same_model(a, b) -> None:
    assert to_host(a.flat).tobytes() == to_host(b.flat).tobytes()
    assert a.history.keys() == b.history.keys()
    for name in a.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name], name)


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


@pytest.mark.parametrize(
    "name",
    [name if name == "captured" else pytest.param(name, marks=pytest.mark.slow)
     for name in TRAININGS],
)  # fmt: skip
def test_the_second_gpu_trains_as_the_first(name, rows):
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
def test_rows_may_be_on_either_gpu(from_, word, rows):
    X, y = (on(from_, part) for part in rows)
    weight, val_rows = on(from_, np.ones(ROWS)), {"X_val": X, "y_val": y}
    options = {"epochs": 3, "sample_weight": weight, **val_rows}
    model = xpmlp.train("3-5-1", X, y, device=word, **options)
    assert model.place.name == (word or f"gpu:{from_}")
    same_model(model, xpmlp.train("3-5-1", *rows, device="gpu:0", epochs=3,
                                  X_val=rows[0], y_val=rows[1]))  # fmt: skip
    for number in (0, 1):
        actual = model.predict(on(number, rows[0]))
        assert lies_on(actual) == number
        assert actual.get().tobytes() == model.predict(rows[0]).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [0, 1, 2]], ids=str)
def test_labels_are_moved_to_the_gpu_of_the_rows(labels, rows):
    X, y = rows[0], np.resize(labels, ROWS)
    several = len(labels) > 2
    spec = "3-5-3" if several else "3-5-1"
    options = {"loss": "cross_entropy" if several else "binary_cross_entropy", "epochs": 3}
    first, second = (xpmlp.train(spec, X, y, device=d, **options) for d in ("gpu:0", SECOND))
    same_model(first, second)
    for x in (X, on(0, X), on(1, X)):
        actual = to_host(second.predict(x))
        np.testing.assert_array_equal(actual, first.predict(X))
        assert to_host(second.predict_proba(x)).tobytes() == first.predict_proba(X).tobytes()


@pytest.mark.parametrize("bad", ["nan", "alike", "large"])
def test_rows_are_validated_on_their_own_gpu(bad, rows):
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


def watching(current, rows, predictions):
    """A callback that uses every method of a report while the caller's GPU is current."""

    def watch(report):
        assert current() == 0
        model = report.model()
        results = [to_host(model.predict(x)) for x in (rows[0], on(0, rows[0]), on(1, rows[0]))]
        assert all(a.tobytes() == results[0].tobytes() for a in results)
        predictions.append(results[0])
        report.scale_learning_rate(0.5)
        report.scale_learning_rate(on(0, np.asarray(1.0)))
        report.stop(False)
        if report.epoch == 7:
            report.stop(on(1, np.asarray(True)))
        return on(0, np.asarray(False))

    return watch


def test_callbacks_run_with_the_callers_gpu_current(current, rows):
    predictions, models = {}, {}
    for device in ("gpu:0", SECOND):
        predictions[device] = []
        callback = watching(current, rows, predictions[device])
        models[device] = xpmlp.train("3-5-1", *rows, device=device, callbacks=[callback], epochs=40)
    same_model(*models.values())
    assert len(predictions[SECOND]) == 7
    np.testing.assert_array_equal(*predictions.values())


def test_a_generator_leaves_the_callers_gpu_current(current, rows):
    import cupy

    models = {}
    for device, callers_gpu in (("gpu:0", 0), (SECOND, 0), ("gpu:0", 1), (SECOND, 1)):
        with cupy.cuda.Device(callers_gpu):
            for report in xpmlp.epochs("3-5-1", *rows, device=device, epochs=40):
                assert current() == callers_gpu
                report.stop(report.epoch == 5)
                models[device, callers_gpu] = report.model()
            assert current() == callers_gpu
    first, *others = models.values()
    for other in others:
        same_model(first, other)


@pytest.mark.slow
def test_a_generator_may_be_closed_early(current, rows):
    for report in xpmlp.epochs("3-5-1", *rows, device=SECOND, epochs=40):
        if report.epoch == 2:
            break
    assert current() == 0


@pytest.mark.slow
def test_a_checkpoint_is_written_and_resumed(current, rows, tmp_path):
    options = {"device": SECOND, "epochs": 40}
    whole = xpmlp.train("3-5-1", *rows, **options)
    path = tmp_path / "run.ckpt"

    def watch(report):
        assert current() == 0
        return report.epoch == 5

    xpmlp.train("3-5-1", *rows, checkpoint=path, callbacks=[watch], **options)
    content = path.read_bytes()
    path.write_bytes(content)
    run = make_trainer("3-5-1", *rows, **options)
    with Checkpoint(path).opened(run, resume=True):
        assert current() == 0
        assert run.stopped
    path.unlink()

    def interrupt(report):
        if report.epoch == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        xpmlp.train("3-5-1", *rows, checkpoint=path, callbacks=[interrupt], **options)
    same_model(whole, xpmlp.train("3-5-1", *rows, checkpoint=path, resume=True, **options))


@pytest.mark.slow
def test_an_interruption_carries_the_model(current, rows):
    run = make_trainer("3-5-1", *rows, device=SECOND, epochs=40)

    def halt(report):
        run.counter.stop_signal = 2

    with pytest.raises(KeyboardInterrupt) as interrupted:
        finish(run, [halt])
    assert current() == 0
    assert np.isfinite(interrupted.value.model.predict(rows[0])).all()


@pytest.mark.slow
def test_members_are_separate_models(rows):
    model = xpmlp.train("3-5-1", *rows, device=SECOND, members=2, epochs=2)
    member = model.member(1)
    np.testing.assert_allclose(member.predict(rows[0]), model.predict(rows[0])[1], rtol=1e-5)


@pytest.mark.slow
def test_a_saved_model_is_loaded_on_the_second_gpu(rows, tmp_path):
    model = xpmlp.train("3-5-1", *rows, device=SECOND, epochs=2)
    model.save(tmp_path / "m.safetensors")
    loaded = xpmlp.load(tmp_path / "m.safetensors", device=SECOND)
    assert lies_on(loaded.flat) == 1
    assert loaded.predict(rows[0]).tobytes() == model.predict(rows[0]).tobytes()


# Estimators and command line

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
def test_estimators_fit_and_predict(classes, name, current, rows):
    X, y = rows
    kind, y = (xpmlp.MLPClassifier, y > 0) if classes else (xpmlp.MLPRegressor, y)
    if name == "lbfgs":
        options = {}
    else:
        options = {"callbacks": [lambda report: (report.model(), current())[1] != 0]}
    arguments = {
        "random_state": 0,
        "hidden_layer_sizes": (5,),
        "max_iter": 20,
        **FITS[name],
        **options,
    }
    first, second = (kind(device=d, **arguments).fit(X, y) for d in ("gpu:0", SECOND))
    assert first.n_iter_ == second.n_iter_
    assert first.n_iter_ > 1
    for a, b in zip(first.coefs_, second.coefs_, strict=True):
        assert to_host(a).tobytes() == to_host(b).tobytes()
        assert lies_on(b) == 1
    expected = first.predict(X)
    for x in (X, on(0, X), on(1, X)):
        actual = second.predict(x)
        np.testing.assert_array_equal(to_host(actual), expected)
        if classes:
            second.predict_log_proba(x)
        assert second.score(x, y) == first.score(X, y)
    assert current() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("number", [0, 1])
def test_estimators_take_rows_from_either_gpu(number, rows, tmp_path):
    X, y = rows[0], rows[1] > 0
    arguments = {
        "random_state": 0,
        "hidden_layer_sizes": (5,),
        "max_iter": 3,
        "early_stopping": True,
    }
    expected = xpmlp.MLPClassifier(device="gpu:0", **arguments).fit(X, y)
    for word in (None, "gpu:0", SECOND):
        est = xpmlp.MLPClassifier(device=word, **arguments).fit(on(number, X), on(number, y))
        for a, b in zip(expected.coefs_, est.coefs_, strict=True):
            assert to_host(a).tobytes() == to_host(b).tobytes()
        assert lies_on(est.coefs_[0]) == (number if word is None else int(word[-1]))
        est.save(tmp_path / "est.safetensors")
        loaded = xpmlp.MLPClassifier.load(tmp_path / "est.safetensors", device=SECOND)
        np.testing.assert_array_equal(loaded.predict(X), est.predict(X))


@pytest.mark.slow
def test_estimators_continue_training(rows):
    X, y = rows[0], rows[1] > 0
    arguments = {"random_state": 0, "hidden_layer_sizes": (5,), "warm_start": True, "max_iter": 3}
    ests = [
        xpmlp.MLPClassifier(device=d, n_iter_no_change=9, **arguments) for d in ("gpu:0", SECOND)
    ]
    for est in ests:
        for _ in range(3):
            est.partial_fit(X, y, classes=[False, True])
    for a, b in zip(*(est.coefs_ for est in ests), strict=True):
        assert to_host(a).tobytes() == to_host(b).tobytes()


@pytest.mark.slow
def test_the_command_line_trains_on_the_second_gpu(tmp_path, monkeypatch, capsys, rng):
    polars = pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    a, b = rng.normal(size=(2, 60))
    polars.DataFrame({"a": a, "b": b, "price": 3 * a + b}).write_csv("houses.csv")
    outputs = []
    for device in ("gpu:0", SECOND):
        words = ["train", "houses.csv", "--target", "price", "--epochs", "20", "--hidden", "8"]
        words += ["--json", "--quiet", "--save", "m.safetensors", "--device", device]
        assert main(words) == 0
        outputs.append(json.loads(capsys.readouterr().out))
        assert outputs[-1].pop("device") == device
        del outputs[-1]["seconds"]
    assert outputs[0] == outputs[1]
