"""Ctrl-C and SIGTERM: the step is finished, the weights are kept, and the signal is passed on."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from xpmlp import train
from xpmlp.training.interruption import Terminated, raise_terminated

RNG = np.random.default_rng(3)
X = RNG.normal(size=(64, 3))
Y = X.sum(axis=1)
OPTIONS = {"epochs": 6, "batch_size": 8, "learning_rate": 0.02}


def signalling(step, number=signal.SIGINT, times=1):
    """A schedule that raises a signal in update `step`."""

    def schedule(xp, now):
        if float(now.step) == step:
            for _ in range(times):
                signal.raise_signal(number)
        return xp.ones_like(now.step)

    return schedule


def constant(xp, now):
    return xp.ones_like(now.step)


@pytest.fixture
def sigterm_handler():
    signal.signal(signal.SIGTERM, raise_terminated)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
@pytest.mark.parametrize("step", [3, 7, 8, 13])
def test_the_step_is_finished_and_the_weights_are_kept(number, raised, step, sigterm_handler):
    with pytest.raises(raised, match=f"at step {step + 1}$") as caught:
        train("3-4-1", X, Y, **OPTIONS, schedule=signalling(step, number), capture=False)
    assert type(caught.value) is raised
    rows = (step + 1) * 8
    if rows <= 64:  # within the first epoch
        expected = train("3-4-1", X, Y, **OPTIONS | {"epochs": 1}, capture=False, schedule=constant)
        assert (caught.value.model.flat == expected.flat).all() == (rows == 64)
    assert np.isfinite(caught.value.model.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is raise_terminated


def test_a_signal_in_a_callback():
    epochs = []

    def callback(report):
        epochs.append(report.epoch)
        if report.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 3") as caught:
        train("3-4-1", X, Y, **OPTIONS, callbacks=[callback])
    assert epochs == [1, 2]
    expected = train("3-4-1", X, Y, **OPTIONS | {"epochs": 2})
    assert (caught.value.model.flat == expected.flat).all()


def test_a_second_signal_raises_at_once():
    with pytest.raises(KeyboardInterrupt) as caught:
        train("3-4-1", X, Y, **OPTIONS, schedule=signalling(3, times=2), capture=False)
    assert not hasattr(caught.value, "model")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_users_signal_handler_is_kept():
    received = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        train("3-4-1", X, Y, **OPTIONS, schedule=signalling(3), capture=False)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert received == [signal.SIGINT]


def test_another_thread_trains_without_handlers():
    models = []
    thread = threading.Thread(target=lambda: models.append(train("3-4-1", X, Y, **OPTIONS)))
    thread.start()
    thread.join()
    assert (models[0].flat == train("3-4-1", X, Y, **OPTIONS).flat).all()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", -2), ("SIGTERM", -15)])
@pytest.mark.parametrize("capture", [True, False])
def test_a_stopped_process_resumes_to_the_same_bits(name, code, capture, tmp_path):
    """At an arbitrary moment; SIGTERM has no handler and ends the process."""
    program = f"""
        import sys
        import numpy as np
        import xpmlp
        X = np.random.default_rng(3).normal(size=(64, 3))
        def print_epoch(report):
            print(report.epoch, flush=True)
        model = xpmlp.train("3-4-1", X, X.sum(axis=1), epochs=300, batch_size=8, capture={capture},
            checkpoint=sys.argv[1], resume=True, callbacks=[print_epoch])
        print(model.flat.tobytes().hex())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "run.ckpt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        for _ in range(5):
            first.stdout.readline()
        first.send_signal(getattr(signal, name))
        first.stdout.read()
        stderr = first.stderr.read().decode()
    assert first.returncode == code
    assert ("KeyboardInterrupt: stopped in epoch" in stderr) == (name == "SIGINT")
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    epoch, *_, bits = result.stdout.split()
    assert int(epoch) > 1
    uninterrupted = train("3-4-1", X, Y, epochs=300, batch_size=8, capture=capture)
    assert bits == uninterrupted.flat.tobytes().hex()


def test_an_estimator_warns_and_keeps_its_weights(optional):
    optional("sklearn")
    from xpmlp import MLPRegressor

    options = {"hidden_layer_sizes": (4,), "max_iter": 6, "batch_size": 8, "random_state": 0}
    est = MLPRegressor(**options, schedule=signalling(13))
    with pytest.warns(UserWarning, match=r"^Training interrupted by user\.$"):
        est.fit(X, Y)
    assert (est.n_iter_, est._optimizer.step) == (1, 14)  # the step in the second epoch is done
    assert np.isfinite(est.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
