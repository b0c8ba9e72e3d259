"""y and sample weights as a user gives them, made into targets and row weights."""

from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np

from xpmlp.devices.namespace import is_array, place_of, to_host, to_place
from xpmlp.losses import Loss, loss
from xpmlp.shape_ledger import bad_target
from xpmlp.shapes import many
from xpmlp.spec import Spec
from xpmlp.training.checks import check_finite, numbers, unmasked
from xpmlp.types import Array, Namespace


class Labels(NamedTuple):
    """How y was given, so that predictions look like it."""

    classes: np.ndarray | None  # (C,) sorted labels, None for numbers
    flat: bool  # y was 1-D


def targets(value: Any, spec: Spec, name: str = "y", known: Labels | None = None) -> Any:
    """y as (target (N, n_out) on the host or where it lies, Labels)."""
    measure = loss(spec.loss)
    width = measure.targets(spec.n_out)
    if measure.labels != "none":
        encoded = from_labels(value, measure, width, name, known)
        if encoded is not None:
            return encoded
    y = numbers(value, name, (1, 2))
    flat = y.ndim == 1
    y = y[:, None] if flat else y
    if y.shape[1] != width:
        error = bad_target(spec, tuple(y.shape[:1] if flat else y.shape), ("B", spec.n_out), name)
        if flat and measure.labels == "none" and measure.scores_per_target == 1:
            error = type(error)(f"{error}\n  If {name} holds class labels: loss='cross_entropy'")
        raise error
    check_range(y, measure, name)
    return y, Labels(None, flat)


def from_labels(
    value: Any, measure: Loss, width: int, name: str, known: Labels | None
) -> tuple[Array, Labels] | None:
    """One label per row as one-hot or 0/1 columns; None where y holds target values instead."""
    value = unmasked(value, name)
    y = to_host(value) if is_array(value) else np.asarray(value, dtype=loosely(value))
    if y.ndim == 2 and y.shape[1] == 1 and (width > 1 or y.dtype.kind not in "f"):
        y = y[:, 0]
    if y.ndim != 1 or (measure.labels == "binary" and width > 1):
        return None
    if y.dtype.kind == "f":
        check_finite(y, name)
        if measure.labels == "binary" and not np.isin(y, (0, 1)).all() and in_unit(y):
            return None  # probabilities
    y = plain_labels(y, name)
    classes = known.classes if known and known.classes is not None else find_classes(y, measure)
    wanted = 2 if measure.labels == "binary" else width
    if len(classes) != wanted:
        raise ValueError(
            f"{name} has {many(len(np.unique(y)), 'class', 'es')} ({listed(np.unique(y))}), but "
            f"the network tells {wanted} apart"
        )
    index = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    strange = classes[index] != y
    if strange.any():
        raise ValueError(
            f"{name} has the label {y[strange][0]!r}, which is not a class: {listed(classes)}"
        )
    if measure.labels == "binary":
        return index[:, None].astype(np.float64), Labels(classes, True)
    return np.eye(wanted)[index], Labels(classes, True)


def loosely(value: Any) -> Any:
    """Lists are read as objects, so that ["a", None, 1] is seen as it was written."""
    return object if isinstance(value, list | tuple) else None


def is_missing(item: Any) -> bool:
    """None, NaN, NaT and pandas's NA: what is not equal to itself."""
    if item is None:
        return True
    same = item == item  # noqa: PLR0124
    return same is not True and not (isinstance(same, np.bool_) and bool(same))


def plain_labels(y: np.ndarray, name: str) -> np.ndarray:
    """Labels as strings, numbers, booleans or dates; a missing one is an error."""
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
    found = np.asarray(y.tolist())
    if all(type(item) in (date, datetime) and getattr(item, "tzinfo", None) is None for item in y):
        found = found.astype("datetime64")  # as a file holds them
    try:
        np.unique(found)
    except TypeError as error:
        raise ValueError(f"{name} must hold labels that can be sorted: {error}") from None
    return found


def find_classes(y: np.ndarray, measure: Loss) -> np.ndarray:
    """The sorted labels of y; for two classes a set of 0s alone still means 0 and 1."""
    classes = np.unique(y)
    if measure.labels == "binary" and len(classes) == 1 and y.dtype.kind in "biuf":
        return np.unique(np.concatenate([classes, np.array([0, 1], dtype=y.dtype)]))
    return classes


def listed(classes: np.ndarray) -> str:
    shown = ", ".join(map(str, classes[:6].tolist()))
    return shown + (", ..." if len(classes) > 6 else "")


def in_unit(y: np.ndarray) -> bool:
    return bool(((y >= 0) & (y <= 1)).all())


def check_range(y: Array, measure: Loss, name: str) -> None:
    """ValueError where a target lies outside what the loss is defined for."""
    host = to_host(y)
    if measure.labels != "none" and not in_unit(host):
        wrong = host[~((host >= 0) & (host <= 1))][0]
        raise ValueError(f"{name} must be labels or probabilities in [0, 1]; got {wrong:g}")
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
        weight = weight * by_class(class_weight, to_host(y), labels, weight)
    if not weight.max() > 0:
        both = name if class_weight is None else f"{name} times class_weight"
        raise ValueError(f"{both} must not be all zero")
    weight = weight / weight.max()  # the sum of large weights may overflow
    normalised: np.ndarray = weight / weight.mean()
    return normalised


def balanced(index: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What each row's class weighs, where all weigh the same: n / (classes * count).

    index: (N,) of the rows' classes. given: (N,) sample weights; a row of weight 2 is two rows.
    """
    counts = np.bincount(index, given / (given.max() or 1))  # a sum of large weights may overflow
    present = counts > 0
    share = counts * np.count_nonzero(present) / (counts.sum() or 1)
    found: np.ndarray = 1 / np.where(present, share, 1)[index]
    return found


def by_class(asked: Any, target: np.ndarray, labels: Labels, given: np.ndarray) -> np.ndarray:
    """Each row's class weight: of a dict {label: weight}, or "balanced" with the weights given."""
    if labels.classes is None:
        raise ValueError("class_weight needs class labels in y")
    index = target.argmax(axis=1) if target.shape[1] > 1 else target[:, 0].astype(int)
    if isinstance(asked, str) and asked == "balanced":
        return balanced(index, given)
    if isinstance(asked, dict):
        known = labels.classes.tolist()
        unknown = [label for label in asked if label not in known]
        if unknown:
            raise ValueError(f"class_weight names {unknown[0]!r}, which is not a class of y")
        try:
            factors = np.array([float(asked.get(label, 1.0)) for label in known])
        except (TypeError, ValueError):
            raise ValueError(f"class_weight must hold numbers; got {asked!r}") from None
        if not (np.isfinite(factors).all() and factors.min() >= 0):
            raise ValueError(f"class_weight must be at least 0 and finite; got {asked!r}")
    else:
        raise ValueError(f"class_weight must be 'balanced' or a dict; got {asked!r}")
    weights: np.ndarray = factors[index]
    return weights


def both(xp: Namespace, p: Array) -> Array:
    """Probabilities (..., C) of the classes: where one neuron has the second's, of two."""
    return xp.concat([1 - p, p], axis=-1) if p.shape[-1] == 1 else p


def likeliest(xp: Namespace, p: Array) -> Array:
    """Which class (...) is the most probable, of probabilities (..., C), or (..., 1) for two."""
    return xp.astype(p[..., 0] > 0.5, xp.int64) if p.shape[-1] == 1 else xp.argmax(p, axis=-1)


def decode(caller: Any, linked: Array, classes: np.ndarray) -> Array:
    """The label (..., N) of each row of probabilities (..., N, C), or (..., N, 1) for two.

    Numeric labels come in the caller's namespace, others (which only NumPy holds) in NumPy's.
    """
    found: np.ndarray = classes[likeliest(np, to_host(linked))]
    return to_place(place_of(caller), found) if classes.dtype.kind in "biuf" else found
