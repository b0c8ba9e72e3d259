"""An estimator in one model file: the network, and around it parameters, curves and memory."""

import math
import os
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from xpmlp.backends.devices import place_for
from xpmlp.backends.namespace import CPU, Place, dtype_name, to_host, to_place
from xpmlp.core.layout import padded_size, windows
from xpmlp.estimators.network import Course, lists, packed, plain, spec_of
from xpmlp.fit.data import own_dtype
from xpmlp.fit.labels import Labels
from xpmlp.fit.model import Model
from xpmlp.storage.model_file import Contents, listed, read, unlisted

SECTION = "estimator"
FITTED = (
    "n_features_in_", "n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "loss_",
    "loss_curve_", "best_loss_", "validation_scores_", "validation_loss_curve_",
    "best_validation_score_", "_no_improvement_count", "history_",
)  # fmt: skip
COURSE = (
    "seed", "solver", "learning_rate_init", "learning_rate", "step", "epoch", "best", "best_epoch",
)  # fmt: skip


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
    ((kind, inner),) = value.items()
    if kind == "float":
        return float(inner)
    if kind == "tuple":
        return tuple(reread(one) for one in inner)
    if kind != "dict":
        raise ValueError(f"it holds a value of the unknown kind {kind!r}")
    return {reread(key): reread(one) for key, one in inner}


def network(est: Any) -> Model:
    """The fitted network by itself, on the host."""
    layers = [plain(part) for part in est.coefs_]
    sizes = [part.shape[1] for part in layers]
    spec = spec_of(est, layers[0].shape[0], sizes[:-1], sizes[-1], est.loss_asked())
    classes = class_labels(est)
    flat = packed(CPU, spec, est.coefs_, est.intercepts_, own_dtype(layers[0]))
    one = classes is not None or est.n_outputs_ == 1
    return Model(spec, flat, CPU, Labels(classes, one), getattr(est, "history_", {}))


def class_labels(est: Any) -> np.ndarray | None:
    """The labels that one row has one of, as an array that a file can hold."""
    binarizer = getattr(est, "_label_binarizer", None)
    if binarizer is None or binarizer.y_type_.startswith("multilabel") or len(est.classes_) == 1:
        return None
    labels: np.ndarray = est.classes_
    return np.asarray(labels.tolist()) if labels.dtype.kind == "O" else labels


def objects(est: Any) -> bool:
    """Whether the labels are Python's objects, such as pandas's texts."""
    return bool(est.classes_.dtype.kind == "O")


def parts(est: Any) -> tuple[Model, dict[str, Any], dict[str, np.ndarray]]:
    """What the estimator's file holds."""
    parameters = est.get_params(deep=False) | {"callbacks": ()}
    section: dict[str, Any] = {
        "class": type(est).__name__,
        "parameters": {name: written(value, name) for name, value in parameters.items()},
        "fitted": {
            name: written(getattr(est, name), name) for name in FITTED if hasattr(est, name)
        },
        "names": list(getattr(est, "feature_names_in_", ())),
        "course": None,
    }
    binarizer, arrays = getattr(est, "_label_binarizer", None), {}
    if binarizer is not None:
        section["labels"] = {
            "type": binarizer.y_type_,
            "values": written(list(est.classes_), "classes_")
            if objects(est)
            else listed(est.classes_),
            "dtype": est.classes_.dtype.str,
            "sparse": binarizer.sparse_input_,
        }
    course = getattr(est, "_optimizer", None)
    if course is not None:
        section["course"] = {name: written(getattr(course, name), name) for name in COURSE}
        _, key, *rest = course.split.get_state(legacy=True)
        section["course"]["split"] = written(rest, "random_state")
        arrays["estimator.split"] = key
        for i, value in enumerate(course.memory):
            arrays[f"estimator.memory.{i}"] = to_host(value)
        if course.last is not None:
            arrays["estimator.last"] = to_host(course.last)
            arrays["estimator.kept"] = to_host(course.kept)
    return network(est), {SECTION: section}, arrays


def restored(cls: type, path: str | os.PathLike[str], device: str | None) -> Any:
    """The estimator that a file holds; ValueError with the path for anything else."""
    found = read(path)
    section = found.sections.get(SECTION)
    if section is None or section.get("class") != cls.__name__:
        held = "a network alone" if section is None else f"a {section.get('class')}"
        raise ValueError(f"{os.fspath(path)} holds {held}, not a {cls.__name__}: see xpmlp.load")
    place = CPU if device is None else place_for(device)
    try:
        return rebuilt(cls, found, section, place)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)} is not a whole model file: {error}") from None


def rebuilt(cls: Any, found: Contents, section: dict[str, Any], place: Place) -> Any:
    parameters = {name: reread(value) for name, value in section["parameters"].items()}
    est = cls(**parameters)
    est._validate_params()
    fitted = {name: reread(value) for name, value in section["fitted"].items()}
    if not set(fitted) <= set(FITTED):
        raise ValueError(f"it has the attributes {sorted(set(fitted) - set(FITTED))}")
    est.__dict__.update(fitted)
    names, spec = section["names"], found.model.spec
    if est.n_features_in_ != spec.n_in or len(names) not in (0, spec.n_in):
        raise ValueError(f"its columns do not fit its network {spec}")
    if names:
        est.feature_names_in_ = np.array(names, dtype=object)
    flat = to_place(place, found.model.flat)
    est.coefs_, est.intercepts_ = lists(windows(place.xp, spec, flat))
    if "labels" in section:
        est._label_binarizer = binarizer_of(section["labels"], spec.n_out)
        est.classes_ = est._label_binarizer.classes_
    if section["course"] is not None:
        est._optimizer = course_of(section["course"], found, padded_size(spec))
    return est


def binarizer_of(saved: dict[str, Any], outputs: int) -> LabelBinarizer:
    found = LabelBinarizer()
    values, dtype = saved["values"], saved["dtype"]
    whole = np.dtype(dtype).kind == "O"
    found.classes_ = np.array(reread(values), dtype=object) if whole else unlisted(values, dtype)
    found.y_type_, found.sparse_input_ = saved["type"], bool(saved["sparse"])
    count = len(found.classes_)
    if outputs != {"binary": 1, "multiclass": count, "multilabel-indicator": count}[found.y_type_]:
        raise ValueError(f"it has {count} classes for a network of {outputs} outputs")
    return found


def course_of(saved: dict[str, Any], found: Contents, size: int) -> Course:
    split, arrays = np.random.RandomState(), dict(found.arrays)
    split.set_state(("MT19937", arrays.pop("estimator.split"), *reread(saved["split"])))
    for name, value in arrays.items():
        if value.shape != (size,) or dtype_name(value) != dtype_name(found.model.flat):
            raise ValueError(f"its array {name!r} does not fit its network")
    memory = [arrays[name] for name in sorted(arrays) if name.startswith("estimator.memory.")]
    return Course(
        split=split,
        memory=tuple(memory),
        last=arrays.get("estimator.last"),
        kept=arrays.get("estimator.kept"),
        **{name: reread(saved[name]) for name in COURSE},
    )
