"""Targets and row weights from the y and sample weights that a user passes."""

from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.namespace import is_array, place_of, to_host, to_place
from xpmlp.losses import Loss, loss
from xpmlp.shape_ledger import bad_target
from xpmlp.shapes import many
from xpmlp.spec import Spec
from xpmlp.training.checks import check_finite, numbers, remove_mask
from xpmlp.types import Array, Namespace


class Labels(NamedTuple):
    """The form of y, which predictions take too."""

    classes: np.ndarray | None  # (C,) sorted labels; None for numbers
    flat: bool  # whether y was 1-D


def targets(value: Any, spec: Spec, name: str = "y", known_labels: Labels | None = None) -> Any:
    """y as (target (N, n_out) on the host or its own device, Labels)."""
    measure = loss(spec.loss)
    width = 1 if measure.levels else spec.n_out
    if measure.labels != "none":
        encoded = encode_labels(value, measure, width, name, known_labels)
        if encoded is not None:
            return encoded
    y = numbers(value, name, (1, 2))
    flat = y.ndim == 1
    y = y[:, None] if flat else y
    if y.shape[1] != width:
        error = bad_target(spec, tuple(y.shape[:1] if flat else y.shape), ("B", spec.n_out), name)
        if flat and measure.labels == "none" and not measure.levels:
            error = type(error)(f"{error}\n  If {name} holds class labels: loss='cross_entropy'")
        raise error
    check_range(y, measure, name)
    return y, Labels(None, flat)


def encode_labels(
    value: Any, measure: Loss, width: int, name: str, known_labels: Labels | None
) -> tuple[Array, Labels] | None:
    """One label per row as one-hot or 0/1 columns; None where y holds target values."""
    value = remove_mask(value, name)
    y = to_host(value) if is_array(value) else np.asarray(value, dtype=list_dtype(value))
    if y.ndim == 2 and y.shape[1] == 1 and (width > 1 or y.dtype.kind not in "f"):
        y = y[:, 0]
    if y.ndim != 1 or (measure.labels == "binary" and width > 1):
        return None
    if y.dtype.kind == "f":
        check_finite(y, name)
        if measure.labels == "binary" and not np.isin(y, (0, 1)).all() and in_unit_interval(y):
            return None  # probabilities
    y = plain_labels(y, name)
    classes = known_labels.classes if known_labels else None
    classes = find_classes(y, measure) if classes is None else classes
    n_classes = 2 if measure.labels == "binary" else width
    if len(classes) != n_classes:
        raise ValueError(
            f"{name} has {many(len(np.unique(y)), 'class', 'es')} "
            f"({format_classes(np.unique(y))}), but the network distinguishes {n_classes}"
        )
    index = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    unknown = classes[index] != y
    if unknown.any():
        raise ValueError(
            f"{name} has the label {y[unknown][0]!r}, which is not a class: "
            f"{format_classes(classes)}"
        )
    if measure.labels == "binary":
        return index[:, None].astype(np.float64), Labels(classes, True)
    return np.eye(n_classes)[index], Labels(classes, True)


def list_dtype(value: Any) -> Any:
    """The dtype to read labels in: object for a list, so that ["a", None, 1] keeps its items."""
    return object if isinstance(value, list | tuple) else None


def is_missing(item: Any) -> bool:
    """Whether a label is None, NaN, NaT or pandas's NA, which are not equal to themselves."""
    if item is None:
        return True
    same = item == item  # noqa: PLR0124
    return same is not True and not (isinstance(same, np.bool_) and bool(same))


def plain_labels(y: np.ndarray, name: str) -> np.ndarray:
    """Labels as strings, numbers, booleans or dates; ValueError where one is missing."""
    if y.dtype.kind == "c":
        raise ValueError(f"{name} must hold labels or real numbers; got dtype {y.dtype}")
    if y.dtype.kind not in "OMm":
        return y
    missing = [i for i, item in enumerate(y) if is_missing(item)]
    if missing:
        raise ValueError(
            f"{name} has {many(len(missing), 'missing label')}, the first "
            f"{y[missing[0]]!r} at row {missing[0]}"
        )
    if y.dtype.kind != "O":
        return y
    if len({isinstance(item, str) for item in y}) > 1:
        raise ValueError(f"{name} mixes strings and other labels")
    labels = np.asarray(y.tolist())
    if all(type(item) in (date, datetime) and getattr(item, "tzinfo", None) is None for item in y):
        labels = labels.astype("datetime64")  # as a model file stores them
    try:
        np.unique(labels)
    except TypeError as error:
        raise ValueError(f"{name} must hold labels that can be sorted: {error}") from None
    return labels


def find_classes(y: np.ndarray, measure: Loss) -> np.ndarray:
    """The sorted labels of y; for a binary loss, numbers of a single class stand for 0 and 1."""
    classes = np.unique(y)
    if measure.labels == "binary" and len(classes) == 1 and y.dtype.kind in "biuf":
        return np.unique(np.concatenate([classes, np.array([0, 1], dtype=y.dtype)]))
    return classes


def format_classes(classes: np.ndarray) -> str:
    text = ", ".join(map(str, classes[:6].tolist()))
    return text + (", ..." if len(classes) > 6 else "")


def in_unit_interval(y: np.ndarray) -> bool:
    return bool(((y >= 0) & (y <= 1)).all())


def check_range(y: Array, measure: Loss, name: str) -> None:
    """ValueError where a target is outside of the domain of the loss."""
    host = to_host(y)
    if measure.labels != "none" and not in_unit_interval(host):
        outlier = host[~((host >= 0) & (host <= 1))][0]
        raise ValueError(f"{name} must be labels or probabilities in [0, 1]; got {outlier:g}")
    if measure.labels == "classes" and not np.allclose(host.sum(axis=1), 1, atol=1e-4):
        row = int(np.argmax(np.abs(host.sum(axis=1) - 1)))
        raise ValueError(f"{name}'s rows must sum to 1; row {row} sums to {host[row].sum():g}")
    if measure.name == "poisson" and host.min() < 0:
        raise ValueError(f"{name} must be counts of at least 0 for poisson; got {host.min():g}")


def sample_weights(
    value: Any, count: int, y: Array, labels: Labels, class_weight: Any, name: str
) -> np.ndarray:
    """Sample weights times class weights, (N,) float64, divided by their mean."""
    weight = np.ones(count)
    if value is not None:
        weight = to_host(numbers(value, name, (1,))).astype(np.float64)
        if len(weight) != count:
            raise ValueError(f"{name} has {len(weight)} entries for {count} rows")
        if weight.min() < 0:
            raise ValueError(f"{name} must be at least 0; row {weight.argmin()} has {weight.min()}")
    if class_weight is not None:
        weight = weight * row_class_weights(class_weight, to_host(y), labels, weight)
    if not weight.max() > 0:
        subject = name if class_weight is None else f"{name} times class_weight"
        raise ValueError(f"{subject} must not be all zero")
    weight = weight / weight.max()  # the sum of large weights may overflow
    normalised: np.ndarray = weight / weight.mean()
    return normalised


def balanced_weights(index: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
    """The class weight of each row (N,) that balances the classes: n / (classes * count).

    index: (N,) of the rows' classes. sample_weight: (N,); a row of weight 2 counts as two.
    """
    scaled = sample_weight / (sample_weight.max() or 1)  # a sum of large weights may overflow
    counts = np.bincount(index, scaled)
    present = counts > 0
    share = counts * np.count_nonzero(present) / (counts.sum() or 1)
    weights: np.ndarray = 1 / np.where(present, share, 1)[index]
    return weights


def row_class_weights(
    class_weight: Any, target: np.ndarray, labels: Labels, sample_weight: np.ndarray
) -> np.ndarray:
    """The class weight of each row (N,), from a dict {label: weight} or "balanced"."""
    if labels.classes is None:
        raise ValueError("class_weight needs class labels in y")
    index = target.argmax(axis=1) if target.shape[1] > 1 else target[:, 0].astype(int)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return balanced_weights(index, sample_weight)
    if isinstance(class_weight, dict):
        classes = labels.classes.tolist()
        unknown = [label for label in class_weight if label not in classes]
        if unknown:
            raise ValueError(f"class_weight names {unknown[0]!r}, which is not a class of y")
        try:
            factors = np.array([float(class_weight.get(label, 1.0)) for label in classes])
        except (TypeError, ValueError):
            raise ValueError(f"class_weight must hold numbers; got {class_weight!r}") from None
        if not (np.isfinite(factors).all() and factors.min() >= 0):
            raise ValueError(f"class_weight must be at least 0 and finite; got {class_weight!r}")
    else:
        raise ValueError(f"class_weight must be 'balanced' or a dict; got {class_weight!r}")
    weights: np.ndarray = factors[index]
    return weights


def class_probabilities(xp: Namespace, p: Array) -> Array:
    """Probabilities (..., C) of the classes; one neuron has that of the second of two classes."""
    return xp.concat([1 - p, p], axis=-1) if p.shape[-1] == 1 else p


def most_probable_class(xp: Namespace, p: Array) -> Array:
    """The index (...) of the most probable class, from (..., C), or (..., 1) for two classes."""
    return xp.astype(p[..., 0] > 0.5, xp.int64) if p.shape[-1] == 1 else xp.argmax(p, axis=-1)


def decode(caller: Any, linked: Array, classes: np.ndarray) -> Array:
    """The label (..., N) of each row of probabilities (..., N, C), or (..., N, 1) for two.

    Numeric labels are arrays of the caller's namespace, others of NumPy, which alone holds them.
    """
    labels: np.ndarray = classes[most_probable_class(np, to_host(linked))]
    return to_place(place_of(caller), labels) if classes.dtype.kind in "biuf" else labels
