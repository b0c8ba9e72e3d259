"""Ctrl-C and SIGTERM during training: the current step is finished, then training stops.

Nothing slow is imported here: every command of the command line imports this module.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpmlp.training.trainer import Trainer


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM where `raise_terminated` is its handler."""


def raise_terminated(number: int, frame: Any) -> None:
    """Stop the program as Ctrl-C does: a handler of SIGTERM."""
    raise Terminated


# handlers that raise immediately, between any two lines, even within a step
RAISING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: raise_terminated}


@contextmanager
def finish_step_on_signal(trainer: "Trainer") -> Iterator[None]:
    """A context in which a signal that would raise stops training after the current step.

    A second signal raises immediately. A user's own handlers are left in place, as are all
    handlers outside of the main thread, where Python delivers no signals.
    """

    def request_stop(number: int, frame: Any) -> None:
        if trainer.counter.stop_signal:
            RAISING[signal.Signals(number)](number, frame)
        trainer.counter.stop_signal = number

    in_main_thread = threading.current_thread() is threading.main_thread()
    handled = [
        n for n, handler in RAISING.items() if in_main_thread and signal.getsignal(n) is handler
    ]
    try:
        for number in handled:
            signal.signal(number, request_stop)
        yield
    finally:
        for number in handled:
            signal.signal(number, RAISING[number])


def interruption_error(trainer: "Trainer") -> KeyboardInterrupt:
    """The error that names the epoch and step of a stopped training; its `model` has the weights.

    Ctrl-C raises KeyboardInterrupt itself: Python exits by the signal for that class alone.
    """
    from xpmlp.devices.namespace import running
    from xpmlp.training.checks import all_finite
    from xpmlp.training.model import snapshot

    params = trainer.state.params
    with running(trainer.place):
        finite = all_finite(trainer.place.xp, params)
    flat = trainer.best_params if trainer.keeps_best or not finite else params
    model = snapshot(trainer.spec, trainer.place, flat, trainer.labels, trainer.history)
    error_type = Terminated if trainer.counter.stop_signal == signal.SIGTERM else KeyboardInterrupt
    error = error_type(f"stopped in epoch {trainer.epoch + 1}, at step {int(trainer.state.step)}")
    error.model = model  # type: ignore[attr-defined]
    return error
