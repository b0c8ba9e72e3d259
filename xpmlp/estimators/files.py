"""An estimator in one model file: the network, and around it parameters, curves and memory."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer

from xpmlp.devices.namespace import CPU, Place, dtype_name, to_host, to_place
from xpmlp.devices.words import place_for
from xpmlp.estimators.classes import is_multilabel
from xpmlp.estimators.inference import LINKS
from xpmlp.estimators.network import ResumeState, lists, packed, plain, rule_name, spec_of
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


def whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def real(value: Any) -> bool:
    return type(value) in (int, float)


def positive(value: Any) -> bool:
    return real(value) and 0 < value < math.inf


def curve(value: Any) -> bool:
    return isinstance(value, list) and all(one is None or real(one) for one in value)


def history(value: Any) -> bool:
    """By name a number an epoch, but for the words of "executor"."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return False
    words = value.get("executor", [])
    known = isinstance(words, list) and all(word in EXECUTORS for word in words)
    return known and all(curve(series) for name, series in value.items() if name != "executor")


def optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


# what a file holds of an estimator, by name, and whether a value can be it
FITTED: dict[str, Callable[[Any], bool]] = {
    "n_features_in_": whole, "n_iter_": whole, "t_": whole, "n_layers_": whole,
    "n_outputs_": whole, "out_activation_": lambda value: value in LINKS, "loss_": real,
    "loss_curve_": curve, "best_loss_": optional(real), "validation_scores_": optional(curve),
    "validation_loss_curve_": optional(curve), "best_validation_score_": optional(real),
    "_no_improvement_count": whole,
    "history_": history,
}  # fmt: skip
RESUME_FIELDS: dict[str, Callable[[Any], bool]] = {
    "seed": whole, "solver": lambda value: isinstance(value, str), "step": whole, "epoch": whole,
    "learning_rate_init": positive, "learning_rate": positive, "best": real, "best_epoch": whole,
}  # fmt: skip
HELD = ("validation_scores_", "validation_loss_curve_", "best_validation_score_")
HERE = ("checkpoint", "resume")  # parameters that mean this machine alone
KEY = (624,)  # of a Mersenne twister
SAME_HASH = 8  # keys of a dict; millions, which a forger can find, would take it hours


def written(value: Any, name: str) -> Any:
    """`value` as JSON; ValueError naming the parameter that JSON cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list | tuple | range | np.ndarray) and not hasattr(value, "_fields"):
        listed = [written(one, name) for one in value]
        return listed if isinstance(value, list) else {"tuple": listed}
    if isinstance(value, dict):
        pairs = [[written(key, name), written(one, name)] for key, one in value.items()]
        return {"dict": pairs}
    raise ValueError(
        f"{name} is {value!r}, which a file cannot hold: give set_params({name}=...) a name or a "
        "number first"
    )


def reread(value: Any) -> Any:
    """What `written` was given."""
    if isinstance(value, list):
        return [reread(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"it holds an object of {len(value)} keys, not one")
    ((kind, inner),) = value.items()
    if kind == "float" and inner in ("nan", "inf", "-inf"):
        return float(inner)
    if kind == "tuple" and isinstance(inner, list):
        return tuple(reread(one) for one in inner)
    if kind != "dict" or not isinstance(inner, list):
        raise ValueError(f"it holds a value of the unknown kind {kind!r}")
    pairs = [(reread(key), reread(one)) for key, one in inner]
    if len({hash(key) for key, _ in pairs}) < len(pairs) - SAME_HASH:
        raise ValueError("it holds keys that differ in nothing a dict goes by")
    return dict(pairs)


def checked(values: Any, table: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """The values by name, each of which can be what its name says."""
    found = {name: reread(value) for name, value in values.items()}
    for name, value in found.items():
        if name not in table or not table[name](value):
            raise ValueError(f"it has the attribute {name!r}, which is {value!r}")
    return found


def network(est: Any) -> Model:
    """The fitted network by itself, on the host."""
    spec, labels = network_spec(est), network_labels(est)
    flat = packed(CPU, spec, est.coefs_, est.intercepts_, own_dtype(plain(est.coefs_[0])))
    return Model(spec, flat, CPU, labels, getattr(est, "history_", {}))


def network_spec(est: Any) -> Spec:
    """The network that the weights and parameters make."""
    layers = [plain(part) for part in est.coefs_]
    sizes = [part.shape[1] for part in layers]
    return spec_of(est, layers[0].shape[0], sizes[:-1], sizes[-1], est.loss_asked())


def network_labels(est: Any) -> Labels:
    classes = class_labels(est)
    return Labels(classes, classes is not None or est.n_outputs_ == 1)


def class_labels(est: Any) -> np.ndarray | None:
    """The labels that one row has one of, as an array that a file can hold."""
    binarizer = getattr(est, "_label_binarizer", None)
    if binarizer is None or is_multilabel(binarizer) or len(est.classes_) == 1:
        return None
    labels: np.ndarray = est.classes_
    return np.asarray(labels.tolist()) if labels.dtype.kind == "O" else labels


def objects(est: Any) -> bool:
    """Whether the labels are Python's objects, such as pandas's texts."""
    return bool(est.classes_.dtype.kind == "O")


def parts(est: Any) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
    """What the estimator's file holds."""
    given = est.get_params(deep=False) | {"callbacks": ()}
    parameters = {name: value for name, value in given.items() if name not in HERE}
    section: dict[str, Any] = {
        "class": type(est).__name__,
        "parameters": {name: written(value, name) for name, value in parameters.items()},
        "fitted": {
            name: written(getattr(est, name), name) for name in FITTED if hasattr(est, name)
        },
        "names": list(getattr(est, "feature_names_in_", ())),
        "resume_state": None,
    }
    binarizer, arrays = getattr(est, "_label_binarizer", None), {}
    if binarizer is not None:
        section["labels"] = {
            "type": binarizer.y_type_,
            "values": written(list(est.classes_), "classes_")
            if objects(est)
            else labels_to_json(est.classes_),
            "dtype": est.classes_.dtype.str,
            "sparse": binarizer.sparse_input_,
        }
    state = getattr(est, "_optimizer", None)
    if state is not None:
        section["resume_state"] = {
            name: written(getattr(state, name), name) for name in RESUME_FIELDS
        }
        _, key, *rest = state.split.get_state(legacy=True)
        section["resume_state"]["split"] = written(rest, "random_state")
        arrays["estimator.split"] = key
        for i, value in enumerate(state.slots):
            arrays[f"estimator.slots.{i}"] = to_host(value)
        if state.last is not None:
            arrays["estimator.last"] = to_host(state.last)
            arrays["estimator.kept"] = to_host(state.kept)
    return network(est), {SECTION: section}, arrays


def restored(cls: type, path: str | os.PathLike[str], device: str | None) -> Any:
    """The estimator that a file holds; ValueError with the path for anything else."""
    found = read(path)
    section = found.sections.get(SECTION)
    if section is None or section.get("class") != cls.__name__:
        alone = "a network on a table" if "table" in found.sections else "a network alone"
        held = alone if section is None else f"a {section.get('class')}"[:80]
        raise ValueError(f"{os.fspath(path)} holds {held}, not a {cls.__name__}: see xpmlp.load")
    place = CPU if device is None else place_for(device)
    try:
        return rebuilt(cls, found, section, place)
    except INVALID_FILE_ERRORS as error:
        raise invalid_file(path, error) from None


def rebuilt(cls: Any, found: Contents, section: dict[str, Any], place: Place) -> Any:
    """The estimator of these parts; an UNFIT error where they do not go together."""
    model, names = found.model, section["names"]
    parameters = {name: reread(value) for name, value in section["parameters"].items()}
    if known := parameters.keys() & {*HERE}:
        raise ValueError(f"it has the parameter {min(known)!r}, which no file holds")
    est = cls(**parameters)
    est._validate_params()
    est.__dict__.update(checked(section["fitted"], FITTED))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its columns' names are no texts")
    if names:
        est.feature_names_in_ = np.array(names, dtype=object)
    flat = to_place(place, model.flat)
    est.coefs_, est.intercepts_ = lists(windows(place.xp, model.spec, flat))
    if ("labels" in section) != is_classifier(est):
        raise ValueError(f"its labels are not those of a {cls.__name__}")
    if is_classifier(est):
        est._label_binarizer = binarizer_of(section["labels"], model.spec.n_out)
        est.classes_ = est._label_binarizer.classes_
    check_together(est, model, names)
    if section["resume_state"] is not None:
        est._optimizer = resume_state_of(section["resume_state"], found, padded_size(model.spec))
    return est


def check_together(est: Any, model: Model, names: list[str]) -> None:
    """ValueError where an estimator does not fit the network in its file."""
    spec, labels = model.spec, network_labels(est)
    if est.n_features_in_ != spec.n_in or len(names) not in (0, spec.n_in):
        raise ValueError(f"its columns do not fit its network {spec}")
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    if model.members is not None or network_spec(est) != spec or len(est.callbacks):
        raise ValueError(f"its parameters do not ask for its network {spec}")
    if (est.n_layers_, est.n_outputs_) != (len(spec.sizes), spec.n_out):
        raise ValueError(f"its layers and outputs are not those of its network {spec}")
    if len({getattr(est, name, None) is None for name in HELD}) > 1:
        raise ValueError(f"it has some of {', '.join(HELD)}, and others not")
    if LINKS[est.out_activation_] is not loss(spec.loss).link:
        raise ValueError(f"its outputs are not {est.out_activation_!r}")
    classes: Any = labels.classes
    if labels.flat != model.labels.flat or not np.array_equal(classes, model.classes_):
        raise ValueError("its labels are not those of its network")


def binarizer_of(saved: dict[str, Any], outputs: int) -> LabelBinarizer:
    found = LabelBinarizer()
    values, dtype = saved["values"], saved["dtype"]
    is_object = dtype == np.dtype(object).str
    found.classes_ = objects_of(reread(values)) if is_object else labels_from_json(values, dtype)
    found.y_type_, found.sparse_input_ = saved["type"], saved["sparse"]
    count = len(found.classes_)
    wanted = {"binary": (1, 2), "multiclass": (outputs,), "multilabel-indicator": (outputs,)}
    if count not in wanted[found.y_type_] or (found.y_type_ == "binary" and outputs != 1):
        raise ValueError(f"it has {count} classes for a network of {outputs} outputs")
    if type(found.sparse_input_) is not bool:
        raise ValueError(f"sparse must be true or false; it has {found.sparse_input_!r}")
    return found


def objects_of(values: Any) -> np.ndarray:
    """Labels that are Python's objects: texts, numbers or booleans."""
    if not (isinstance(values, list) and all(isinstance(v, str | int | float) for v in values)):
        raise ValueError("its labels are no list of texts and numbers")
    return np.array(values, dtype=object)


def resume_state_of(saved: dict[str, Any], found: Contents, size: int) -> ResumeState:
    """What training goes on with; arrays that this version does not know are left alone."""
    state = checked({name: saved[name] for name in RESUME_FIELDS}, RESUME_FIELDS)
    arrays = {name.partition(".")[2]: value for name, value in found.arrays.items()}
    slots = [f"slots.{i}" for i in range(slot_count(state["solver"]))]
    if slots and slots[0] not in arrays:
        slots = []  # before the first update
    for name in (*slots, *(pair := [n for n in ("last", "kept") if n in arrays])):
        value = arrays[name]
        if value.shape != (size,) or dtype_name(value) != dtype_name(found.model.flat):
            raise ValueError(f"its array 'estimator.{name}' does not fit its network")
    if len(pair) == 1:
        raise ValueError(f"it has an array 'estimator.{pair[0]}' alone")
    return ResumeState(
        split=split_of(arrays["split"], reread(saved["split"])),
        slots=tuple(arrays[name] for name in slots),
        last=arrays.get("last"),
        kept=arrays.get("kept"),
        **state,
    )


def slot_count(solver: str) -> int:
    """How many buffers the rule of a solver remembers."""
    return OPTIMIZERS[rule_name(solver, nesterov=False)].slots


def split_of(key: np.ndarray, saved: Any) -> np.random.RandomState:
    """The generator of held-out rows; NumPy itself would read beyond its key for a place beyond."""
    place, has_gauss, gauss = saved
    if key.shape != KEY or key.dtype != np.uint32 or not (whole(place) and place <= KEY[0]):
        raise ValueError("its generator of held-out rows has no key of 624 numbers, or no place")
    if has_gauss not in (0, 1) or not real(gauss):
        raise ValueError("its generator of held-out rows has no number in hand")
    split = np.random.RandomState()
    split.set_state(("MT19937", key, place, int(has_gauss), float(gauss)))
    return split
