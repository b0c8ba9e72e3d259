"""Ctrl-C, as a person presses it."""

import signal


def interrupt() -> None:
    """Ctrl-C, which a process that a shell has put in the background ignores until told not to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
