"""Ctrl-C, as a user presses it."""

import signal


def interrupt() -> None:
    """Raise SIGINT, also in a background process, which ignores it by default."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
