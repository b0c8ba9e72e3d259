"""Hostile files, and what a loader must make of them: a correct load or a ValueError with the path.

A file is hostile by damage (see `mutate_bytes`) or by forgery (see `mutate_header`), with its
digest broken or made to hold again. A correct load is one that warns of nothing, answers what is
asked of it, and whose arrays are those of the file, bit for bit; saved again it loads as the same.
Where the digest was not made to hold, it is moreover, byte for byte, the file that was changed or
the one it was spliced with. Loaded or refused, the file stays as it is, and nothing is left beside
it.
"""

import json
import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fuzz.mutate_bytes import DAMAGES, Damage, halves, joined, sealed
from fuzz.mutate_header import FORGERIES, names_of, put_together, taken_apart
from xpmlp.training.inference import PredictionError

LOADED, REFUSED = "loaded", "refused"
SECONDS, SECONDS_PER_BYTE = 0.5, 10e-6  # of the processor, that a load may take
MEMORY, MEMORY_PER_BYTE = 20 * 2**20, 64  # bytes that a load may hold at once
MESSAGE = 2000  # characters of an error that a person can read


class Fault(Exception):
    """What a loader did that it must not."""


class Kind(NamedTuple):
    """A kind of file."""

    load: Callable[[Path], Any]
    pack: Callable[[Any], bytes]  # what was loaded as the bytes of a file
    use: Callable[[Any], object]  # ask of it all that a user may; it is packed before
    warns: str = r"(?!)"  # a warning that a correct load may give, as a regular expression


class Source(NamedTuple):
    """A good file, and what it holds."""

    name: str
    kind: Kind
    data: bytes
    holds: Any


class Case(NamedTuple):
    """A hostile file."""

    data: bytes
    changes: tuple[str, ...]  # names of forgeries and damages, in order
    sealed: bool  # whether its digest holds again


def hostile(data: bytes, rng: Random, other: bytes) -> Case:
    """A file made of the good file `data`: up to two forgeries, then up to two damages."""
    forged = rng.choice((0, 1, 1, 2))
    damaged = rng.choice((0, 0, 1)) if forged else rng.choice((1, 2))
    changes = []
    if forged:
        parts, others = taken_apart(data), taken_apart(other)
        for name in rng.choices(list(FORGERIES), k=forged):
            if names_of(parts):
                FORGERIES[name](parts, rng, others)
                changes.append(name)
        data = put_together(parts)
    for name in rng.choices(list(DAMAGES), k=damaged):
        data = somewhere(DAMAGES[name], data, rng, other)
        changes.append(name)
    seal = rng.random() < 0.6
    return Case(sealed(data) if seal else data, tuple(changes), seal)


def somewhere(damage: Damage, data: bytes, rng: Random, other: bytes) -> bytes:
    """`data` damaged in its header, in what stands behind it, or anywhere."""
    where = rng.choice(("header", "body", "file"))
    if where == "file":
        return damage(data, rng, other)
    (header, body), (other_header, other_body) = halves(data), halves(other)
    if where == "header":
        return joined(damage(header, rng, other_header), body)
    return joined(header, damage(body, rng, other_body))


def source(name: str, kind: Kind, path: Path) -> Source:
    """The good file at `path`; ValueError where it does not load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", kind.warns)
        found = kind.load(path)
        holds = content(kind.pack(found))
        kind.use(found)
    return Source(name, kind, path.read_bytes(), holds)


def content(data: bytes) -> tuple[Any, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """A whole file's configuration, but what training came to, and its arrays by name."""
    parts = taken_apart(data)
    config = {name: value for name, value in parts.config.items() if name != "trained"}
    arrays = {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(parts.body[slice(*offsets)]))
        for name, entry in parts.header.items()
        if (offsets := entry.get("data_offsets"))
    }
    return json.dumps(config, sort_keys=True), arrays


def trial(victim: Source, other: Source, rng: Random, path: Path) -> tuple[Case, str]:
    """A hostile file, written to `path` and loaded: (the case, LOADED or REFUSED).

    Raises Fault for anything else. A load's memory is measured where tracemalloc runs.
    """
    case = hostile(victim.data, rng, other.data)
    path.write_bytes(case.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", victim.kind.warns)
        try:
            return case, judged(case, victim, other, path)
        except Fault as fault:
            kept = f"{victim.name}, {' + '.join(case.changes)}{', sealed' * case.sealed}"
            raise Fault(f"{kept}: {fault}") from fault.__cause__


def judged(case: Case, victim: Source, other: Source, path: Path) -> str:
    kind, beside = victim.kind, sorted(os.listdir(path.parent))
    found = measured(kind, path, len(case.data))
    if path.read_bytes() != case.data or sorted(os.listdir(path.parent)) != beside:
        raise Fault("its folder is another after the load")
    if found is None:
        return REFUSED
    try:
        saved = kind.pack(found)
        used(kind, found)
        path.write_bytes(saved)
        again = content(kind.pack(kind.load(path)))
    except Exception as error:
        raise Fault(f"it loads, but then: {type(error).__name__}: {error}") from error
    finally:
        path.write_bytes(case.data)
    held = content(saved)
    if again != held:
        raise Fault("it loads, but saved again it is another")
    if not case.sealed and case.data not in (victim.data, other.data):
        raise Fault("a changed file loads")
    if case.data == victim.data and held != victim.holds:
        raise Fault("the good file loads as another")
    said = content(case.data)[1]
    wrong = [name for name, array in held[1].items() if said.get(name) != array]
    if wrong:
        raise Fault(f"it loads with another {wrong[0]} than it says")
    return LOADED


def used(kind: Kind, found: Any) -> None:
    """Ask it all; weights that a file may well hold can be too large to predict with."""
    with suppress(PredictionError):
        kind.use(found)


def measured(kind: Kind, path: Path, size: int) -> Any:
    """What `path` holds, None where it is refused; Fault for another answer, or a costly one."""
    tracing = tracemalloc.is_tracing()
    if tracing:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    start, found = time.process_time(), None
    try:
        found = kind.load(path)
    except ValueError as error:
        said = str(error)
        if str(path) not in said:
            raise Fault(f"{type(error).__name__} without the path: {said[:MESSAGE]}") from error
        if len(said) > MESSAGE:
            raise Fault(f"an error of {len(said):,} characters: {said[:200]}") from error
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {str(error)[:MESSAGE]}") from error
    seconds = time.process_time() - start
    if tracing:
        held = tracemalloc.get_traced_memory()[1] - before
        if held > MEMORY + MEMORY_PER_BYTE * size:
            raise Fault(f"{held:,} bytes of memory for a file of {size:,}")
    elif seconds > SECONDS + SECONDS_PER_BYTE * size:
        raise Fault(f"{seconds:.1f} seconds for a file of {size:,} bytes")
    return found
