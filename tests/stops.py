"""Ways to stop a training and to damage its checkpoint, for tests of resuming."""

import signal
import warnings
from random import Random

from fuzz.mutate_bytes import DAMAGES, with_digest

from xpmlp.recording.executors import StepCounter


class Killed(Exception):
    """Ends training between two epochs, as a kill would."""


def kill_at(epoch):
    """A callback that kills training at `epoch`, before its checkpoint is written."""

    def kill(report):
        if report.epoch == epoch:
            raise Killed

    return kill


def halt_at(monkeypatch, step):
    """Simulate Ctrl-C during update `step` of a process."""
    steps_of, updates = StepCounter.steps, []

    def counted(counter, steps, first=0):
        for t in steps_of(counter, steps, first):
            updates.append(t)
            if len(updates) == step:
                counter.stop_signal = signal.SIGINT
            yield t

    monkeypatch.setattr(StepCounter, "steps", counted)


def damaged(path, name, *, seal):
    """Thirty times, replace the file at `path` by a damaged copy; loading it may warn."""
    good, rng = path.read_bytes(), Random(name)
    for _ in range(30):
        data = DAMAGES[name](good, rng, good)
        path.write_bytes(with_digest(data) if seal else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about another NumPy version and the like
            yield
