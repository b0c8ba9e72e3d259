"""The bytes of our files: the safetensors layout, JSON in the metadata, a SHA-256 of it all.

Model files and checkpoints are made of these; what they hold, they say themselves.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from xpmlp import __version__

BLANK = "0" * 64
HEADER_LIMIT = 16 * 2**20  # bytes; a header is a few kilobytes
# of arrays; safetensors imports other packages for others
ARRAYS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}
SAID = 1000  # characters of what a file says that an error repeats
# what a check of unknown values may run into
UNFIT = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


def refusal(path: str | os.PathLike[str], error: Exception, what: str = "model file") -> ValueError:
    """The error that refuses a file, of bounded length whatever the file says."""
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    short = said if len(said) <= SAID else f"{said[:SAID]}..."
    return ValueError(f"{os.fspath(path)} is not a whole {what}: {short}")


def checksummed(kind: str, version: int, tensors: Mapping[str, np.ndarray], config: str) -> bytes:
    """The bytes of a file of that format and version; `config` is JSON.

    ValueError where it holds what `read_object` refuses.
    """
    from safetensors.numpy import save as pack

    read_object(config)
    # safetensors writes a strided array wrongly (its issue 825): only C-contiguous ones
    contiguous = {n: np.asarray(tensor, order="C") for n, tensor in tensors.items()}
    data: bytes = pack(
        contiguous,
        metadata={
            "format": kind,
            "format_version": str(version),
            "library_version": __version__,
            "config": config,
            "sha256": BLANK,
        },
    )
    return data.replace(stamp(BLANK), stamp(hashlib.sha256(data).hexdigest()), 1)


def stamp(digest: str) -> bytes:
    """How the header writes a digest. Inside a string its quotes would be escaped."""
    return f'"sha256":"{digest}"'.encode()


def parsed(text: str | bytes) -> Any:
    """The value of JSON in the strict sense: no key twice, no NaN, and nothing that JSON can write
    but no float (1e999) or no UTF-8 (half of a surrogate pair) can hold.
    """
    found = json.loads(
        text,
        object_pairs_hook=unique,
        parse_constant=refused,
        parse_float=partial(number, float),
        parse_int=partial(number, int),
    )
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"its text has {half!r}, half of a character") from None
    return found


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in its header")
    return found


def number(kind: Callable[[str], float], text: str) -> float:
    """The number that is written; ValueError where no float can hold it."""
    if math.isinf(float(text)):
        raise ValueError(f"it has a number that no float can hold, {text[:8]}...")
    return kind(text)


def refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def read_metadata(data: bytes, kind: str, version: int) -> dict[str, str]:
    """The checked metadata: format, version and digest hold for exactly these bytes.

    kind, version: the format that is read.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(HEADER_LIMIT, len(data) - 8):
        raise ValueError("it is cut off, or no safetensors file")
    try:
        header = parsed(data[8 : 8 + size])
    except (RecursionError, ValueError) as error:
        raise ValueError(f"its header is no JSON ({error})") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != kind:
        raise ValueError(f"its metadata does not say format {kind!r}")
    if metadata.get("format_version") != str(version):
        raise ValueError(
            f"it has format version {metadata.get('format_version')!r}; this library "
            f"({__version__}) reads {version}"
        )
    for name, tensor in header.items():
        if name != "__metadata__" and (type(tensor) is not dict or tensor["dtype"] not in ARRAYS):
            raise ValueError(f"its tensor {name!r} is {tensor}")
    digest = metadata.get("sha256")
    if not isinstance(digest, str) or len(digest) != len(BLANK):
        raise ValueError("it has no SHA-256")
    computed = hashlib.sha256(data[: 8 + size].replace(stamp(digest), stamp(BLANK), 1))
    computed.update(memoryview(data)[8 + size :])
    if computed.hexdigest() != digest:
        raise ValueError("its SHA-256 does not match: the file was changed or damaged")
    return metadata


def read_object(text: Any) -> dict[str, Any]:
    """The object that is written as JSON in the metadata; ValueError where none is."""
    found = parsed(text) if isinstance(text, str) else None
    if not isinstance(found, dict):
        raise ValueError("it has no configuration")
    return found


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The arrays by name; ValueError where they do not fill the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    try:
        tensors: dict[str, np.ndarray] = unpack(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return tensors
