"""Forgeries of a file: changes of its JSON and arrays. For tests of readers of files.

Each entry of FORGERIES is (parts, rng, other's parts) -> None and changes `parts` in place. It
takes any safetensors file whose metadata has a `config` of JSON, and at least one tensor.
"""

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

from fuzz.mutate_bytes import HUGE, NUMBERS, halves, joined

WORDS = (
    "", "x", "float32", "relu", "tanh:1", "leaky_relu:0.5", "quantile:0.1,0.9", "huber:1e999",
    "elu:" + "9" * 400, "<U1", "<U1000000000", "|S2", "|O", "M8[D]", "(1", "i4,i4", "a5",
    "\ud800", "é\x00",
    "table.center", "layers.0.weights", "estimator.slots.0", "__metadata__", "gpu", "no/such/file",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [1, "a"], {"float": "nan"}, {"tuple": [1]}, {"dict": [[1, 2]]},
    {"dict": [[[], 2]]}, [[3, 3, "relu", 0.0]], *NUMBERS, *WORDS,
)  # fmt: skip
DTYPES = ("BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64",
          "U64", "F8_E4M3", "F4", "C64", "X", "")  # fmt: skip


class Parts(NamedTuple):
    """The parts of a file."""

    header: dict[str, Any]
    config: Any
    body: bytearray


def split_file(data: bytes) -> Parts:
    """Split a good file into its parts."""
    header, body = halves(data)
    described = json.loads(header)
    return Parts(described, json.loads(described["__metadata__"]["config"]), bytearray(body))


def join_file(parts: Parts) -> bytes:
    """Join `parts` to a file; its digest is the old one."""
    metadata = parts.header.get("__metadata__")
    if isinstance(metadata, dict) and "config" in metadata:
        metadata["config"] = json.dumps(parts.config)
    text = json.dumps(parts.header, separators=(",", ":")).encode()
    return joined(text + b" " * (-len(text) % 8), bytes(parts.body))


def is_integer_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def names_of(parts: Parts) -> list[str]:
    """The tensors whose entries no forgery has made unreadable yet."""
    return [
        name
        for name, entry in parts.header.items()
        if isinstance(entry, dict)
        and is_integer_list(entry.get("shape"))
        and is_integer_list(entry.get("data_offsets"))
        and len(entry["data_offsets"]) == 2
        and 0 <= entry["data_offsets"][0] <= len(parts.body)
    ]


def untouched(parts: Parts, rng: Random, other: Parts) -> None:
    """Nothing, so that every run has files that must load."""


def rename(parts: Parts, rng: Random, other: Parts) -> None:
    old = rng.choice(names_of(parts))
    new = rng.choice((*WORDS, *other.header, old + ".0", "layers.1.weights", "estimator.last"))
    parts.header[new] = parts.header.pop(old)


def swap(parts: Parts, rng: Random, other: Parts) -> None:
    names = names_of(parts)
    first, second = rng.choice(names), rng.choice(names)
    header = parts.header
    header[first], header[second] = header[second], header[first]


def drop(parts: Parts, rng: Random, other: Parts) -> None:
    del parts.header[rng.choice(list(parts.header))]


def add(parts: Parts, rng: Random, other: Parts) -> None:
    """One more tensor, at the end of the file or over another's bytes."""
    name = rng.choice((*WORDS, "layers.7.bias", "table.more", "estimator.more"))
    entry = dict(parts.header[rng.choice(names_of(parts))])
    if rng.random() < 0.7:
        end = len(parts.body)
        entry |= {"shape": [2], "dtype": "F64", "data_offsets": [end, end + 16]}
        parts.body.extend(rng.randbytes(16))
    parts.header[name] = entry


def reshape(parts: Parts, rng: Random, other: Parts) -> None:
    entry = parts.header[rng.choice(names_of(parts))]
    shape = entry["shape"]
    size = rng.choice((0, 1, 2, -1, 1.0, True, None, *HUGE))
    entry["shape"] = rng.choice(
        (shape[::-1], [1, *shape], [*shape, 1], shape[1:], [], [size], [*shape[:-1], size], size,
         [2**32, 2**32], [0, 2**63])
    )  # fmt: skip


def retype(parts: Parts, rng: Random, other: Parts) -> None:
    parts.header[rng.choice(names_of(parts))]["dtype"] = rng.choice((*DTYPES, None, 32))


def move(parts: Parts, rng: Random, other: Parts) -> None:
    entry = parts.header[rng.choice(names_of(parts))]
    offset = rng.choice((0, 8, -8, len(parts.body), rng.randrange(len(parts.body) + 1), *HUGE))
    entry["data_offsets"] = rng.choice(
        ([0, offset], [offset, offset + 8], [offset], [8, 0], offset)
    )


def poke(parts: Parts, rng: Random, other: Parts) -> None:
    """Another number in some array: NaN, infinities, the largest, or any."""
    start, _ = parts.header[rng.choice(names_of(parts))]["data_offsets"]
    number = rng.choice((float("nan"), float("inf"), -1e308, 1e308, 5e-324, 0.0, rng.gauss(0, 1)))
    put = rng.choice((struct.pack("<d", number), rng.randbytes(4)))
    at = start + len(put) * rng.randrange(8)
    if at + len(put) <= len(parts.body):
        parts.body[at : at + len(put)] = put


def spot(value: Any, rng: Random) -> tuple[Any, Any] | None:
    """Some object or list in `value`, and one of its keys."""
    place = None
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        place = value, key
        value = value[key]
        if rng.random() < 0.15:
            break
    return place


def odd_value(value: Any, rng: Random) -> Any:
    """A replacement of `value`, of the same type as often as not; a copy, because later forgeries
    may change it."""
    if rng.random() < 0.5:
        return deepcopy(rng.choice(ODD_VALUES))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((*NUMBERS, value + 1, -value))
    if isinstance(value, str):
        return rng.choice((*WORDS, value * 2, value[:-1], value.upper()))
    return value * 2 if isinstance(value, list) else deepcopy(rng.choice(ODD_VALUES))


def edit(parts: Parts, rng: Random, other: Parts) -> None:
    """One value of the configuration replaced or removed."""
    place = spot(parts.config, rng)
    if place is None:
        return
    holder, key = place
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = odd_value(holder[key], rng)


def exchange(parts: Parts, rng: Random, other: Parts) -> None:
    """One value of the configuration in place of another."""
    target, source = spot(parts.config, rng), spot(parts.config, rng)
    if target and source:
        # a copy: no list in itself
        target[0][target[1]] = json.loads(json.dumps(source[0][source[1]]))


def graft(parts: Parts, rng: Random, other: Parts) -> None:
    """A field of the other file's configuration, or one of its tensors' descriptions."""
    if isinstance(parts.config, dict) and rng.random() < 0.7:
        name = rng.choice(list(other.config))
        parts.config[name] = other.config[name]
    else:
        name = rng.choice(list(other.header))
        parts.header[name] = other.header[name]


def metadata(parts: Parts, rng: Random, other: Parts) -> None:
    entries = parts.header.get("__metadata__")
    if isinstance(entries, dict) and entries:
        name = rng.choice(list(entries))
        entries[name] = rng.choice((*ODD_VALUES, "2", "[" * 2000, '{"spec":1,"spec":1}'))


def lead(parts: Parts, rng: Random, other: Parts) -> None:
    """A single network as a population of one, consistently, or the reverse."""
    if not isinstance(parts.config, dict):
        return
    is_single = parts.config.get("members") is None
    parts.config["members"] = 1 if is_single else None
    for name in names_of(parts):
        shape = parts.header[name]["shape"]
        if name.startswith("layers."):
            parts.header[name]["shape"] = [1, *shape] if is_single else shape[1:]


def nested(count: int) -> list[Any]:
    """A list in a list in a list, as deep as json can write it."""
    value: list[Any] = []
    for _ in range(min(count, 400)):
        value = [value]
    return value


def one_hash(count: int) -> dict[str, Any]:
    """Keys of a dict that all have hash 0, so that each is compared with all others."""
    return {"dict": [[i * (2**61 - 1), 0] for i in range(count)]}


HEAVY: tuple[Callable[[int], Any], ...] = (
    nested, one_hash, lambda count: [[]] * count, lambda count: [{}] * count, "x".__mul__,
    lambda count: [1.5] * count, lambda count: dict.fromkeys(map(str, range(count)), 0),
)  # fmt: skip


def bulk(parts: Parts, rng: Random, other: Parts) -> None:
    """A configuration or header that is costly to hold or to read for its size."""
    heavy = rng.choice(HEAVY)(rng.choice((10, 100, 1000, 10_000)))
    place = spot(parts.config, rng)
    if place is not None and rng.random() < 0.8:
        place[0][place[1]] = heavy
    else:
        parts.header["bulk"] = heavy


Forgery = Callable[[Parts, Random, Parts], None]
FORGERIES: dict[str, Forgery] = {
    function.__name__: function
    for function in (
        untouched, rename, swap, drop, add, reshape, retype, move, poke, edit, exchange, graft,
        metadata, lead, bulk,
    )
}  # fmt: skip
