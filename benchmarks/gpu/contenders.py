"""The contenders of each work, and their order if time is short."""

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
    """A library and how it trains."""

    library: str  # one of LIBRARIES
    variant: str
    seconds: float  # estimated, of its whole process on the small work
    populations: bool = True  # False: it would compile each network of a population

    @property
    def name(self) -> str:
        return f"{LIBRARIES[self.library]} {self.variant}"

    @property
    def slug(self) -> str:
        """The name on the command line: pytorch-cuda-graph-fused-adam."""
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
RELATIVE_TIME = {"large": 1.5, "population": 1.5}  # to that on the small work, estimated
# what the goals and the README need most
PRIORITY = (
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


def split_names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def select_works(text: str | None) -> list[Work]:
    """The works of these names; ValueError names an unknown one and the nearest."""
    known = [work.name for work in WORKS]
    names = known if text is None else split_names(text)
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise ValueError(f"work {name!r} is unknown{hint} Known: {', '.join(known)}")
    if not names:
        raise ValueError(f"--only names no work. Known: {', '.join(known)}")
    return [work for work in WORKS if work.name in names]


def select_contenders(text: str | None) -> list[Contender]:
    """The contenders of these slugs, or of these libraries; ValueError for an unknown one."""
    if text is None:
        return list(CONTENDERS)
    libraries = {name.lower(): library for library, name in LIBRARIES.items()}
    known = [*libraries, *(contender.slug for contender in CONTENDERS)]
    names = split_names(text)
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise ValueError(f"contender {name!r} is unknown{hint} Known: {', '.join(known)}")
    if not names:
        raise ValueError(f"--contenders names none. Known: {', '.join(known)}")
    selected = {libraries[name] for name in names if name in libraries}
    return [entry for entry in CONTENDERS if entry.slug in names or entry.library in selected]


def pairs(works: Sequence[Work], contenders: Sequence[Contender]) -> list[Pair]:
    """Every work with each of its contenders, work by work."""
    return [
        (work, contender)
        for work in works
        for contender in contenders
        if contender.populations or work.members is None
    ]


def by_priority(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs in the order of PRIORITY, then the others in their own order."""
    rank = {key: index for index, key in enumerate(PRIORITY)}
    return sorted(pairs, key=lambda pair: rank.get((pair[0].name, pair[1].slug), len(rank)))


def estimate(work: Work, contender: Contender) -> float:
    """Seconds that a contender may take on a work."""
    return contender.seconds * RELATIVE_TIME.get(work.name, 1.0) if contender.installed else 0.0
