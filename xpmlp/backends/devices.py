"""Device words: auto, cpu, gpu, gpu:N (cuda is an alias), the same everywhere."""

from xpmlp.backends.namespace import CPU, Place
from xpmlp.core.names import nearest

WORDS = ("auto", "cpu", "gpu", "gpu:N", "cuda", "cuda:N")


class GPUUnavailableError(RuntimeError):
    """A GPU was asked for and cannot be used: says at which stage it failed and what mends it."""


def place_for(word: str) -> Place:
    """The place that a device word names. `gpu` never falls back; `auto` may."""
    kind, colon, index = word.partition(":") if isinstance(word, str) else ("", "", "")
    known = kind in ("gpu", "cuda") and (index.isdecimal() or not colon)
    if word == "cpu":
        return CPU
    if word != "auto" and not known:
        hint = nearest(str(word), list(WORDS))
        raise ValueError(f"device {word!r} is unknown{hint} Known: {', '.join(WORDS)}")
    from xpmlp.backends import cuda

    if word == "auto":
        try:
            return cuda.place(0)
        except GPUUnavailableError:
            return CPU
    return cuda.place(int(index or 0))
