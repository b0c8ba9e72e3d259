"""Files in the safetensors layout with JSON and a SHA-256 in the metadata.

Model files and checkpoints are such files, each with its own format name.
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
MAX_HEADER_BYTES = 16 * 2**20  # bytes; a header is a few kilobytes
# of NumPy; for other dtypes safetensors imports other packages
TENSOR_DTYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}
MAX_MESSAGE_LENGTH = 1000  # an error may quote a value of the file
# what parsing and checking malformed content may raise
INVALID_FILE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def invalid_file(
    path: str | os.PathLike[str], error: Exception, what: str = "model file"
) -> ValueError:
    """The error for an invalid file, of bounded length whatever the file holds."""
    reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    if len(reason) > MAX_MESSAGE_LENGTH:
        reason = f"{reason[:MAX_MESSAGE_LENGTH]}..."
    return ValueError(f"{os.fspath(path)} is not a whole {what}: {reason}")


def pack_checksummed(
    kind: str, version: int, tensors: Mapping[str, np.ndarray], config: str
) -> bytes:
    """The bytes of a file of the given format and version; `config` is JSON.

    ValueError if `read_object` would refuse `config`.
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
    return data.replace(digest_entry(BLANK), digest_entry(hashlib.sha256(data).hexdigest()), 1)


def digest_entry(digest: str) -> bytes:
    """A digest as the header holds it. Inside a string its quotes would be escaped."""
    return f'"sha256":"{digest}"'.encode()


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON: no duplicate key, no NaN, no number beyond float64 (1e999) and no unpaired
    surrogate, which UTF-8 cannot encode.
    """
    value = json.loads(
        text,
        object_pairs_hook=unique_keys,
        parse_constant=refuse_constant,
        parse_float=partial(parse_number, float),
        parse_int=partial(parse_number, int),
    )
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start]
        raise ValueError(f"its text has {surrogate!r}, an unpaired surrogate") from None
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("its header has a duplicate key")
    return value


def parse_number(kind: Callable[[str], float], text: str) -> float:
    """`text` as a number; ValueError if it is beyond the range of float64."""
    if math.isinf(float(text)):
        raise ValueError(f"it has a number beyond the range of float64, {text[:8]}...")
    return kind(text)


def refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def read_metadata(data: bytes, kind: str, version: int) -> dict[str, str]:
    """The metadata of a file of format `kind`.

    ValueError unless format, version and digest match.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError("it is truncated, or not a safetensors file")
    try:
        header = parse_json(data[8 : 8 + size])
    except (RecursionError, ValueError) as error:
        raise ValueError(f"its header is not JSON ({error})") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != kind:
        raise ValueError(f"its metadata does not have format {kind!r}")
    if metadata.get("format_version") != str(version):
        raise ValueError(
            f"it has format version {metadata.get('format_version')!r}; this library "
            f"({__version__}) reads {version}"
        )
    for name, tensor in header.items():
        if name != "__metadata__" and (
            type(tensor) is not dict or tensor["dtype"] not in TENSOR_DTYPES
        ):
            raise ValueError(f"its tensor {name!r} is {tensor}")
    digest = metadata.get("sha256")
    if not isinstance(digest, str) or len(digest) != len(BLANK):
        raise ValueError("it has no SHA-256")
    computed = hashlib.sha256(
        data[: 8 + size].replace(digest_entry(digest), digest_entry(BLANK), 1)
    )
    computed.update(memoryview(data)[8 + size :])
    if computed.hexdigest() != digest:
        raise ValueError("its SHA-256 does not match: the file was changed or damaged")
    return metadata


def read_object(text: Any) -> dict[str, Any]:
    """The object of a JSON text; ValueError if it is not one."""
    value = parse_json(text) if isinstance(text, str) else None
    if not isinstance(value, dict):
        raise ValueError("it has no configuration")
    return value


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The arrays by name; ValueError if they do not fill the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    try:
        tensors: dict[str, np.ndarray] = unpack(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return tensors
