"""Ctrl-C and SIGTERM while a training runs: the present step is finished, then it stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xpmlp.fit.loop import Run
from xpmlp.fit.model import Model, snapshot


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a training. `model` holds the weights it had come to."""

    def __init__(self, message: str = "", model: Model | None = None) -> None:
        super().__init__(message)
        self.model = model


class Terminated(Interrupted):
    """SIGTERM did, where `terminated` is its handler, as on the command line."""


def terminated(number: int, frame: Any) -> None:
    """A handler of SIGTERM that stops a program as Ctrl-C does."""
    raise Terminated


# handlers that raise at once, between any two lines: a step under way must be finished first
RAISING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminated}


@contextmanager
def patient(run: Run) -> Iterator[None]:
    """Inside it a signal that would raise makes the run stop after its present step.

    A second one raises at once. Handlers of the user's own stay, and so do all of them outside
    the main thread, where Python delivers no signal.
    """

    def ask(number: int, frame: Any) -> None:
        if run.halted:
            RAISING[signal.Signals(number)](number, frame)
        run.halted = number

    main = threading.current_thread() is threading.main_thread()
    ours = [n for n, raising in RAISING.items() if main and signal.getsignal(n) is raising]
    try:
        for number in ours:
            signal.signal(number, ask)
        yield
    finally:
        for number in ours:
            signal.signal(number, RAISING[number])


def interruption(run: Run) -> Interrupted:
    """The error that says where a halted run stands, with the weights it had come to."""
    best = (run.settings.keep or ("best" if run.held else "last")) == "best"
    finite = bool(run.place.xp.all(run.place.xp.isfinite(run.state.params)))
    flat = run.kept if best or not finite else run.state.params
    model = snapshot(run.spec, run.place, flat, run.labels, run.history)
    raised = Terminated if run.halted == signal.SIGTERM else Interrupted
    return raised(f"stopped in epoch {run.epoch + 1}, at step {int(run.state.step)}", model)
