"""A model in one file: the safetensors layout, float arrays and JSON, never pickle.

Tensors `layers.0.weights` (..., n_in, n_out) and `layers.0.bias` (..., n_out), counted from the
input; JSON configuration, format version and a SHA-256 in the metadata. See docs/model-file.md.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from xpmlp import __version__
from xpmlp.backends.namespace import CPU, to_host, to_place
from xpmlp.core.layout import padded_size, windows
from xpmlp.core.spec import Spec
from xpmlp.fit.labels import Labels
from xpmlp.fit.model import Model
from xpmlp.storage.atomic import write_atomic

FORMAT = "xpmlp-model"
VERSION = 1
BLANK = "0" * 64
HEADER_LIMIT = 16 * 2**20  # bytes; a header is a few kilobytes
DTYPES = ("float32", "float64")


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to one file that loads wherever NumPy is.

    The file is written whole or not at all. Raises ValueError where the network holds a
    function of the user's own, OSError where the path cannot be written.

    >>> import os, tempfile, xpmlp
    >>> model = xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> xpmlp.save(model, path)
    >>> bool((xpmlp.load(path).predict([[0.5]]) == model.predict([[0.5]])).all())
    True
    """
    write_atomic(path, encode(model))


def load(path: str | os.PathLike[str], *, device: str | None = None) -> Model:
    """The model that `save` wrote, on the CPU or on the device named.

    Raises ValueError with the path for anything but a whole, unchanged model file.
    """
    data = Path(path).read_bytes()
    try:
        return decode(data, device)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not a whole model file: {error}") from None


def configuration(model: Model) -> str:
    """Everything but the arrays, as JSON."""
    classes = model.classes_
    last = {name: entries[-1] for name, entries in model.history.items() if entries}
    return json.dumps(
        {
            "spec": json.loads(model.spec.to_json()),
            "members": model.members,
            "dtype": str(to_host(model.flat).dtype),
            "classes": None if classes is None else classes.tolist(),
            "classes_dtype": None if classes is None else classes.dtype.str,
            "one_dimensional": model.labels.flat,
            "trained": {"epochs": len(model.history.get("loss", ()))}
            | {name: np.asarray(value).tolist() for name, value in last.items()},
        }
    )


def encode(model: Model) -> bytes:
    """The bytes of a model file."""
    from safetensors.numpy import save as pack

    tensors = {}
    for i, (weights, bias) in enumerate(model.params):
        # safetensors writes a strided array wrongly (its issue 825): only C-contiguous ones
        tensors[f"layers.{i}.weights"] = np.ascontiguousarray(to_host(weights))
        tensors[f"layers.{i}.bias"] = np.ascontiguousarray(to_host(bias)[..., 0, :])
    data = pack(
        tensors,
        metadata={
            "format": FORMAT,
            "format_version": str(VERSION),
            "library_version": __version__,
            "config": configuration(model),
            "sha256": BLANK,
        },
    )
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(BLANK.encode(), digest.encode(), 1)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in its header")
    return found


def read_metadata(data: bytes) -> dict[str, str]:
    """The checked metadata: format, version and digest hold for exactly these bytes."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(HEADER_LIMIT, len(data) - 8):
        raise ValueError("it is cut off, or no safetensors file")
    try:
        header = json.loads(data[8 : 8 + size], object_pairs_hook=unique)
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"its header is no JSON ({error})") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"its metadata does not say format {FORMAT!r}")
    if metadata.get("format_version") != str(VERSION):
        raise ValueError(
            f"it has format version {metadata.get('format_version')!r}; this library "
            f"({__version__}) reads {VERSION}"
        )
    digest = metadata.get("sha256")
    if not isinstance(digest, str) or len(digest) != len(BLANK):
        raise ValueError("it has no SHA-256")
    blanked = data[: 8 + size].replace(digest.encode(), BLANK.encode(), 1)
    if hashlib.sha256(blanked + data[8 + size :]).hexdigest() != digest:
        raise ValueError("its SHA-256 does not match: the file was changed or damaged")
    return metadata


def decode(data: bytes, device: str | None) -> Model:
    """The model in the bytes of a file; ValueError for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    metadata = read_metadata(data)
    config = json.loads(metadata["config"], object_pairs_hook=unique)
    spec = Spec.from_json(json.dumps(config["spec"]))
    lead = () if config["members"] is None else (config["members"],)
    if config["dtype"] not in DTYPES:
        raise ValueError(f"it holds {config['dtype']}, not {' or '.join(DTYPES)}")
    try:
        tensors = unpack(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    flat = np.zeros((*lead, padded_size(spec)), dtype=config["dtype"])
    wanted = {}
    for i, window in enumerate(windows(np, spec, flat)):
        wanted[f"layers.{i}.weights"] = window.weights
        wanted[f"layers.{i}.bias"] = window.bias[..., 0, :]
    if set(tensors) != set(wanted):
        raise ValueError(f"its tensors are {sorted(tensors)}, not {sorted(wanted)}")
    for name, view in wanted.items():
        found = tensors[name]
        if found.shape != view.shape or found.dtype != view.dtype:
            raise ValueError(
                f"tensor {name} is {found.dtype} {found.shape}, not {view.dtype} {view.shape}"
            )
        view[...] = found
    classes = config["classes"]
    if classes is not None:
        classes = np.array(classes, dtype=np.dtype(config["classes_dtype"]))
    if device is None:
        place = CPU
    else:
        from xpmlp.backends.devices import place_for

        place = place_for(device)
    return Model(spec, to_place(place, flat), place, Labels(classes, config["one_dimensional"]))
