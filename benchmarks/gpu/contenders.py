"""Who is measured on which work, and in which order where time is short."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from benchmarks.gpu.works import WORKS, Work
from xpmlp.names import nearest

OWN = "ours"
LIBRARIES = {OWN: "xpmlp", "with_torch": "PyTorch", "with_jax": "JAX"}
ABSENT = "-"  # the one variant of a library that is not installed
PACKAGES = {"with_torch": "torch", "with_jax": "jax"}


class Contender(NamedTuple):
    """A library's way to train."""

    library: str  # one of LIBRARIES
    variant: str
    seconds: float  # on the small work, estimated: its process from beginning to end
    populations: bool = True  # False: each network of a population would be compiled anew

    @property
    def name(self) -> str:
        return f"{LIBRARIES[self.library]} {self.variant}"

    @property
    def word(self) -> str:
        """The name as an argument: pytorch-cuda-graph-fused-adam."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower())

    @property
    def installed(self) -> bool:
        package = PACKAGES.get(self.library)
        return package is None or find_spec(package) is not None


CONTENDERS = (
    Contender(OWN, "captured", 15),
    Contender(OWN, "eager", 15),
    Contender(OWN, "eager, unfused", 15),
    Contender("with_torch", "eager", 20),
    Contender("with_torch", "eager, fused Adam", 20),
    Contender("with_torch", "compiled, fused Adam", 60, populations=False),
    Contender("with_torch", "CUDA graph, fused Adam", 20),
    Contender("with_torch", "CUDA graph, compiled, fused Adam", 60, populations=False),
    Contender("with_jax", "jit", 30),
    Contender("with_jax", "scan", 30),
)
LONGER = {"large": 1.5, "population": 1.5}  # than on the small work, estimated
# what the goals and the README need, first
FIRST = (
    ("small", "xpmlp-captured"),
    ("small", "pytorch-cuda-graph-fused-adam"),
    ("small", "pytorch-eager"),
    ("large", "xpmlp-captured"),
    ("population", "xpmlp-captured"),
    ("large", "pytorch-cuda-graph-fused-adam"),
    ("small", "jax-scan"),
    ("large", "pytorch-compiled-fused-adam"),
    ("population", "pytorch-eager"),
    ("small", "pytorch-compiled-fused-adam"),
    ("small", "pytorch-cuda-graph-compiled-fused-adam"),
    ("small", "jax-jit"),
    ("population", "jax-scan"),
    ("large", "jax-scan"),
)

Pair = tuple[Work, Contender]


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def select_works(text: str | None) -> list[Work]:
    """The works of these names; ValueError naming an unknown one and the nearest."""
    names = [work.name for work in WORKS]
    wanted = names if text is None else words(text)
    for word in wanted:
        if word not in names:
            hint = nearest(word, names)
            raise ValueError(f"work {word!r} is unknown{hint} Known: {', '.join(names)}")
    if not wanted:
        raise ValueError(f"--only names no work. Known: {', '.join(names)}")
    return [work for work in WORKS if work.name in wanted]


def select_contenders(text: str | None) -> list[Contender]:
    """The contenders of these words, or of these libraries; ValueError for an unknown one."""
    if text is None:
        return list(CONTENDERS)
    libraries = {name.lower(): library for library, name in LIBRARIES.items()}
    known = [*libraries, *(contender.word for contender in CONTENDERS)]
    wanted = words(text)
    for word in wanted:
        if word not in known:
            hint = nearest(word, known)
            raise ValueError(f"contender {word!r} is unknown{hint} Known: {', '.join(known)}")
    if not wanted:
        raise ValueError(f"--contenders names none. Known: {', '.join(known)}")
    chosen = {libraries[word] for word in wanted if word in libraries}
    return [one for one in CONTENDERS if one.word in wanted or one.library in chosen]


def pairs(works: Sequence[Work], contenders: Sequence[Contender]) -> list[Pair]:
    """Every contender on every work that it takes part in, work by work."""
    return [
        (work, contender)
        for work in works
        for contender in contenders
        if contender.populations or work.members is None
    ]


def by_worth(given: Sequence[Pair]) -> list[Pair]:
    """What is measured first where time is short; the order of FIRST, then as given."""
    rank = {key: index for index, key in enumerate(FIRST)}
    return sorted(given, key=lambda pair: rank.get((pair[0].name, pair[1].word), len(rank)))


def estimate(work: Work, contender: Contender) -> float:
    """Seconds that a contender may take on a work."""
    return contender.seconds * LONGER.get(work.name, 1.0) if contender.installed else 0.0
