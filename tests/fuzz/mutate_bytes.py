"""Damage to a file: changed bytes, anywhere. For tests of readers of files.

Each entry of DAMAGES is (bytes, rng, other) -> bytes; `other` is a good file to take bytes from.
`with_digest` gives a changed file a valid digest.
"""

import hashlib
import re
import struct
from collections.abc import Callable
from random import Random

from xpmlp.storage.checksummed import BLANK, digest_entry

STAMP = re.compile(rb'"sha256":"[^"]{64}"')
HUGE = (2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, 10**30, 10**400)
NUMBERS = (0, -1, 1, 2, 3, 7, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"), *HUGE)


def halves(data: bytes) -> tuple[bytes, bytes]:
    """The text of the header, as far as it is there, and the bytes after it."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size], data[8 + size :]


def joined(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def with_digest(data: bytes) -> bytes:
    """`data` with a valid digest, if its header has one at all."""
    header, body = halves(data)
    blank = data[:8] + STAMP.sub(digest_entry(BLANK), header, count=1) + body
    return blank.replace(digest_entry(BLANK), digest_entry(hashlib.sha256(blank).hexdigest()), 1)


def span(data: bytes, rng: Random) -> tuple[int, int]:
    """A range of `data`, short as often as not."""
    at = rng.randrange(len(data) + 1)
    width = rng.choice((1, 8, len(data)))
    return at, rng.randint(at, min(at + width, len(data)))


def flip(data: bytes, rng: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def cut(data: bytes, rng: Random, other: bytes) -> bytes:
    start, stop = span(data, rng)
    return data[:start] + data[stop:]


def repeat(data: bytes, rng: Random, other: bytes) -> bytes:
    start, stop = span(data, rng)
    return data[:stop] + data[start:]


def splice(data: bytes, rng: Random, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + other[rng.choice((at, rng.randrange(len(other)))) :]


def noise(data: bytes, rng: Random, other: bytes) -> bytes:
    start, stop = span(data, rng)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


def fill(data: bytes, rng: Random, other: bytes) -> bytes:
    start, stop = span(data, rng)
    byte = rng.choice((b"\x00", b"\xff", b" ", b"[", b'"'))
    return data[:start] + byte * (stop - start) + data[stop:]


def append(data: bytes, rng: Random, other: bytes) -> bytes:
    return data + rng.choice((rng.randbytes(rng.randint(1, 64)), bytes(8), data))


def digits(data: bytes, rng: Random, other: bytes) -> bytes:
    """Another number in place of one."""
    matches = list(re.finditer(rb"\d+", data))
    if not matches:
        return data
    match = rng.choice(matches)
    number = rng.choice((*map(str, NUMBERS), "NaN", "Infinity", "1e999", "-1", "007", "9" * 5000))
    return data[: match.start()] + number.encode() + data[match.end() :]


def header_size(data: bytes, rng: Random, other: bytes) -> bytes:
    size = rng.choice((0, 1, len(data), 2**24, 2**24 + 1, 2**40, 2**63, rng.randrange(2**64)))
    return struct.pack("<Q", size % 2**64) + data[8:]


def twice(data: bytes, rng: Random, other: bytes) -> bytes:
    """A duplicate key: a copy of some `"key":value,` after some `{`."""
    entries: list[bytes] = re.findall(rb'\\?"[^"\\{}]*\\?": ?[^,{}\[\]]*', data)
    opened = [m.end() for m in re.finditer(rb"{", data)]
    if not entries or not opened:
        return data
    at = rng.choice(opened)
    return data[:at] + rng.choice(entries) + b"," + data[at:]


Damage = Callable[[bytes, Random, bytes], bytes]
DAMAGES: dict[str, Damage] = {
    function.__name__: function
    for function in (
        flip, truncate, cut, repeat, splice, noise, fill, append, digits, header_size, twice
    )
}  # fmt: skip
