"""Ways to stop a training, for tests of what is resumed."""

import signal

from xpmlp.fit.steps import Run


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
    turns, made = Run.turns, []

    def counted(run, steps, first=0):
        for t in turns(run, steps, first):
            made.append(t)
            if len(made) == step:
                run.halted = signal.SIGINT
            yield t

    monkeypatch.setattr(Run, "turns", counted)
