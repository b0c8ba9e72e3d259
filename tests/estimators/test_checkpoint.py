"""A fit that is killed and called again equals an uninterrupted one, bit for bit."""

import os
import pickle
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from fuzz.mutate_bytes import DAMAGES
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from stops import Killed, damaged, halt_at, kill_at

from xpmlp import Checkpoint, MLPClassifier, MLPRegressor
from xpmlp.estimators.base import NonFiniteError
from xpmlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
EPOCHS = 8
RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4))
Y = np.sin(X[:, 0]) + 0.1 * RNG.normal(size=60)
LABELS = np.array(["a", "b", "c"])[np.digitize(Y, [-0.4, 0.4])]
VALIDATION = {"X_val": X[:20], "y_val": -Y[:20], "sample_weight_val": np.arange(20.0)}
WEIGHT = np.linspace(0.0, 2.0, 60)


def halve(report):
    """Callback that changes the learning rate between epochs."""
    report.scale_learning_rate(1.0 if report.epoch % 3 else 0.5)


def stop_after_3(report):
    return report.epoch == 3


BASE = {"hidden_layer_sizes": 6, "batch_size": 16, "max_iter": EPOCHS, "random_state": 4}
CASES = {name: {"solver": name} for name in (*OPTIMIZERS, "sgd")} | {
    "classifier": {"kind": MLPClassifier},
    "early stopping": {"early_stopping": True, "learning_rate_init": 0.1},
    "early stopping that ends": {"early_stopping": True, "tol": 0.5, "n_iter_no_change": 2},
    "classifier with early stopping": {
        "kind": MLPClassifier, "early_stopping": True, "validation_fraction": 0.3,
        "scoring": "neg_log_loss", "learning_rate_init": 0.1,
    },
    "validation data": {"fit": VALIDATION, "learning_rate_init": 0.1},
    "dropout": {"dropout": 0.3},
    "adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1,
    },
    "adaptive that ends": {
        "solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1,
        "learning_rate_init": 3e-6,
    },
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "convergence": {"tol": 0.5, "n_iter_no_change": 3},
    "class weights": {"kind": MLPClassifier, "class_weight": "balanced"},
    "class and sample weights": {
        "kind": MLPClassifier, "class_weight": {"a": 2.0, "b": 0.5, "c": 1.0},
        "fit": {"sample_weight": WEIGHT},
    },
    "sample weights": {"fit": {"sample_weight": WEIGHT}},
    "schedule, decay and clip": {
        "solver": "adamw", "schedule": "warmup:3 * cosine", "weight_decay": 0.1, "clip": 0.5,
    },
    "callbacks that change the rate": {"callbacks": [halve], "solver": "sgd"},
    "callbacks and an adaptive rate": {
        "callbacks": [halve], "solver": "sgd", "learning_rate": "adaptive", "tol": 0.5,
        "n_iter_no_change": 1, "dtype": "float32",
    },
    "a callback that stops": {"callbacks": [stop_after_3]},
    "quantiles": {"quantiles": (0.1, 0.9)},
    "float32": {"dtype": "float32"},
    "unshuffled": {"shuffle": False},
    "sparse": {"X": csr_array(X)},
    "a generator": {"random_state": np.random.RandomState(3), "early_stopping": True},
    "replayed": {"batch_size": 5},
}  # fmt: skip
ATTRIBUTES = (
    "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_",
    "validation_loss_curve_", "best_validation_score_", "_no_improvement_count",
)  # fmt: skip
RESUME_STATE = ("seed", "solver", "learning_rate_init", "learning_rate", "step", "epoch", "best",
          "best_epoch")  # fmt: skip


class Case:
    """Parameters and data, and new estimators for them, as another process would create."""

    def __init__(self, name="adam", **options):
        params = BASE | CASES.get(name, {}) | options
        self.kind, self.fit_params = params.pop("kind", MLPRegressor), params.pop("fit", {})
        self.X, self.params = params.pop("X", X), params
        self.y = LABELS if self.kind is MLPClassifier else Y

    def new(self, path=None, *callbacks, **options):
        """`callbacks` come after those of the case."""
        params = pickle.loads(pickle.dumps(self.params)) | options
        params["callbacks"] = [*params.get("callbacks", ()), *callbacks]
        return self.kind(**params, checkpoint=path, resume=path is not None)

    def fit(self, path=None, *callbacks, **options):
        return self.refit(self.new(path, *callbacks, **options))

    def refit(self, est):
        return est.fit(self.X, self.y, **self.fit_params)


def assert_same_fit(first, second):
    """Assert that two fits end in the same state, bit for bit."""
    for a, b in zip(
        first.coefs_ + first.intercepts_, second.coefs_ + second.intercepts_, strict=True
    ):
        assert a.tobytes() == b.tobytes()
    for name in ATTRIBUTES:
        assert repr(getattr(first, name, None)) == repr(getattr(second, name, None)), name
    histories = [
        {k: v for k, v in est.history_.items() if k != "seconds"} for est in (first, second)
    ]
    assert repr(histories[0]) == repr(histories[1])
    first_state, second_state = first._optimizer, second._optimizer
    for name in RESUME_STATE:
        assert repr(getattr(first_state, name)) == repr(getattr(second_state, name)), name
    for name in ("last", "kept"):
        a, b = getattr(first_state, name), getattr(second_state, name)
        assert (a is None and b is None) or a.tobytes() == b.tobytes()
    assert [a.tobytes() for a in first_state.slots] == [b.tobytes() for b in second_state.slots]


@pytest.mark.parametrize("name", CASES)
def test_kills_after_every_epoch_change_nothing(name, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(name)
    uninterrupted, killed = case.fit(), 0
    for epoch in range(1, EPOCHS + 1):
        try:
            case.fit(path, kill_at(epoch))
        except Killed:
            killed += 1
            continue
        break  # it stopped early
    assert killed == uninterrupted.n_iter_
    resumed = case.fit(path)
    assert_same_fit(resumed, uninterrupted)
    finished = case.fit(path, kill_at(EPOCHS + 1))
    assert_same_fit(finished, uninterrupted)
    assert (finished.predict(X) == uninterrupted.predict(X)).all()
    assert os.listdir(tmp_path) == ["fit.ckpt"]
    for est in (uninterrupted, finished):  # both continue alike
        case.refit(est.set_params(checkpoint=None, resume=False, callbacks=(), warm_start=True))
    assert_same_fit(finished, uninterrupted)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [2, 9])
def test_a_ctrl_c_within_an_epoch_is_written_and_changes_nothing(name, step, tmp_path, monkeypatch):
    path, case = tmp_path / "fit.ckpt", Case(name)
    uninterrupted, stops = case.fit(), 0
    while True:
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            halt_at(patch, step)
            resumed = case.fit(path)
        if "Training interrupted by user." not in [str(w.message) for w in warned]:
            break
        stops += 1
    # recording may count a step twice
    assert stops >= max(1, uninterrupted._optimizer.step // (2 * step))
    assert_same_fit(resumed, uninterrupted)


@pytest.mark.parametrize("name", ["adam", "early stopping", "adaptive", "validation data"])
def test_a_warm_start_has_its_own_checkpoint(name, tmp_path):
    case = Case(name, warm_start=True)
    first = case.fit(max_iter=3)
    uninterrupted = case.refit(pickle.loads(pickle.dumps(first)).set_params(max_iter=5))
    for epoch in (4, 6, 6, 7):
        est = pickle.loads(pickle.dumps(first)).set_params(callbacks=[kill_at(epoch)])
        est.set_params(max_iter=5, checkpoint=tmp_path / "fit.ckpt", resume=True)
        with pytest.raises(Killed):
            case.refit(est)
    assert_same_fit(case.refit(est.set_params(callbacks=())), uninterrupted)
    changed = pickle.loads(pickle.dumps(first)).set_params(checkpoint=est.checkpoint, resume=True)
    changed.coefs_[0][0, 0] += 1e-9
    with pytest.raises(ValueError, match="another training: the start was 'SHA-256"):
        case.refit(changed.set_params(max_iter=5))
    with pytest.raises(ValueError, match="the start was 'SHA-256"):
        case.fit(est.checkpoint, max_iter=8)


def test_a_warm_start_may_add_validation_data(tmp_path):
    case = Case(warm_start=True)
    first = case.fit(max_iter=3)
    case.fit_params = VALIDATION
    uninterrupted = case.refit(pickle.loads(pickle.dumps(first)))
    options = {"checkpoint": tmp_path / "fit.ckpt", "resume": True}
    with pytest.raises(Killed):
        case.refit(pickle.loads(pickle.dumps(first)).set_params(callbacks=[kill_at(6)], **options))
    assert_same_fit(case.refit(first.set_params(**options)), uninterrupted)


def test_more_epochs_continue_and_fewer_are_refused(tmp_path):
    path, case = tmp_path / "fit.ckpt", Case()
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\)"):
        case.fit(path, max_iter=3)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\)"):
        case.fit(path, max_iter=3)  # complete: it warns again
    assert_same_fit(case.fit(path), case.fit())
    with pytest.raises(ValueError, match="it has done 8 epochs and epochs is 7"):
        case.fit(path, max_iter=7)
    path.unlink()
    case.fit(path, max_iter=3, schedule="cosine")
    with pytest.raises(ValueError, match="epochs was 3 and is 8, on which the schedule 'cosine'"):
        case.fit(path, schedule="cosine")


CHANGED = {
    "hidden_layer_sizes": 7, "activation": "tanh", "solver": "sgd", "alpha": 0.1,
    "batch_size": 17, "learning_rate": "adaptive", "learning_rate_init": 0.01, "power_t": 0.4,
    "shuffle": False, "random_state": 5, "tol": 0.1, "momentum": 0.8, "nesterovs_momentum": False,
    "early_stopping": True, "validation_fraction": 0.2, "beta_1": 0.8, "beta_2": 0.9,
    "epsilon": 1e-7, "n_iter_no_change": 5, "dropout": 0.1, "class_weight": "balanced",
    "schedule": "step:2,0.5", "weight_decay": 0.1, "clip": 1.0, "scoring": "f1_macro",
    "dtype": "float32",
}  # fmt: skip
# does not change the bits, is refused with another message, or needs a GPU
NOT_CHANGED = {
    "max_iter", "max_fun", "verbose", "warm_start", "callbacks", "continuation", "device",
    "n_threads", "output", "checkpoint", "resume", "precision",
}  # fmt: skip


def test_every_parameter_is_covered():
    assert {*MLPClassifier().get_params()} == {*CHANGED} | NOT_CHANGED


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_parameter_is_refused_and_named(name, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(kind=MLPClassifier, max_iter=1)
    case.fit(path)
    before = path.read_bytes()
    est = case.new(path)
    with pytest.raises(ValueError, match=rf"another training: (.*; )?{name} was .* and is "):
        case.refit(est.set_params(**{name: CHANGED[name]}))
    assert path.read_bytes() == before
    assert not hasattr(est, "coefs_")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("X", {"X": X + 1e-9}),
        ("y", {"y": np.roll(LABELS, 1)}),
        ("sample_weight", {"sample_weight": WEIGHT}),
        ("X_val", {"X_val": X, "y_val": LABELS}),
        ("classes_", {"y": np.where(LABELS == "a", "A", LABELS)}),
    ],
)
def test_changed_data_are_refused_and_named(name, arguments, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(kind=MLPClassifier, max_iter=1)
    case.fit(path)
    with pytest.raises(ValueError, match=rf"another training: (.*; )?{name} was .* and is "):
        case.new(path).fit(**{"X": X, "y": LABELS} | arguments)


def test_an_existing_file_is_not_overwritten(tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(max_iter=1)
    est = case.fit(path)
    with pytest.raises(ValueError, match=r"fit\.ckpt already exists: resume=True"):
        case.refit(est.set_params(resume=False))
    assert est.n_iter_ == 1  # unchanged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": 3}, "The 'checkpoint' parameter of MLPRegressor must be"),
        ({"checkpoint": "a", "resume": 2}, "The 'resume' parameter of MLPRegressor must be"),
        ({"resume": True}, "resume goes on from a checkpoint: give checkpoint="),
        ({"resume": True, "solver": "lbfgs"}, "resume goes on from a checkpoint"),
        ({"checkpoint": "a", "solver": "lbfgs"}, "checkpoint needs a solver with epochs"),
        ({"checkpoint": "a", "random_state": None}, "checkpoint needs a random_state"),
    ],
)
def test_bad_arguments_are_named_before_any_work(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    est = Case().new().set_params(**options)
    with pytest.raises(ValueError, match=message):
        est.fit(X, Y)
    assert not hasattr(est, "coefs_")
    assert os.listdir() == []


def test_every_epochs_is_respected_and_cloned(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.ckpt", every_epochs=3)
    est = clone(Case().new(callbacks=[kill_at(5)]).set_params(checkpoint=checkpoint, resume=True))
    with pytest.raises(Killed):
        est.fit(X, Y)
    epochs = []
    resumed = clone(est).set_params(callbacks=[lambda report: epochs.append(report.epoch)])
    assert_same_fit(resumed.fit(X, Y), Case().fit())
    assert epochs == [4, 5, 6, 7, 8]


def test_partial_fit_writes_no_checkpoint(tmp_path):
    est = Case().new(tmp_path / "fit.ckpt")
    est.partial_fit(X, Y).partial_fit(X, Y)
    assert os.listdir(tmp_path) == []
    assert_same_fit(est, Case().new().partial_fit(X, Y).partial_fit(X, Y))


def test_resumed_epochs_are_not_printed_twice(tmp_path, capsys):
    case = Case(verbose=True, tol=0.5, n_iter_no_change=3)
    case.fit()
    expected = capsys.readouterr().out
    with pytest.raises(Killed):
        case.fit(tmp_path / "fit.ckpt", kill_at(3))
    first = capsys.readouterr().out
    case.fit(tmp_path / "fit.ckpt")
    third = first.index("Iteration 3")  # printed, but not written
    assert first[:third] + capsys.readouterr().out == expected


def test_convergence_in_the_last_epoch_does_not_warn(tmp_path):
    case = Case(tol=0.5, n_iter_no_change=3)
    epochs = case.fit().n_iter_
    assert epochs < EPOCHS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            case.fit(tmp_path / "fit.ckpt", max_iter=epochs)


def test_a_resumed_fit_diverges_again(tmp_path):
    path = tmp_path / "fit.ckpt"
    case = Case(solver="sgd", learning_rate_init=1.0, max_iter=50)
    case.y = 1e3 * Y
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="diverged in epoch"):
            case.fit(path)
    path.unlink()
    case.fit_params = VALIDATION
    with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
        uninterrupted = case.fit()
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
            assert_same_fit(case.fit(path), uninterrupted)


def test_a_model_file_does_not_name_the_checkpoint(tmp_path):
    case = Case()
    est = case.fit(tmp_path / "fit.ckpt")
    est.save(tmp_path / "model")
    assert b"fit.ckpt" not in (tmp_path / "model").read_bytes()
    loaded = MLPRegressor.load(tmp_path / "model")
    assert (loaded.checkpoint, loaded.resume) == (None, False)
    assert_same_fit(loaded, est)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_is_resumed(tmp_path):
    program = """
        import sys, time
        import numpy as np
        from xpmlp import MLPRegressor
        def wait(report):
            if report.epoch == int(sys.argv[2]):
                print("here", flush=True)
                time.sleep(60)
        X = np.random.default_rng(0).normal(size=(200, 5))
        est = MLPRegressor(early_stopping=True, dropout=0.2, max_iter=30, random_state=0,
            checkpoint=sys.argv[1], resume=True, callbacks=[wait])
        est.fit(X, X[:, 0])
    """
    path, rows = tmp_path / "fit.ckpt", np.random.default_rng(0).normal(size=(200, 5))
    for epoch in (3, 20):
        command = [sys.executable, "-c", textwrap.dedent(program), str(path), str(epoch)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"here\n"
            child.kill()
    reports = []
    params = {"early_stopping": True, "dropout": 0.2, "max_iter": 30, "random_state": 0}
    est = MLPRegressor(**params, checkpoint=path, resume=True, callbacks=[reports.append])
    assert_same_fit(est.fit(rows, rows[:, 0]), MLPRegressor(**params).fit(rows, rows[:, 0]))
    assert reports[0].epoch == 20
    assert os.listdir(tmp_path) == ["fit.ckpt"]


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("seal", [False, True], ids=["", "sealed"])
def test_a_damaged_file_is_refused_or_gives_the_same_fit(name, seal, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(early_stopping=True, max_iter=3)
    uninterrupted = case.fit(path, max_iter=2)
    refused = loaded = 0
    for _ in damaged(path, name, seal=seal):
        try:
            resumed = case.fit(path, max_iter=2)
        except NonFiniteError:  # weights that are not finite, under a valid checksum
            loaded += seal
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            loaded += 1
            if not seal:
                assert_same_fit(resumed, uninterrupted)
    assert refused + loaded == 30
    assert refused >= (1 if seal else 10)
