"""A training that is killed and resumed equals an uninterrupted one, bit for bit."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from fuzz.mutate_bytes import DAMAGES, with_digest
from fuzz.mutate_header import join_file, split_file
from stops import Killed, damaged, halt_at, kill_at

from xpmlp import Checkpoint, DivergedError, plateau, train
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.storage import atomic, checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.* diverged and (is|are) stopped")

EPOCHS = 8


def rows(count=50, n_out=1):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(count, 4))
    return {"X": X, "y": np.sin(X[:, :n_out]) + 0.1 * rng.normal(size=(count, n_out))}


def val_rows():
    data = rows(20)
    return {"X_val": data["X"], "y_val": -data["y"]}


BASE = {"spec": "4-6-1", "epochs": EPOCHS, "batch_size": 8, "learning_rate": 0.02}
CASES = {name: {"optimizer": name} for name in OPTIMIZERS} | {
    "dropout": {"spec": [[6, 4, "tanh", 0.3], [1, 6, None]]},
    "cosine": {"schedule": "cosine"},
    "warm-up, clip and decay": {
        "schedule": "warmup:3 * step:2,0.5", "clip": 0.5, "weight_decay": 0.1, "l1": 1e-3,
    },
    "early stopping": {**val_rows(), "patience": 2},
    "best weights": {**val_rows(), "keep": "best", "monitor": "val_score"},
    "the best of the training loss": {"keep": "best"},
    "a plateau": {**val_rows(), "callbacks": [plateau(0.5, patience=1)]},
    "a population": {"members": 3, "learning_rate": [0.02, 0.1, 0.3], **val_rows(), "patience": 2},
    "a member that diverges": {
        "members": 3, "learning_rate": [0.02, 1e30, 0.1], "optimizer": "sgd",
    },
    "a member that is restored": {
        "members": 3, "learning_rate": [0.02, 1e200, 0.1], "optimizer": "momentum",
        "on_divergence": "restore",
    },
    "restored": {
        "learning_rate": 1e12, "optimizer": "momentum", "spec": "4-1", "on_divergence": "restore",
    },
    "float32": {"dtype": "float32"},
    "step by step": {"capture": False},
    "an order that stays": {"shuffle": False, "sample_weight": np.arange(50.0)},
}  # fmt: skip


def arguments(name="adam", **options):
    return BASE | rows() | CASES[name] | options


def fit(path, *callbacks, **arguments):
    """Train, or resume from `path`; `callbacks` come after those of `arguments`."""
    callbacks = [*arguments.pop("callbacks", ()), *callbacks]
    data = [arguments.pop(name) for name in ("spec", "X", "y")]
    return train(*data, **arguments, callbacks=callbacks,
                 checkpoint=path, resume=True)  # fmt: skip


def assert_same(first, second):
    assert first.flat.tobytes() == second.flat.tobytes()
    assert first.history.keys() == second.history.keys()
    for name, series in first.history.items():
        if name != "seconds":
            values = second.history[name]
            assert [type(value) for value in values] == [type(value) for value in series]
            np.testing.assert_array_equal(values, series, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_kills_after_every_epoch_change_nothing(name, tmp_path):
    path, uninterrupted = tmp_path / "run.ckpt", train(**arguments(name))
    for epoch in range(1, EPOCHS + 1):
        try:
            fit(path, kill_at(epoch), **arguments(name))
        except Killed:
            continue
        break  # training stopped early
    last = fit(path, **arguments(name))
    assert_same(uninterrupted, last)
    assert_same(
        uninterrupted, fit(path, kill_at(EPOCHS + 1), **arguments(name))
    )  # training is complete
    assert os.listdir(tmp_path) == ["run.ckpt"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [1, 2, 11, 20])
def test_a_stop_within_an_epoch_changes_nothing(name, step, tmp_path, monkeypatch):
    path, uninterrupted = tmp_path / "run.ckpt", train(**arguments(name))
    stops = 0
    while True:
        with monkeypatch.context() as patch:
            halt_at(patch, step)
            try:
                last = fit(path, **arguments(name))
            except KeyboardInterrupt:
                stops += 1
                continue
        break
    assert stops >= (7 if step == 1 else 1)
    assert_same(uninterrupted, last)


def test_more_epochs_resume_under_an_open_ended_schedule(tmp_path):
    path = tmp_path / "run.ckpt"
    for schedule in (None, "warmup:3 * step:2,0.5"):
        fit(path, **arguments(schedule=schedule, epochs=3))
        assert_same(
            train(**arguments(schedule=schedule)), fit(path, **arguments(schedule=schedule))
        )
        with pytest.raises(ValueError, match="it has done 8 epochs and epochs is 7"):
            fit(path, **arguments(schedule=schedule, epochs=7))
        path.unlink()
    fit(path, **arguments("cosine", epochs=3))
    with pytest.raises(
        ValueError, match="epochs was 3 and is 8, on which the schedule 'cosine' depends"
    ):
        fit(path, **arguments("cosine"))


def ramp(xp, now):
    return 1 / (1 + now.epoch)


OTHER = {
    "learning_rate": {"learning_rate": 0.03}, "optimizer": {"optimizer": "sgd"},
    "seed": {"seed": 1},
    "batch_size": {"batch_size": 9}, "loss": {"loss": "huber:1"}, "spec": {"spec": "4-7-1"},
    "dtype": {"dtype": "float32"}, "members": {"members": 2}, "l2": {"l2": 0.1},
    "patience": {"patience": 3}, "schedule": {"schedule": ramp},
    "optimizer_params": {"optimizer_params": {"beta1": 0.5}},
    "X": {"X": rows()["X"] + 1e-9}, "y": {"y": -rows()["y"]}, "X_val": val_rows(),
    "sample_weight": {"sample_weight": np.arange(50.0)},
    "metrics": {"metrics": {"largest error": lambda y, prediction: np.abs(y - prediction).max()}},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_the_checkpoint_of_another_training_is_refused_by_difference(name, tmp_path):
    path = tmp_path / "run.ckpt"
    fit(path, **arguments(epochs=1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"of another training: (.*; )?{name} was .* and is "):
        fit(path, **arguments(epochs=1) | OTHER[name])
    assert path.read_bytes() == before


def test_renamed_labels_are_refused(tmp_path):
    path, labels = tmp_path / "run.ckpt", np.array(["a", "b"])[np.arange(50) % 2]
    kwargs = arguments(spec="4-6-2", loss="cross_entropy", epochs=1)
    fit(path, **kwargs | {"y": labels})
    with pytest.raises(ValueError, match="y was 'SHA-256"):
        fit(path, **kwargs | {"y": np.where(labels == "a", "c", labels)})


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "run.ckpt"
    train(**arguments(epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.ckpt already exists: resume=True"):
        train(**arguments(epochs=1), checkpoint=path)


@pytest.mark.parametrize(
    "stop",
    [{"patience": 1, "learning_rate": 0.0}, {"callbacks": [lambda report: True]}],
    ids=["patience", "callback"],
)
def test_a_training_that_was_stopped_is_not_resumed(stop, tmp_path):
    path = tmp_path / "run.ckpt"
    stopped = fit(path, **arguments(**stop))
    assert len(stopped.history["loss"]) < EPOCHS
    resumed = fit(path, **arguments(**stop | {"callbacks": []}, epochs=2 * EPOCHS))
    assert resumed.history == stopped.history
    assert (resumed.flat == stopped.flat).all()


def test_another_machine_warns(tmp_path, monkeypatch):
    path = tmp_path / "run.ckpt"
    fit(path, **arguments(epochs=1))
    monkeypatch.setattr(checkpoint.platform, "machine", lambda: "abacus")
    with pytest.warns(UserWarning, match="machine was '.*' and is 'abacus'"):
        fit(path, **arguments(epochs=2))


def test_the_interval_is_respected(tmp_path, monkeypatch):
    write_epochs = []
    monkeypatch.setattr(
        checkpoint,
        "encode",
        lambda trainer, signature, environment: write_epochs.append(trainer.epoch) or b"",
    )
    monkeypatch.setattr(checkpoint, "write_atomic", lambda path, data: None)
    train(**arguments(), checkpoint=Checkpoint(tmp_path / "a", every_epochs=3))
    assert write_epochs == [3, 6, 8]
    write_epochs.clear()
    train(**arguments(), checkpoint=Checkpoint(tmp_path / "a", every_seconds=1e6))
    assert write_epochs == [8]
    write_epochs.clear()
    window_size = "xpmlp.recording.executors.EagerExecutor.WINDOW_SIZE"
    monkeypatch.setattr(window_size, 1)  # one step per window
    train(**arguments(epochs=2), checkpoint=Checkpoint(tmp_path / "a", every_seconds=1e-9))
    assert write_epochs == [0] * 6 + [1] * 7 + [2]


BAD = {
    "checkpoint must be a path": {"checkpoint": 3},
    "resume must be True or False": {"checkpoint": "a", "resume": "yes"},
    "give checkpoint=": {"resume": True},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(**arguments(epochs=1), **BAD[message])
    assert os.listdir() == []


INVALID_INTERVALS = {
    "every_epochs must be at least 1": (0, -1),
    "every_epochs must be a whole number": (True, 2.5, float("nan"), "often", [1]),
    "every_seconds must be a number above 0": (0, -1.0, True, float("nan"), "1", [1], 1j),
}


@pytest.mark.parametrize(
    ("message", "value"), [(s, v) for s, vs in INVALID_INTERVALS.items() for v in vs]
)
def test_an_invalid_interval_is_named(message, value):
    with pytest.raises(ValueError, match=message):
        Checkpoint("a", **{message.split()[0]: value})


def test_an_interval_may_be_a_numpy_number(tmp_path):
    settings = Checkpoint("a", every_epochs=np.int64(2), every_seconds=np.float32(1.5))
    assert (settings.epochs, settings.seconds) == (2, 1.5)


INVALID_PATHS = {
    "checkpoint folder is a directory": "folder",
    "checkpoint no.run.ckpt cannot be written: folder no does not exist$": "no/run.ckpt",
    "checkpoint file.run.ckpt cannot be written: folder file does not exist$": "file/run.ckpt",
    "checkpoint . is a directory": "",
}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("message", INVALID_PATHS)
def test_an_invalid_path_is_named(message, resume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        train(**arguments(epochs=1), checkpoint=INVALID_PATHS[message], resume=resume)
    assert sorted(os.listdir()) == ["file", "folder"]


def test_a_diverged_training_leaves_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "run.ckpt"
    kwargs = arguments(
        "sgd", learning_rate=0.9, loss="squared_error", y=1e3 * rows()["y"], epochs=100
    )
    for _ in range(2):  # a resumed training diverges again
        with pytest.raises(DivergedError):
            fit(path, **kwargs)


DIVERGING = {
    "for good": {"optimizer": "sgd", "spec": "4-1", "learning_rate": [4.0, 1e30, 5.0]},
    "restored": {  # two members diverge from the fourth epoch on
        "optimizer": "sgd", "learning_rate": [1e-170, 1e30, 1e-170], "schedule": "step:3,1e200",
        "on_divergence": "restore",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DIVERGING)
def test_the_error_of_a_population_names_members_that_diverged_before_a_resume(name, tmp_path):
    path, kwargs = tmp_path / "run.ckpt", arguments(members=3, epochs=50) | DIVERGING[name]
    with pytest.raises(DivergedError) as uninterrupted:
        train(**kwargs)
    first, last = ((step(uninterrupted.value.step) - 1) // 7 + 1 for step in (min, max))  # epochs
    assert first <= last - 2  # so that the checkpoint has one divergence only
    with pytest.raises(Killed):
        fit(path, kill_at(last - 1), **kwargs)
    with pytest.raises(DivergedError) as resumed:
        fit(path, **kwargs)
    for attribute in ("step", "learning_rate", "gradients"):
        assert repr(getattr(resumed.value, attribute)) == repr(
            getattr(uninterrupted.value, attribute)
        )
    assert str(resumed.value) == str(uninterrupted.value)


# Failing writes


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("k", range(EPOCHS))
def test_a_failed_write_leaves_the_old_checkpoint(k, failing, tmp_path, monkeypatch):
    path, calls = tmp_path / "run.ckpt", []
    original = getattr(os, failing)

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == k + 1:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, failing, fail)
        if failing == "replace" or k % 2 == 0:  # the fsync of the folder may fail
            with pytest.raises(OSError, match=r"No space left on device: '.*run\.ckpt'"):
                fit(path, **arguments())
        else:
            fit(path, **arguments())
    assert os.listdir(tmp_path) == ["run.ckpt"] * (path.exists())
    assert_same(train(**arguments()), fit(path, **arguments()))


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "run.ckpt"
    program = """
        import resource, signal, sys
        import numpy as np
        import xpmlp
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def full(report):
            if report.epoch == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        X = np.eye(4)
        try:
            xpmlp.train("4-6-1", X, X[0], epochs=5, checkpoint=sys.argv[1], callbacks=[full])
        except OSError as error:
            print(error)
            sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    result = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert result.returncode == 7, result.stderr
    assert "run.ckpt" in result.stdout
    assert os.listdir(tmp_path) == ["run.ckpt"]
    X, seen = np.eye(4), []
    train("4-6-1", X, X[0], epochs=5, checkpoint=path, resume=True, callbacks=[seen.append])
    assert [report.epoch for report in seen] == [3, 4, 5]


def test_partial_files_of_a_kill_are_removed(tmp_path):
    partial, unrelated = tmp_path / f".run.ckpt.{'0' * 12}.part", tmp_path / ".run.ckpt.mine.part"
    partial.touch()
    unrelated.touch()
    fit(tmp_path / "run.ckpt", **arguments(epochs=1))
    assert sorted(os.listdir(tmp_path)) == [unrelated.name, "run.ckpt"]


# One training per file


@pytest.mark.skipif(os.name != "posix", reason="flock is POSIX's")
def test_a_second_training_is_refused_until_the_first_dies(tmp_path):
    path = tmp_path / "run.ckpt"
    program = """
        import sys, time
        import xpmlp
        def wait(report):
            print("here", flush=True)
            time.sleep(60)
        xpmlp.train("1-1", [[0.0], [1.0]], [0.0, 1.0], checkpoint=sys.argv[1], callbacks=[wait])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"here\n"
        with pytest.raises(BlockingIOError, match=r"run\.ckpt is in use by another training"):
            fit(path, **arguments(epochs=1))
        first.kill()
    fit(path, **arguments(epochs=1))
    assert os.listdir(tmp_path) == ["run.ckpt"]


def test_a_second_training_in_the_process_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"

    def again(report):
        fit(path, **arguments(epochs=1))

    with pytest.raises(BlockingIOError, match="in use"):
        fit(path, again, **arguments(epochs=1))


# Damaged and malformed files


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("seal", [False, True], ids=["", "sealed"])
def test_a_damaged_file_is_refused_or_the_same(name, seal, tmp_path):
    path = tmp_path / "run.ckpt"
    uninterrupted = fit(path, **arguments(epochs=2))
    refused = loaded = 0
    for _ in damaged(path, name, seal=seal):
        try:
            last = fit(path, **arguments(epochs=2))
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            loaded += 1
            if not seal:
                assert_same(uninterrupted, last)
    assert refused + loaded == 30
    assert refused >= (1 if seal else 10)


def set_config(**values):
    return lambda parts: parts.config.update(values)


def set_words(**values):
    return lambda parts: parts.config["words"].update(values)


def set_number(name, value):
    """Replace the first number of a tensor."""

    def change(parts):
        start, _ = parts.header[name]["data_offsets"]
        number = np.array(value, dtype={"F64": "<f8", "I64": "<i8"}[parts.header[name]["dtype"]])
        parts.body[start : start + 8] = number.tobytes()

    return change


def set_header(name, **values):
    return lambda parts: parts.header[name].update(values)


def rename_tensor(name, new):
    return lambda parts: parts.header.update({new: parts.header.pop(name)})


INVALID = {
    "epoch must be in": set_config(epoch=-1),
    "epoch must be in .* it has True": set_config(epoch=True),
    "step_in_epoch must be in": set_config(step_in_epoch=7),
    "step_in_epoch must be in .* it has 1.0": set_config(step_in_epoch=1.0),
    "seconds must be at least 0; it has -1": set_config(seconds=-1),
    "seconds must be at least 0; it has '1'": set_config(seconds="1"),
    "it has no signature": set_config(signature=[]),
    "its extra_state is": set_config(extra_state={"stale": 1}),
    "TypeError: .*'float' object cannot be .* an integer": set_config(
        divergences={"0": {"step": 1.5, "epoch": 1, "learning_rate": 0.1, "gradients": []}}
    ),
    "TypeError: .*unexpected keyword": set_config(divergences={"0": {"steps": 1}}),
    "its history holds ": set_config(words={}),
    "its history holds .*loss2": rename_tensor("history.loss", "history.loss2"),
    "history holds .*'loss'": set_words(loss=[None, None]),
    "history of 'executor'": set_words(executor=["eager"]),
    "history of 'executor' is": set_words(executor=["eager", "odd"]),
    "history of 'val_loss'": set_words(val_loss=["eager", None]),
    "history of 'val_score'": set_words(val_score="no"),
    r"history of 'loss' is \(2, 1\)": set_header("history.loss", shape=[2, 1]),
    r"history of 'loss' is .*int64": set_header("history.loss", dtype="I64"),
    r"history of 'restored' is .*float64": set_header("history.restored", dtype="F64"),
    "its tensor 'params' is None": rename_tensor("params", "params2"),
    "its tensor 'params' is .*int64": set_header("params", dtype="I64"),
    "its step must be in .*; it has -1": set_number("step", -1),
    "its best_epoch must be in .0, 2.; it has -1": set_number("best_epoch", -1),
    "its best_epoch must be in .0, 2.; it has 3": set_number("best_epoch", 3),
    "its finite_steps must be in .0, 7.; it has -1": set_number("finite_steps", -1),
    "its finite_steps must be in .0, 7.; it has 8": set_number("finite_steps", 8),
    "its finite_steps must be in .0, 7.; it has nan": set_number("finite_steps", np.nan),
    "its alive must be in .0, 1.; it has 2": set_number("alive", 2),
    "its slots_reset_step must be in .0, 14.; it has 15": set_number("slots_reset_step", 15),
    "its learning_rate_scale must be in .*; it has nan": set_number("learning_rate_scale", np.nan),
    "its learning_rate_scale must be in .*; it has inf": set_number("learning_rate_scale", np.inf),
    "its learning_rate_scale must be in .*; it has -1": set_number("learning_rate_scale", -1),
}


@pytest.mark.parametrize("message", INVALID)
def test_invalid_contents_are_refused(message, tmp_path):
    path = tmp_path / "run.ckpt"
    fit(path, **arguments(epochs=2))
    parts = split_file(path.read_bytes())
    INVALID[message](parts)
    path.write_bytes(with_digest(join_file(parts)))
    with pytest.raises(ValueError, match=rf"run\.ckpt is not a whole checkpoint: .*{message}"):
        fit(path, **arguments(epochs=2))


def test_a_checkpoint_written_between_steps_has_the_threads_of_the_training(tmp_path, optional):
    """Small products use one thread during the steps; the environment must not differ for that."""
    with optional("threadpoolctl").threadpool_limits(2, user_api="blas"):
        path, kwargs = tmp_path / "run.ckpt", arguments() | rows(20_000)
        often = Checkpoint(path, every_seconds=1e-9)
        fit(often, **kwargs | {"epochs": 1})
        assert b'"BLAS threads": 2' in path.read_bytes().replace(b'\\"', b'"')
        fit(often, **kwargs | {"epochs": 2})  # a warning would be an error
