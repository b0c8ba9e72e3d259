"""Ctrl-C and SIGTERM while a training runs: the present step is finished, then it stops.

Nothing slow is imported here: every command of the command line asks for this module.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpmlp.training.steps import Run


class Terminated(KeyboardInterrupt):
    """SIGTERM stopped what was running, where `terminated` is its handler."""


def terminated(number: int, frame: Any) -> None:
    """A handler of SIGTERM that stops a program as Ctrl-C does."""
    raise Terminated


# handlers that raise at once, between any two lines: a step under way must be finished first
RAISING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminated}


@contextmanager
def patient(run: "Run") -> Iterator[None]:
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


def interruption(run: "Run") -> KeyboardInterrupt:
    """The error that says where a halted run stands; its `model` has the weights it had come to.

    Ctrl-C's is of no class of ours: Python ends by the signal for KeyboardInterrupt itself alone.
    """
    from xpmlp.devices.namespace import running
    from xpmlp.training.checks import all_finite
    from xpmlp.training.model import snapshot

    with running(run.place):
        finite = all_finite(run.place.xp, run.state.params)
    flat = run.kept if run.keeps_best or not finite else run.state.params
    model = snapshot(run.spec, run.place, flat, run.labels, run.history)
    raised = Terminated if run.halted == signal.SIGTERM else KeyboardInterrupt
    error = raised(f"stopped in epoch {run.epoch + 1}, at step {int(run.state.step)}")
    error.model = model  # type: ignore[attr-defined]
    return error
