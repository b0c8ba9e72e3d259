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
GIVEN = {"epochs": 6, "batch_size": 8, "learning_rate": 0.02}


def strike(step, number=signal.SIGINT, times=1):
    """A schedule that is struck by a signal in update `step`."""

    def schedule(xp, now):
        if float(now.step) == step:
            for _ in range(times):
                signal.raise_signal(number)
        return xp.ones_like(now.step)

    return schedule


def calm(xp, now):
    return xp.ones_like(now.step)


@pytest.fixture
def by_term():
    signal.signal(signal.SIGTERM, raise_terminated)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
@pytest.mark.parametrize("step", [3, 7, 8, 13])
def test_the_step_is_finished_and_the_weights_are_kept(number, raised, step, by_term):
    with pytest.raises(raised, match=f"at step {step + 1}$") as caught:
        train("3-4-1", X, Y, **GIVEN, schedule=strike(step, number), capture=False)
    assert type(caught.value) is raised
    rows = (step + 1) * 8
    if rows <= 64:  # the same steps as of an epoch of so many rows
        alone = train("3-4-1", X, Y, **GIVEN | {"epochs": 1}, capture=False, schedule=calm)
        assert (caught.value.model.flat == alone.flat).all() == (rows == 64)
    assert np.isfinite(caught.value.model.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is raise_terminated


def test_a_callback_may_strike_too():
    seen = []

    def callback(report):
        seen.append(report.epoch)
        if report.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 3") as caught:
        train("3-4-1", X, Y, **GIVEN, callbacks=[callback])
    assert seen == [1, 2]
    alone = train("3-4-1", X, Y, **GIVEN | {"epochs": 2})
    assert (caught.value.model.flat == alone.flat).all()


def test_a_second_one_raises_at_once():
    with pytest.raises(KeyboardInterrupt) as caught:
        train("3-4-1", X, Y, **GIVEN, schedule=strike(3, times=2), capture=False)
    assert not hasattr(caught.value, "model")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_stays():
    struck = []
    signal.signal(signal.SIGINT, lambda number, frame: struck.append(number))
    try:
        train("3-4-1", X, Y, **GIVEN, schedule=strike(3), capture=False)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert struck == [signal.SIGINT]


def test_another_thread_trains_without_handlers():
    found = []
    thread = threading.Thread(target=lambda: found.append(train("3-4-1", X, Y, **GIVEN)))
    thread.start()
    thread.join()
    assert (found[0].flat == train("3-4-1", X, Y, **GIVEN).flat).all()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", -2), ("SIGTERM", -15)])
@pytest.mark.parametrize("capture", [True, False])
def test_a_stopped_process_resumes_to_the_same_bits(name, code, capture, tmp_path):
    """At a moment that nobody chose; SIGTERM, which Python leaves alone, as a kill does."""
    program = f"""
        import sys
        import numpy as np
        import xpmlp
        X = np.random.default_rng(3).normal(size=(64, 3))
        def told(report):
            print(report.epoch, flush=True)
        model = xpmlp.train("3-4-1", X, X.sum(axis=1), epochs=300, batch_size=8, capture={capture},
            checkpoint=sys.argv[1], resume=True, callbacks=[told])
        print(model.flat.tobytes().hex())
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "run.ckpt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        for _ in range(5):
            first.stdout.readline()
        first.send_signal(getattr(signal, name))
        first.stdout.read()
        said = first.stderr.read().decode()
    assert first.returncode == code
    assert ("KeyboardInterrupt: stopped in epoch" in said) == (name == "SIGINT")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    epoch, *_, bits = done.stdout.split()
    assert int(epoch) > 1
    through = train("3-4-1", X, Y, epochs=300, batch_size=8, capture=capture)
    assert bits == through.flat.tobytes().hex()


def test_an_estimator_warns_and_keeps_its_weights(optional):
    optional("sklearn")
    from xpmlp import MLPRegressor

    given = {"hidden_layer_sizes": (4,), "max_iter": 6, "batch_size": 8, "random_state": 0}
    est = MLPRegressor(**given, schedule=strike(13))
    with pytest.warns(UserWarning, match=r"^Training interrupted by user\.$"):
        est.fit(X, Y)
    assert (est.n_iter_, est._optimizer.step) == (1, 14)  # the step in the second epoch is done
    assert np.isfinite(est.predict(X)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
