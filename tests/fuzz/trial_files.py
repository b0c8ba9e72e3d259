"""Hostile files, and how a loader must handle them: a correct load or a ValueError with the path.

A file is hostile by damage (see `mutate_bytes`) or by forgery (see `mutate_header`), with its
digest invalid or made valid again. A correct load gives no warning, can be used, and has the
arrays of the file, bit for bit; saved and loaded again it is the same. Where the digest was not
made valid, the file is moreover, byte for byte, the one that was changed or the one it was spliced
with. Loaded or refused, the file does not change, and no other file is left in its folder.
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

from fuzz.mutate_bytes import DAMAGES, Damage, halves, joined, with_digest
from fuzz.mutate_header import FORGERIES, join_file, names_of, split_file
from xpmlp.training.inference import PredictionError

LOADED, REFUSED = "loaded", "refused"
SECONDS, SECONDS_PER_BYTE = 0.5, 10e-6  # CPU time that a load may take
MEMORY, MEMORY_PER_BYTE = 20 * 2**20, 64  # peak bytes that a load may allocate
MESSAGE = 2000  # characters of a readable error


class Fault(Exception):
    """An error of a loader."""


class Kind(NamedTuple):
    """A kind of file."""

    load: Callable[[Path], Any]
    pack: Callable[[Any], bytes]  # the loaded object as the bytes of a file
    use: Callable[[Any], object]  # use it in every way; it is packed before
    warns: str = r"(?!)"  # a warning that a correct load may give, as a regular expression


class Source(NamedTuple):
    """A good file and its content."""

    name: str
    kind: Kind
    data: bytes
    content: Any


class Case(NamedTuple):
    """A hostile file."""

    data: bytes
    changes: tuple[str, ...]  # names of forgeries and damages, in order
    sealed: bool  # whether its digest was made valid


def make_case(data: bytes, rng: Random, other: bytes) -> Case:
    """A case made from the good file `data`: up to two forgeries, then up to two damages."""
    forgeries = rng.choice((0, 1, 1, 2))
    damages = rng.choice((0, 0, 1)) if forgeries else rng.choice((1, 2))
    changes = []
    if forgeries:
        parts, other_parts = split_file(data), split_file(other)
        for name in rng.choices(list(FORGERIES), k=forgeries):
            if names_of(parts):
                FORGERIES[name](parts, rng, other_parts)
                changes.append(name)
        data = join_file(parts)
    for name in rng.choices(list(DAMAGES), k=damages):
        data = damage_part(DAMAGES[name], data, rng, other)
        changes.append(name)
    seal = rng.random() < 0.6
    return Case(with_digest(data) if seal else data, tuple(changes), seal)


def damage_part(damage: Damage, data: bytes, rng: Random, other: bytes) -> bytes:
    """`data` damaged in its header, in its body, or anywhere."""
    part = rng.choice(("header", "body", "file"))
    if part == "file":
        return damage(data, rng, other)
    (header, body), (other_header, other_body) = halves(data), halves(other)
    if part == "header":
        return joined(damage(header, rng, other_header), body)
    return joined(header, damage(body, rng, other_body))


def source(name: str, kind: Kind, path: Path) -> Source:
    """The good file at `path`; ValueError if it does not load."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", kind.warns)
        loaded = kind.load(path)
        held = content(kind.pack(loaded))
        kind.use(loaded)
    return Source(name, kind, path.read_bytes(), held)


def content(data: bytes) -> tuple[Any, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """The configuration of a complete file, without results of training, and its arrays by name."""
    parts = split_file(data)
    config = {name: value for name, value in parts.config.items() if name != "trained"}
    arrays = {
        name: (entry["dtype"], tuple(entry["shape"]), bytes(parts.body[slice(*offsets)]))
        for name, entry in parts.header.items()
        if (offsets := entry.get("data_offsets"))
    }
    return json.dumps(config, sort_keys=True), arrays


def trial(victim: Source, other: Source, rng: Random, path: Path) -> tuple[Case, str]:
    """A hostile file, written to `path` and loaded: (the case, LOADED or REFUSED).

    Raises Fault for anything else. Measures the memory of the load if tracemalloc is running.
    """
    case = make_case(victim.data, rng, other.data)
    path.write_bytes(case.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", victim.kind.warns)
        try:
            return case, judge(case, victim, other, path)
        except Fault as fault:
            label = f"{victim.name}, {' + '.join(case.changes)}{', sealed' * case.sealed}"
            raise Fault(f"{label}: {fault}") from fault.__cause__


def judge(case: Case, victim: Source, other: Source, path: Path) -> str:
    kind, listing = victim.kind, sorted(os.listdir(path.parent))
    loaded = load_measured(kind, path, len(case.data))
    if path.read_bytes() != case.data or sorted(os.listdir(path.parent)) != listing:
        raise Fault("its folder is another after the load")
    if loaded is None:
        return REFUSED
    try:
        saved = kind.pack(loaded)
        use(kind, loaded)
        path.write_bytes(saved)
        reloaded = content(kind.pack(kind.load(path)))
    except Exception as error:
        raise Fault(f"it loads, but then: {type(error).__name__}: {error}") from error
    finally:
        path.write_bytes(case.data)
    actual = content(saved)
    if reloaded != actual:
        raise Fault("it loads, but saved again it is another")
    if not case.sealed and case.data not in (victim.data, other.data):
        raise Fault("a changed file loads")
    if case.data == victim.data and actual != victim.content:
        raise Fault("the good file loads as another")
    expected = content(case.data)[1]
    wrong = [name for name, array in actual[1].items() if expected.get(name) != array]
    if wrong:
        raise Fault(f"it loads with another {wrong[0]} than it says")
    return LOADED


def use(kind: Kind, loaded: Any) -> None:
    """Use it in every way; valid weights of a file can be too large to predict with."""
    with suppress(PredictionError):
        kind.use(loaded)


def load_measured(kind: Kind, path: Path, size: int) -> Any:
    """The loaded file, or None if it is refused; Fault for other errors and excessive costs."""
    tracing = tracemalloc.is_tracing()
    if tracing:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    start, loaded = time.process_time(), None
    try:
        loaded = kind.load(path)
    except ValueError as error:
        message = str(error)
        if str(path) not in message:
            raise Fault(f"{type(error).__name__} without the path: {message[:MESSAGE]}") from error
        if len(message) > MESSAGE:
            raise Fault(f"an error of {len(message):,} characters: {message[:200]}") from error
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {str(error)[:MESSAGE]}") from error
    seconds = time.process_time() - start
    if tracing:
        memory = tracemalloc.get_traced_memory()[1] - before
        if memory > MEMORY + MEMORY_PER_BYTE * size:
            raise Fault(f"{memory:,} bytes of memory for a file of {size:,}")
    elif seconds > SECONDS + SECONDS_PER_BYTE * size:
        raise Fault(f"{seconds:.1f} seconds for a file of {size:,} bytes")
    return loaded
