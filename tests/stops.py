"""Ways to stop a training and to damage its checkpoint, for tests of what is resumed."""

import signal
import warnings
from random import Random

from fuzz.mutate_bytes import DAMAGES, sealed

from xpmlp.recording.executors import StepCounter


class Killed(Exception):
    """Ends a training between two epochs, as a kill does."""


def kill_at(epoch):
    """The report of that epoch comes, but is not written any more."""

    def kill(report):
        if report.epoch == epoch:
            raise Killed

    return kill


def halt_at(monkeypatch, step):
    """Ctrl-C during update `step` of a process."""
    turns, made = StepCounter.steps, []

    def counted(counter, steps, first=0):
        for t in turns(counter, steps, first):
            made.append(t)
            if len(made) == step:
                counter.stop_signal = signal.SIGINT
            yield t

    monkeypatch.setattr(StepCounter, "steps", counted)


def damaged(path, name, *, seal):
    """Thirty times the file at `path` is the good one damaged in that way; a load may warn."""
    good, rng = path.read_bytes(), Random(name)
    for _ in range(30):
        data = DAMAGES[name](good, rng, good)
        path.write_bytes(sealed(data) if seal else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another numpy and the like
            yield
