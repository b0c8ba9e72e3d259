"""Ctrl-C and SIGTERM while a training runs: the present step is finished, then it stops.

Nothing slow is imported here: every command of the command line asks for this module.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpmlp.training.trainer import Trainer


class Terminated(KeyboardInterrupt):
    """SIGTERM stopped what was running, where `terminated` is its handler."""


def terminated(number: int, frame: Any) -> None:
    """A handler of SIGTERM that stops a program as Ctrl-C does."""
    raise Terminated


# handlers that raise at once, between any two lines: a step under way must be finished first
RAISING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminated}


@contextmanager
def finishing_the_step(trainer: "Trainer") -> Iterator[None]:
    """Inside it a signal that would raise makes training stop after the present step.

    A second one raises at once. Handlers of the user's own stay, and so do all of them outside
    the main thread, where Python delivers no signal.
    """

    def ask(number: int, frame: Any) -> None:
        if trainer.counter.stop_signal:
            RAISING[signal.Signals(number)](number, frame)
        trainer.counter.stop_signal = number

    main = threading.current_thread() is threading.main_thread()
    ours = [n for n, raising in RAISING.items() if main and signal.getsignal(n) is raising]
    try:
        for number in ours:
            signal.signal(number, ask)
        yield
    finally:
        for number in ours:
            signal.signal(number, RAISING[number])


def interruption(trainer: "Trainer") -> KeyboardInterrupt:
    """The error that says where a stopped training stands; its `model` has the weights it had
    come to.

    Ctrl-C's is of no class of ours: Python ends by the signal for KeyboardInterrupt itself alone.
    """
    from xpmlp.devices.namespace import running
    from xpmlp.training.checks import all_finite
    from xpmlp.training.model import snapshot

    params = trainer.step.weights
    with running(trainer.place):
        finite = all_finite(trainer.place.xp, params)
    flat = trainer.best_params if trainer.keeps_best or not finite else params
    model = snapshot(trainer.spec, trainer.place, flat, trainer.labels, trainer.history)
    raised = Terminated if trainer.counter.stop_signal == signal.SIGTERM else KeyboardInterrupt
    error = raised(f"stopped in epoch {trainer.epoch + 1}, at step {int(trainer.state.step)}")
    error.model = model  # type: ignore[attr-defined]
    return error
