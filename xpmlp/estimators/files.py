"""An estimator in a model file: the network with parameters, curves and optimizer state."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer

from xpmlp.devices.namespace import CPU, Place, dtype_name, to_host, to_place
from xpmlp.devices.words import place_for
from xpmlp.estimators.classes import class_labels
from xpmlp.estimators.inference import LINKS
from xpmlp.estimators.network import (
    ResumeState,
    as_array,
    coefs_and_intercepts,
    make_spec,
    optimizer_name,
    pack_weights,
)
from xpmlp.layout import padded_size, windows
from xpmlp.losses import loss
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording.executors import EXECUTORS
from xpmlp.spec import Spec
from xpmlp.storage.checksummed import INVALID_FILE_ERRORS, invalid_file
from xpmlp.storage.class_labels import labels_from_json, labels_to_json
from xpmlp.storage.model_file import Contents, read
from xpmlp.training.data import own_dtype
from xpmlp.training.labels import Labels
from xpmlp.training.model import Model

SECTION = "estimator"


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def is_real(value: Any) -> bool:
    return type(value) in (int, float)


def is_positive(value: Any) -> bool:
    return is_real(value) and 0 < value < math.inf


def is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(number is None or is_real(number) for number in value)


def is_history(value: Any) -> bool:
    """Whether `value` has a number per epoch under each name, and names under "executor"."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return False
    words = value.get("executor", [])
    valid = isinstance(words, list) and all(word in EXECUTORS for word in words)
    return valid and all(is_curve(series) for name, series in value.items() if name != "executor")


def or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


# the fields of an estimator in a file, each with a check of its value
FITTED: dict[str, Callable[[Any], bool]] = {
    "n_features_in_": is_count, "n_iter_": is_count, "t_": is_count, "n_layers_": is_count,
    "n_outputs_": is_count, "out_activation_": lambda value: value in LINKS, "loss_": is_real,
    "loss_curve_": is_curve, "best_loss_": or_none(is_real),
    "validation_scores_": or_none(is_curve), "validation_loss_curve_": or_none(is_curve),
    "best_validation_score_": or_none(is_real), "_no_improvement_count": is_count,
    "history_": is_history,
}  # fmt: skip
RESUME_FIELDS: dict[str, Callable[[Any], bool]] = {
    "seed": is_count, "solver": lambda value: isinstance(value, str), "step": is_count,
    "epoch": is_count, "learning_rate_init": is_positive, "learning_rate": is_positive,
    "best": is_real, "best_epoch": is_count,
}  # fmt: skip
VALIDATION_ATTRIBUTES = ("validation_scores_", "validation_loss_curve_", "best_validation_score_")
MACHINE_PARAMETERS = ("checkpoint", "resume")  # parameters of this machine alone
KEY_SHAPE = (624,)  # of the Mersenne Twister
MAX_HASH_COLLISIONS = 8  # in a dict; millions, which an attacker can find, would take hours


def to_json_value(value: Any, name: str) -> Any:
    """`value` as JSON; ValueError naming a parameter that JSON cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list | tuple | range | np.ndarray) and not hasattr(value, "_fields"):
        items = [to_json_value(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        pairs = [
            [to_json_value(key, name), to_json_value(item, name)] for key, item in value.items()
        ]
        return {"dict": pairs}
    raise ValueError(
        f"{name} is {value!r}, which a file cannot hold: give set_params({name}=...) a name or a "
        "number first"
    )


def from_json_value(value: Any) -> Any:
    """The inverse of `to_json_value`."""
    if isinstance(value, list):
        return [from_json_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"it holds an object of {len(value)} keys, not one")
    ((kind, inner),) = value.items()
    if kind == "float" and inner in ("nan", "inf", "-inf"):
        return float(inner)
    if kind == "tuple" and isinstance(inner, list):
        return tuple(from_json_value(item) for item in inner)
    if kind != "dict" or not isinstance(inner, list):
        raise ValueError(f"it holds a value of the unknown kind {kind!r}")
    pairs = [(from_json_value(key), from_json_value(item)) for key, item in inner]
    if len({hash(key) for key, _ in pairs}) < len(pairs) - MAX_HASH_COLLISIONS:
        raise ValueError("it holds keys with equal hashes")
    return dict(pairs)


def decode_fields(values: Any, checks: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The decoded values by name; ValueError where a check fails."""
    fields = {name: from_json_value(value) for name, value in values.items()}
    for name, value in fields.items():
        if name not in checks or not checks[name](value):
            raise ValueError(f"it has the attribute {name!r}, which is {value!r}")
    return fields


def to_model(est: Any) -> Model:
    """The fitted network alone, on the host."""
    spec, labels = network_spec(est), network_labels(est)
    flat = pack_weights(CPU, spec, est.coefs_, est.intercepts_, own_dtype(as_array(est.coefs_[0])))
    return Model(spec, flat, CPU, labels, getattr(est, "history_", {}))


def network_spec(est: Any) -> Spec:
    """The network of the weights and parameters."""
    layers = [as_array(part) for part in est.coefs_]
    sizes = [part.shape[1] for part in layers]
    return make_spec(est, layers[0].shape[0], sizes[:-1], sizes[-1], est._resolve_loss())


def network_labels(est: Any) -> Labels:
    classes = class_labels(est)
    means = est.n_outputs_ // 2 if est.out_activation_ == "gaussian_mean" else est.n_outputs_
    return Labels(classes, classes is not None or means == 1)


def has_object_labels(est: Any) -> bool:
    """Whether the labels are Python objects, such as pandas's strings."""
    return bool(est.classes_.dtype.kind == "O")


def parts(est: Any) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
    """The contents of the estimator's file."""
    params = est.get_params(deep=False) | {"callbacks": ()}
    parameters = {name: value for name, value in params.items() if name not in MACHINE_PARAMETERS}
    section: dict[str, Any] = {
        "class": type(est).__name__,
        "parameters": {name: to_json_value(value, name) for name, value in parameters.items()},
        "fitted": {
            name: to_json_value(getattr(est, name), name) for name in FITTED if hasattr(est, name)
        },
        "names": list(getattr(est, "feature_names_in_", ())),
        "resume_state": None,
    }
    binarizer, arrays = getattr(est, "_label_binarizer", None), {}
    if binarizer is not None:
        section["labels"] = {
            "type": binarizer.y_type_,
            "values": to_json_value(list(est.classes_), "classes_")
            if has_object_labels(est)
            else labels_to_json(est.classes_),
            "dtype": est.classes_.dtype.str,
            "sparse": binarizer.sparse_input_,
        }
    state = getattr(est, "_optimizer", None)
    if state is not None:
        section["resume_state"] = {
            name: to_json_value(getattr(state, name), name) for name in RESUME_FIELDS
        }
        _, key, *rest = state.split.get_state(legacy=True)
        section["resume_state"]["split"] = to_json_value(rest, "random_state")
        arrays["estimator.split"] = key
        for i, value in enumerate(state.slots):
            arrays[f"estimator.slots.{i}"] = to_host(value)
        if state.last is not None:
            arrays["estimator.last"] = to_host(state.last)
            arrays["estimator.kept"] = to_host(state.kept)
    return to_model(est), {SECTION: section}, arrays


def load(cls: type, path: str | os.PathLike[str], device: str | None) -> Any:
    """The estimator in a file; ValueError with the path for anything else."""
    contents = read(path)
    section = contents.sections.get(SECTION)
    if section is None or section.get("class") != cls.__name__:
        alone = "a network on a table" if "table" in contents.sections else "a network alone"
        content = alone if section is None else f"a {section.get('class')}"[:80]
        raise ValueError(f"{os.fspath(path)} holds {content}, not a {cls.__name__}: see xpmlp.load")
    place = CPU if device is None else place_for(device)
    try:
        return build_estimator(cls, contents, section, place)
    except INVALID_FILE_ERRORS as error:
        raise invalid_file(path, error) from None


def build_estimator(cls: Any, contents: Contents, section: dict[str, Any], place: Place) -> Any:
    """The estimator of these contents; an UNFIT error where they do not fit one another."""
    model, names = contents.model, section["names"]
    parameters = {name: from_json_value(value) for name, value in section["parameters"].items()}
    if local := parameters.keys() & {*MACHINE_PARAMETERS}:
        raise ValueError(f"it has the parameter {min(local)!r}, which no file holds")
    est = cls(**parameters)
    est._validate_params()
    est.__dict__.update(decode_fields(section["fitted"], FITTED))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its columns' names are not strings")
    if names:
        est.feature_names_in_ = np.array(names, dtype=object)
    flat = to_place(place, model.flat)
    est.coefs_, est.intercepts_ = coefs_and_intercepts(windows(place.xp, model.spec, flat))
    if ("labels" in section) != is_classifier(est):
        raise ValueError(f"its labels are not those of a {cls.__name__}")
    if is_classifier(est):
        est._label_binarizer = make_binarizer(section["labels"], model.spec.n_out)
        est.classes_ = est._label_binarizer.classes_
    check_consistent(est, model, names)
    if section["resume_state"] is not None:
        size = padded_size(model.spec)
        est._optimizer = make_resume_state(section["resume_state"], contents, size)
    return est


def check_consistent(est: Any, model: Model, names: list[str]) -> None:
    """ValueError where an estimator does not fit the network in its file."""
    spec, labels = model.spec, network_labels(est)
    if est.n_features_in_ != spec.n_in or len(names) not in (0, spec.n_in):
        raise ValueError(f"its columns do not fit its network {spec}")
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    if model.members is not None or network_spec(est) != spec or len(est.callbacks):
        raise ValueError(f"its parameters do not fit its network {spec}")
    if (est.n_layers_, est.n_outputs_) != (len(spec.sizes), spec.n_out):
        raise ValueError(f"its layers and outputs are not those of its network {spec}")
    if len({getattr(est, name, None) is None for name in VALIDATION_ATTRIBUTES}) > 1:
        raise ValueError(f"it has some of {', '.join(VALIDATION_ATTRIBUTES)} without the others")
    if LINKS[est.out_activation_] is not loss(spec.loss).link:
        raise ValueError(f"its outputs are not {est.out_activation_!r}")
    classes: Any = labels.classes
    if labels.flat != model._labels.flat or not np.array_equal(classes, model.classes_):
        raise ValueError("its labels are not those of its network")


def make_binarizer(saved: dict[str, Any], outputs: int) -> LabelBinarizer:
    binarizer = LabelBinarizer()
    values, dtype = saved["values"], saved["dtype"]
    is_object = dtype == np.dtype(object).str
    classes = (
        object_labels(from_json_value(values)) if is_object else labels_from_json(values, dtype)
    )
    binarizer.classes_ = classes
    binarizer.y_type_, binarizer.sparse_input_ = saved["type"], saved["sparse"]
    count = len(binarizer.classes_)
    allowed = {"binary": (1, 2), "multiclass": (outputs,), "multilabel-indicator": (outputs,)}
    if count not in allowed[binarizer.y_type_] or (binarizer.y_type_ == "binary" and outputs != 1):
        raise ValueError(f"it has {count} classes for a network of {outputs} outputs")
    if type(binarizer.sparse_input_) is not bool:
        raise ValueError(f"sparse must be true or false; it has {binarizer.sparse_input_!r}")
    return binarizer


def object_labels(values: Any) -> np.ndarray:
    """Labels that are Python objects: strings, numbers or booleans."""
    if not (isinstance(values, list) and all(isinstance(v, str | int | float) for v in values)):
        raise ValueError("its labels are not a list of strings and numbers")
    return np.array(values, dtype=object)


def make_resume_state(saved: dict[str, Any], contents: Contents, size: int) -> ResumeState:
    """The state to resume training from; arrays unknown to this version are ignored."""
    state = decode_fields({name: saved[name] for name in RESUME_FIELDS}, RESUME_FIELDS)
    arrays = {name.partition(".")[2]: value for name, value in contents.arrays.items()}
    slots = [f"slots.{i}" for i in range(slot_count(state["solver"]))]
    if slots and slots[0] not in arrays:
        slots = []  # before the first update
    for name in (*slots, *(pair := [n for n in ("last", "kept") if n in arrays])):
        value = arrays[name]
        if value.shape != (size,) or dtype_name(value) != dtype_name(contents.model.flat):
            raise ValueError(f"its array 'estimator.{name}' does not fit its network")
    if len(pair) == 1:
        raise ValueError(f"it has an array 'estimator.{pair[0]}' alone")
    return ResumeState(
        split=make_split_generator(arrays["split"], from_json_value(saved["split"])),
        slots=tuple(arrays[name] for name in slots),
        last=arrays.get("last"),
        kept=arrays.get("kept"),
        **state,
    )


def slot_count(solver: str) -> int:
    """The number of slots of a solver's optimizer."""
    return OPTIMIZERS[optimizer_name(solver, nesterov=False)].slots


def make_split_generator(key: np.ndarray, saved: Any) -> np.random.RandomState:
    """The generator of the validation split; NumPy does not check the position in its key."""
    position, has_gauss, gauss = saved
    valid_key = key.shape == KEY_SHAPE and key.dtype == np.uint32
    if not (valid_key and is_count(position) and position <= KEY_SHAPE[0]):
        raise ValueError("its generator of held-out rows has an invalid key or position")
    if has_gauss not in (0, 1) or not is_real(gauss):
        raise ValueError("its generator of held-out rows has an invalid stored number")
    split = np.random.RandomState()
    split.set_state(("MT19937", key, position, int(has_gauss), float(gauss)))
    return split
