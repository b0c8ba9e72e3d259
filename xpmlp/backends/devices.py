"""Device words: auto, cpu, gpu, gpu:N (cuda is an alias), the same everywhere."""

from xpmlp.backends import cuda
from xpmlp.backends.namespace import CPU, Place
from xpmlp.core.names import nearest

WORDS = ("auto", "cpu", "gpu", "gpu:N", "cuda", "cuda:N")


def place_for(word: str) -> Place:
    """The place that a device word names. `gpu` never falls back; `auto` may."""
    kind, colon, index = word.partition(":") if isinstance(word, str) else ("", "", "")
    known = kind in ("gpu", "cuda") and (index.isdecimal() or not colon)
    if word == "cpu":
        return CPU
    if word != "auto" and not known:
        hint = nearest(str(word), list(WORDS))
        raise ValueError(f"device {word!r} is unknown{hint} Known: {', '.join(WORDS)}")
    if word == "auto":
        try:
            return cuda.place(0)
        except cuda.GPUUnavailableError:
            return CPU
    return cuda.place(int(index or 0))
