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
from xpmlp.storage.atomic import contents, write_atomic
from xpmlp.storage.checksummed import (
    UNFIT,
    checksummed,
    read_metadata,
    read_object,
    refusal,
    unpacked,
)
from xpmlp.storage.class_labels import listed, unlisted
from xpmlp.training.labels import Labels
from xpmlp.training.model import Model

FORMAT = "xpmlp-model"
VERSION = 1
SECTIONS = ("table", "estimator")  # what may stand around a network
DTYPES = ("float32", "float64")
KEYS = {"spec", "members", "dtype", "classes", "classes_dtype", "one_dimensional"}


class Savable(Protocol):
    """A model that says what its file holds: network, sections' JSON by name, their arrays."""

    def parts(self) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]: ...


def save(model: Savable, path: str | os.PathLike[str]) -> None:
    """Write `model` to one file that loads wherever NumPy is.

    The file is written whole or not at all. Raises TypeError for what is no model, ValueError
    where the network holds a function of the user's own, OSError where the path cannot be written.

    >>> import os, tempfile, xpmlp
    >>> model = xpmlp.train("1-2-1", [[0.0], [1.0]], [0.0, 1.0], epochs=1)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> xpmlp.save(model, path)
    >>> bool((xpmlp.load(path).predict([[0.5]]) == model.predict([[0.5]])).all())
    True
    """
    if not hasattr(model, "parts") or isinstance(model, type):
        raise TypeError(
            "save takes a Model, a TableModel or a fitted MLPClassifier or MLPRegressor; got "
            f"{type(model).__name__}"
        )
    write_atomic(path, encode(*model.parts()))


class Contents(NamedTuple):
    """All that a model file holds."""

    model: Model
    sections: dict[str, Any]  # JSON of what stands around the network, by name
    arrays: dict[str, np.ndarray]  # the sections' arrays
    trained: dict[str, Any]  # what training came to: epochs, last losses and scores


def read(path: str | os.PathLike[str], device: str | None = None) -> Contents:
    """All that a model file holds; ValueError with the path as for `load`."""
    place = CPU if device is None else place_for(device)
    data = contents(path)
    try:
        return decode(data, place)
    except UNFIT as error:
        raise refusal(path, error) from None


def configuration(model: Model, sections: Mapping[str, Any]) -> str:
    """Everything but the arrays, as JSON; ValueError for labels that JSON cannot hold."""
    classes = model.classes_
    last = {name: entries[-1] for name, entries in model.history.items() if entries}
    return json.dumps(
        {
            "spec": json.loads(model.spec.to_json()),
            "members": model.members,
            "dtype": str(to_host(model.flat).dtype),
            "classes": None if classes is None else listed(classes),
            "classes_dtype": None if classes is None else classes.dtype.str,
            "one_dimensional": model.labels.flat,
            "trained": {"epochs": len(model.history.get("loss", ()))}
            | {name: finite(np.asarray(value).tolist()) for name, value in last.items()},
        }
        | {name: sections.get(name) for name in SECTIONS},
        allow_nan=False,
    )


def finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which JSON lacks (a member that diverged)."""
    if isinstance(value, list):
        return [finite(one) for one in value]
    return value if not isinstance(value, float) or np.isfinite(value) else None


def encode(model: Model, sections: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a model file; `arrays` are the sections', if any."""
    tensors = dict(layer_tensors(np, model.spec, to_host(model.flat)))
    return checksummed(FORMAT, VERSION, {**arrays, **tensors}, configuration(model, sections))


class Config(NamedTuple):
    """The checked configuration of a model file."""

    spec: Spec
    lead: tuple[int, ...]
    dtype: str
    labels: Labels
    sections: dict[str, Any]
    trained: dict[str, Any]


def read_config(text: Any) -> Config:
    """The configuration in the metadata; ValueError for anything that `save` does not write."""
    config = read_object(text)
    if not set(config) >= KEYS:
        raise ValueError(f"its configuration must hold {', '.join(sorted(KEYS))}")
    spec = read_spec(config["spec"])
    members, flat = config["members"], config["one_dimensional"]
    if not (members is None or (type(members) is int and members >= 1)):
        raise ValueError(f"members must be a whole number or null; it has {members!r}")
    if config["dtype"] not in DTYPES:
        raise ValueError(f"it holds {config['dtype']!r}, not {' or '.join(DTYPES)}")
    if not isinstance(flat, bool):
        raise ValueError(f"one_dimensional must be true or false; it has {flat!r}")
    classes = read_classes(config["classes"], config["classes_dtype"], spec)
    lead = () if members is None else (members,)
    trained = config.get("trained")
    if not isinstance(trained, dict):
        raise ValueError("it does not say what training came to")
    sections = {name: config[name] for name in SECTIONS if config.get(name) is not None}
    if not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(f"{' or '.join(sections)} must be an object")
    return Config(spec, lead, config["dtype"], Labels(classes, flat), sections, trained)


def read_spec(value: Any) -> Spec:
    """The network, whose layers are written in full."""
    return Spec.from_json(json.dumps(value))


def read_classes(labels: Any, dtype: Any, spec: Spec) -> np.ndarray | None:
    """The class labels; ValueError where they do not fit the network."""
    if labels is None and dtype is None:
        return None
    if not isinstance(labels, list) or not isinstance(dtype, str):
        raise ValueError("its classes are no list with a dtype")
    classes = unlisted(labels, dtype)
    wanted = 2 if spec.n_out == 1 else spec.n_out
    if classes.shape != (wanted,) or loss(spec.loss).labels == "none":
        raise ValueError(f"it has {len(labels)} classes for a network of {spec.n_out} outputs")
    if not (classes[:-1] < classes[1:]).all():
        raise ValueError("its classes are not sorted, or one stands twice")
    return classes


def decode(data: bytes, place: Place) -> Contents:
    """What the bytes of a file hold; an UNFIT error for anything but what `encode` writes."""
    config = read_config(read_metadata(data, FORMAT, VERSION).get("config"))
    tensors = unpacked(data)
    shapes = stored_shapes(config.spec)
    wanted = {name: (*config.lead, *shape) for name, shape in shapes}
    around = [name for name in sorted(tensors) if name.partition(".")[0] in SECTIONS]
    arrays = {name: tensors.pop(name) for name in around}
    strange = [name for name in around if name.partition(".")[0] not in config.sections]
    if strange:
        raise ValueError(f"it has {strange} but describes no {strange[0].partition('.')[0]}")
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    asked = {name: (shape, np.dtype(config.dtype)) for name, shape in wanted.items()}
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            raise ValueError(f"its tensor {name!r} is {found.get(name)}, not {asked.get(name)}")
    flat = np.zeros((*config.lead, padded_size(config.spec)), dtype=config.dtype)
    for name, into in layer_tensors(np, config.spec, flat):
        into[...] = tensors[name]
    model = Model(config.spec, to_place(place, flat), place, config.labels)
    return Contents(model, config.sections, arrays, config.trained)
