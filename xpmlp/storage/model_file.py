"""A model in one file: the safetensors layout, float arrays and JSON, never pickle.

Tensors `layers.0.weights` (..., n_in, n_out) and `layers.0.bias` (..., n_out), counted from the
input; JSON configuration, format version and a SHA-256 in the metadata. See docs/model-file.md.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from xpmlp.devices.namespace import CPU, Place, to_host, to_place
from xpmlp.devices.words import place_for
from xpmlp.layout import padded_size, stored_shapes, tensors as layer_tensors
from xpmlp.losses import loss
from xpmlp.spec import Spec
from xpmlp.storage.atomic import read_bytes, write_atomic
from xpmlp.storage.checksummed import (
    INVALID_FILE_ERRORS,
    invalid_file,
    pack_checksummed,
    read_metadata,
    read_object,
    read_tensors,
)
from xpmlp.storage.class_labels import labels_from_json, labels_to_json
from xpmlp.training.labels import Labels
from xpmlp.training.model import Model

FORMAT = "xpmlp-model"
VERSION = 1
SECTIONS = ("table", "estimator")  # of models that have more than a network
DTYPES = ("float32", "float64")
REQUIRED_KEYS = {"spec", "members", "dtype", "classes", "classes_dtype", "one_dimensional"}


class Savable(Protocol):
    """A model that gives its file's network, its sections as JSON by name, and their arrays."""

    def _parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]: ...


def save(model: Savable, path: str | os.PathLike[str]) -> None:
    """Write a model to one file, which needs no package but NumPy and safetensors to load.

    Parameters
    ----------
    model : Model, TableModel or fitted estimator
    path : path
        The write is atomic: the file is there whole, or the old one is left.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        Naming the function of a user's own that a file cannot hold.
    OSError
        Where the path cannot be written.

    Examples
    --------
    >>> import os, tempfile, xpmlp
    >>> model = xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> xpmlp.save(model, path)
    >>> bool((xpmlp.load(path).predict([[0.5]]) == model.predict([[0.5]])).all())
    True
    """
    if not hasattr(model, "_parts") or isinstance(model, type):
        raise TypeError(
            "save takes a Model, a TableModel or a fitted MLPClassifier or MLPRegressor; got "
            f"{type(model).__name__}"
        )
    write_atomic(path, encode(*model._parts()))


class Contents(NamedTuple):
    """The contents of a model file."""

    model: Model
    sections: dict[str, Any]  # JSON by name: a table or an estimator
    arrays: dict[str, np.ndarray]  # the sections' arrays
    trained: dict[str, Any]  # number of epochs, last losses and scores


def read(path: str | os.PathLike[str], device: str | None = None) -> Contents:
    """The contents of a model file; ValueError with the path as for `load`."""
    place = CPU if device is None else place_for(device)
    data = read_bytes(path)
    try:
        return decode(data, place)
    except INVALID_FILE_ERRORS as error:
        raise invalid_file(path, error) from None


def to_config(model: Model, sections: Mapping[str, Any]) -> str:
    """The configuration of a model file as JSON; ValueError for labels that JSON cannot hold."""
    classes = model.classes_
    last = {name: entries[-1] for name, entries in model.history.items() if entries}
    return json.dumps(
        {
            "spec": json.loads(model.spec.to_json()),
            "members": model.members,
            "dtype": str(to_host(model.flat).dtype),
            "classes": None if classes is None else labels_to_json(classes),
            "classes_dtype": None if classes is None else classes.dtype.str,
            "one_dimensional": model._labels.flat,
            "trained": {"epochs": len(model.history.get("loss", ()))}
            | {name: nan_to_none(np.asarray(value).tolist()) for name, value in last.items()},
        }
        | {name: sections.get(name) for name in SECTIONS},
        allow_nan=False,
    )


def nan_to_none(value: Any) -> Any:
    """`value` with None for NaN and infinity, which JSON lacks (a member that diverged)."""
    if isinstance(value, list):
        return [nan_to_none(item) for item in value]
    return value if not isinstance(value, float) or np.isfinite(value) else None


def encode(model: Model, sections: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a model file; `arrays` are those of the sections."""
    tensors = dict(layer_tensors(np, model.spec, to_host(model.flat)))
    return pack_checksummed(FORMAT, VERSION, {**arrays, **tensors}, to_config(model, sections))


class Config(NamedTuple):
    """The checked configuration of a model file."""

    spec: Spec
    lead: tuple[int, ...]
    dtype: str
    labels: Labels
    sections: dict[str, Any]
    trained: dict[str, Any]


def read_config(text: Any) -> Config:
    """The configuration of a model file; ValueError for anything that `save` does not write."""
    config = read_object(text)
    if not set(config) >= REQUIRED_KEYS:
        raise ValueError(f"its configuration must hold {', '.join(sorted(REQUIRED_KEYS))}")
    spec = read_spec(config["spec"])
    members, flat = config["members"], config["one_dimensional"]
    if not (members is None or (type(members) is int and members >= 1)):
        raise ValueError(f"members must be an integer or null; it has {members!r}")
    if config["dtype"] not in DTYPES:
        raise ValueError(f"it holds {config['dtype']!r}, not {' or '.join(DTYPES)}")
    if not isinstance(flat, bool):
        raise ValueError(f"one_dimensional must be true or false; it has {flat!r}")
    classes = read_classes(config["classes"], config["classes_dtype"], spec)
    lead = () if members is None else (members,)
    trained = config.get("trained")
    if not isinstance(trained, dict):
        raise ValueError("it has no results of training")
    sections = {name: config[name] for name in SECTIONS if config.get(name) is not None}
    if not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(f"{' or '.join(sections)} must be an object")
    return Config(spec, lead, config["dtype"], Labels(classes, flat), sections, trained)


def read_spec(value: Any) -> Spec:
    """The network; each of its layers is written in full."""
    return Spec.from_json(json.dumps(value))


def read_classes(labels: Any, dtype: Any, spec: Spec) -> np.ndarray | None:
    """The class labels; ValueError if they do not fit the network."""
    if labels is None and dtype is None:
        return None
    if not isinstance(labels, list) or not isinstance(dtype, str):
        raise ValueError("its classes are not a list with a dtype")
    classes = labels_from_json(labels, dtype)
    n_classes = 2 if spec.n_out == 1 else spec.n_out
    if classes.shape != (n_classes,) or loss(spec.loss).labels == "none":
        raise ValueError(f"it has {len(labels)} classes for a network of {spec.n_out} outputs")
    if not (classes[:-1] < classes[1:]).all():
        raise ValueError("its classes are not sorted and unique")
    return classes


def decode(data: bytes, place: Place) -> Contents:
    """The contents of a file; INVALID_FILE_ERRORS for what `encode` does not write."""
    config = read_config(read_metadata(data, FORMAT, VERSION).get("config"))
    tensors = read_tensors(data)
    section_of = {name: name.partition(".")[0] for name in sorted(tensors)}
    arrays = {name: tensors.pop(name) for name in section_of if section_of[name] in SECTIONS}
    unknown = [name for name in arrays if section_of[name] not in config.sections]
    if unknown:
        raise ValueError(f"it has {unknown} but no section {section_of[unknown[0]]!r}")
    dtype = np.dtype(config.dtype)
    expected = {n: ((*config.lead, *shape), dtype) for n, shape in stored_shapes(config.spec)}
    stored = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    for name in sorted(stored.keys() | expected.keys()):
        if stored.get(name) != expected.get(name):
            raise ValueError(f"its tensor {name!r} is {stored.get(name)}, not {expected.get(name)}")
    flat = np.zeros((*config.lead, padded_size(config.spec)), dtype=config.dtype)
    for name, view in layer_tensors(np, config.spec, flat):
        view[...] = tensors[name]
    model = Model(config.spec, to_place(place, flat), place, config.labels)
    return Contents(model, config.sections, arrays, config.trained)
