"""A fit that is killed and called again is the one that never stopped, bit for bit."""

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
HELD = {"X_val": X[:20], "y_val": -Y[:20], "sample_weight_val": np.arange(20.0)}
WEIGHT = np.linspace(0.0, 2.0, 60)


def halve(report):
    """A callback that changes the rate, which the next epoch's rules take over."""
    report.scale_learning_rate(1.0 if report.epoch % 3 else 0.5)


def third(report):
    return report.epoch == 3


BASE = {"hidden_layer_sizes": 6, "batch_size": 16, "max_iter": EPOCHS, "random_state": 4}
CASES = {name: {"solver": name} for name in (*OPTIMIZERS, "sgd")} | {
    "classifier": {"kind": MLPClassifier},
    "early stopping": {"early_stopping": True, "learning_rate_init": 0.1},
    "early stopping that ends": {"early_stopping": True, "tol": 0.5, "n_iter_no_change": 2},
    "classes held out": {
        "kind": MLPClassifier, "early_stopping": True, "validation_fraction": 0.3,
        "scoring": "neg_log_loss", "learning_rate_init": 0.1,
    },
    "rows held out": {"fit": HELD, "learning_rate_init": 0.1},
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
    "the rate changed from two sides": {
        "callbacks": [halve], "solver": "sgd", "learning_rate": "adaptive", "tol": 0.5,
        "n_iter_no_change": 1, "dtype": "float32",
    },
    "a callback that ends": {"callbacks": [third]},
    "quantiles": {"quantiles": (0.1, 0.9)},
    "float32": {"dtype": "float32"},
    "in order": {"shuffle": False},
    "sparse": {"X": csr_array(X)},
    "a generator": {"random_state": np.random.RandomState(3), "early_stopping": True},
    "replayed": {"batch_size": 5},
}  # fmt: skip
ATTRIBUTES = (
    "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_",
    "validation_loss_curve_", "best_validation_score_", "_no_improvement_count",
)  # fmt: skip
COURSE = ("seed", "solver", "learning_rate_init", "learning_rate", "step", "epoch", "best",
          "best_epoch")  # fmt: skip


class Case:
    """Estimators of one setting, each as another process would build it."""

    def __init__(self, name="adam", **more):
        given = BASE | CASES.get(name, {}) | more
        self.kind, self.fitting = given.pop("kind", MLPRegressor), given.pop("fit", {})
        self.X, self.given = given.pop("X", X), given
        self.y = LABELS if self.kind is MLPClassifier else Y

    def new(self, path=None, *last, **more):
        """last: callbacks after those given."""
        given = pickle.loads(pickle.dumps(self.given)) | more
        given["callbacks"] = [*given.get("callbacks", ()), *last]
        return self.kind(**given, checkpoint=path, resume=path is not None)

    def fit(self, path=None, *last, **more):
        return self.again(self.new(path, *last, **more))

    def again(self, est):
        return est.fit(self.X, self.y, **self.fitting)


def equal(one, other):
    """Everything that training has left behind is the same, bit for bit."""
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert a.tobytes() == b.tobytes()
    for name in ATTRIBUTES:
        assert repr(getattr(one, name, None)) == repr(getattr(other, name, None)), name
    histories = [{k: v for k, v in est.history_.items() if k != "seconds"} for est in (one, other)]
    assert repr(histories[0]) == repr(histories[1])
    mine, its = one._optimizer, other._optimizer
    for name in COURSE:
        assert repr(getattr(mine, name)) == repr(getattr(its, name)), name
    for name in ("last", "kept"):
        a, b = getattr(mine, name), getattr(its, name)
        assert (a is None and b is None) or a.tobytes() == b.tobytes()
    assert [a.tobytes() for a in mine.slots] == [b.tobytes() for b in its.slots]


@pytest.mark.parametrize("name", CASES)
def test_kills_after_every_epoch_change_nothing(name, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(name)
    through, killed = case.fit(), 0
    for epoch in range(1, EPOCHS + 1):
        try:
            case.fit(path, kill_at(epoch))
        except Killed:
            killed += 1
            continue
        break  # it ended early
    assert killed == through.n_iter_
    last = case.fit(path)
    equal(last, through)
    over = case.fit(path, kill_at(EPOCHS + 1))
    equal(over, through)
    assert (over.predict(X) == through.predict(X)).all()
    assert os.listdir(tmp_path) == ["fit.ckpt"]
    for est in (through, over):  # and they go on the same
        case.again(est.set_params(checkpoint=None, resume=False, callbacks=(), warm_start=True))
    equal(over, through)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [2, 9])
def test_a_ctrl_c_within_an_epoch_is_written_and_changes_nothing(name, step, tmp_path, monkeypatch):
    path, case = tmp_path / "fit.ckpt", Case(name)
    through, stops = case.fit(), 0
    while True:
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            halt_at(patch, step)
            last = case.fit(path)
        if "Training interrupted by user." not in [str(w.message) for w in caught]:
            break
        stops += 1
    assert stops >= max(1, through._optimizer.step // (2 * step))  # what is recorded is two
    equal(last, through)


@pytest.mark.parametrize("name", ["adam", "early stopping", "adaptive", "rows held out"])
def test_a_warm_start_has_a_checkpoint_of_its_own(name, tmp_path):
    case = Case(name, warm_start=True)
    first = case.fit(max_iter=3)
    through = case.again(pickle.loads(pickle.dumps(first)).set_params(max_iter=5))
    for epoch in (4, 6, 6, 7):
        est = pickle.loads(pickle.dumps(first)).set_params(callbacks=[kill_at(epoch)])
        est.set_params(max_iter=5, checkpoint=tmp_path / "fit.ckpt", resume=True)
        with pytest.raises(Killed):
            case.again(est)
    equal(case.again(est.set_params(callbacks=())), through)
    changed = pickle.loads(pickle.dumps(first)).set_params(checkpoint=est.checkpoint, resume=True)
    changed.coefs_[0][0, 0] += 1e-9
    with pytest.raises(ValueError, match="another training: the start was 'SHA-256"):
        case.again(changed.set_params(max_iter=5))
    with pytest.raises(ValueError, match="the start was 'SHA-256"):
        case.fit(est.checkpoint, max_iter=8)


def test_a_warm_start_may_measure_what_was_not_measured_before(tmp_path):
    case = Case(warm_start=True)
    first = case.fit(max_iter=3)
    case.fitting = HELD
    through = case.again(pickle.loads(pickle.dumps(first)))
    given = {"checkpoint": tmp_path / "fit.ckpt", "resume": True}
    with pytest.raises(Killed):
        case.again(pickle.loads(pickle.dumps(first)).set_params(callbacks=[kill_at(6)], **given))
    equal(case.again(first.set_params(**given)), through)


def test_more_epochs_go_on_and_fewer_are_refused(tmp_path):
    path, case = tmp_path / "fit.ckpt", Case()
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\)"):
        case.fit(path, max_iter=3)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\)"):
        case.fit(path, max_iter=3)  # over: it says so again
    equal(case.fit(path), case.fit())
    with pytest.raises(ValueError, match="it has done 8 epochs and epochs is 7"):
        case.fit(path, max_iter=7)
    path.unlink()
    case.fit(path, max_iter=3, schedule="cosine")
    with pytest.raises(ValueError, match="epochs was 3 and is 8, which the schedule 'cosine'"):
        case.fit(path, schedule="cosine")


OTHER = {
    "hidden_layer_sizes": 7, "activation": "tanh", "solver": "sgd", "alpha": 0.1,
    "batch_size": 17, "learning_rate": "adaptive", "learning_rate_init": 0.01, "power_t": 0.4,
    "shuffle": False, "random_state": 5, "tol": 0.1, "momentum": 0.8, "nesterovs_momentum": False,
    "early_stopping": True, "validation_fraction": 0.2, "beta_1": 0.8, "beta_2": 0.9,
    "epsilon": 1e-7, "n_iter_no_change": 5, "dropout": 0.1, "class_weight": "balanced",
    "schedule": "step:2,0.5", "weight_decay": 0.1, "clip": 1.0, "scoring": "f1_macro",
    "dtype": "float32",
}  # fmt: skip
# what leaves the bits alone, is told of otherwise, or needs a GPU
NO_OTHER = {
    "max_iter", "max_fun", "verbose", "warm_start", "callbacks", "continuation", "device",
    "n_threads", "output", "checkpoint", "resume", "precision",
}  # fmt: skip


def test_every_parameter_is_looked_at():
    assert {*MLPClassifier().get_params()} == {*OTHER} | NO_OTHER


@pytest.mark.parametrize("name", OTHER)
def test_another_parameter_is_refused_and_named(name, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(kind=MLPClassifier, max_iter=1)
    case.fit(path)
    before = path.read_bytes()
    est = case.new(path)
    with pytest.raises(ValueError, match=rf"another training: (.*; )?{name} was .* and is "):
        case.again(est.set_params(**{name: OTHER[name]}))
    assert path.read_bytes() == before
    assert not hasattr(est, "coefs_")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("X", {"X": X + 1e-9}),
        ("y", {"y": np.roll(LABELS, 1)}),
        ("sample_weight", {"sample_weight": WEIGHT}),
        ("X_val", {"X_val": X, "y_val": LABELS}),
        ("classes_", {"y": np.where(LABELS == "a", "A", LABELS)}),
    ],
)
def test_other_data_are_refused_and_named(name, more, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(kind=MLPClassifier, max_iter=1)
    case.fit(path)
    with pytest.raises(ValueError, match=rf"another training: (.*; )?{name} was .* and is "):
        case.new(path).fit(**{"X": X, "y": LABELS} | more)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(max_iter=1)
    est = case.fit(path)
    with pytest.raises(ValueError, match=r"fit\.ckpt is there already: resume=True"):
        case.again(est.set_params(resume=False))
    assert est.n_iter_ == 1  # as it was


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"checkpoint": 3}, "The 'checkpoint' parameter of MLPRegressor must be"),
        ({"checkpoint": "a", "resume": 2}, "The 'resume' parameter of MLPRegressor must be"),
        ({"resume": True}, "resume goes on from a checkpoint: give checkpoint="),
        ({"resume": True, "solver": "lbfgs"}, "resume goes on from a checkpoint"),
        ({"checkpoint": "a", "solver": "lbfgs"}, "checkpoint needs a solver with epochs"),
        ({"checkpoint": "a", "random_state": None}, "checkpoint needs a random_state"),
    ],
)
def test_bad_arguments_are_named_before_any_work(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    est = Case().new().set_params(**given)
    with pytest.raises(ValueError, match=said):
        est.fit(X, Y)
    assert not hasattr(est, "coefs_")
    assert os.listdir() == []


def test_how_often_is_heeded_and_clones_ask_for_the_same(tmp_path):
    often = Checkpoint(tmp_path / "fit.ckpt", every_epochs=3)
    est = clone(Case().new(callbacks=[kill_at(5)]).set_params(checkpoint=often, resume=True))
    with pytest.raises(Killed):
        est.fit(X, Y)
    seen = []
    again = clone(est).set_params(callbacks=[lambda report: seen.append(report.epoch)])
    equal(again.fit(X, Y), Case().fit())
    assert seen == [4, 5, 6, 7, 8]


def test_partial_fit_writes_none(tmp_path):
    est = Case().new(tmp_path / "fit.ckpt")
    est.partial_fit(X, Y).partial_fit(X, Y)
    assert os.listdir(tmp_path) == []
    equal(est, Case().new().partial_fit(X, Y).partial_fit(X, Y))


def test_what_was_printed_is_not_printed_again(tmp_path, capsys):
    case = Case(verbose=True, tol=0.5, n_iter_no_change=3)
    case.fit()
    through = capsys.readouterr().out
    with pytest.raises(Killed):
        case.fit(tmp_path / "fit.ckpt", kill_at(3))
    first = capsys.readouterr().out
    case.fit(tmp_path / "fit.ckpt")
    third = first.index("Iteration 3")  # printed, but not written
    assert first[:third] + capsys.readouterr().out == through


def test_one_that_converged_in_its_last_epoch_does_not_warn(tmp_path):
    case = Case(tol=0.5, n_iter_no_change=3)
    epochs = case.fit().n_iter_
    assert epochs < EPOCHS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            case.fit(tmp_path / "fit.ckpt", max_iter=epochs)


def test_a_fit_that_diverges_does_so_again(tmp_path):
    path = tmp_path / "fit.ckpt"
    case = Case(solver="sgd", learning_rate_init=1.0, max_iter=50)
    case.y = 1e3 * Y
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="diverged in epoch"):
            case.fit(path)
    path.unlink()
    case.fitting = HELD
    with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
        through = case.fit()
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="diverged in epoch"):
            equal(case.fit(path), through)


def test_a_file_of_the_estimator_says_nothing_of_it(tmp_path):
    case = Case()
    est = case.fit(tmp_path / "fit.ckpt")
    est.save(tmp_path / "model")
    assert b"fit.ckpt" not in (tmp_path / "model").read_bytes()
    back = MLPRegressor.load(tmp_path / "model")
    assert (back.checkpoint, back.resume) == (None, False)
    equal(back, est)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_is_gone_on_with(tmp_path):
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
    seen = []
    given = {"early_stopping": True, "dropout": 0.2, "max_iter": 30, "random_state": 0}
    est = MLPRegressor(**given, checkpoint=path, resume=True, callbacks=[seen.append])
    equal(est.fit(rows, rows[:, 0]), MLPRegressor(**given).fit(rows, rows[:, 0]))
    assert seen[0].epoch == 20
    assert os.listdir(tmp_path) == ["fit.ckpt"]


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("seal", [False, True], ids=["", "sealed"])
def test_a_damaged_file_is_refused_or_the_same(name, seal, tmp_path):
    path, case = tmp_path / "fit.ckpt", Case(early_stopping=True, max_iter=3)
    through = case.fit(path, max_iter=2)
    refused = loaded = 0
    for _ in damaged(path, name, seal=seal):
        try:
            last = case.fit(path, max_iter=2)
        except NonFiniteError:  # weights that are no numbers, under a seal
            loaded += seal
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            loaded += 1
            if not seal:
                equal(last, through)
    assert refused + loaded == 30
    assert refused >= (1 if seal else 10)
