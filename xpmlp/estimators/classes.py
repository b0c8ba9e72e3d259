"""Labels as targets, and what the classes weigh."""

from numbers import Real
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from xpmlp.estimators.inputs import check_sizes
from xpmlp.training.labels import balanced_weights


def encoded(binarizer: LabelBinarizer, y: Any) -> np.ndarray:
    """y as truths (N, n_outputs): one column for two classes, one for each of several.

    Raises ValueError for a label that the binarizer has not seen.
    """
    classes, kind = binarizer.classes_, binarizer.y_type_
    index = positions(classes, y) if y.ndim == 1 and not is_multilabel(binarizer) else None
    if index is not None:
        marks = np.arange(len(classes)) if kind == "multiclass" else np.ones(1, dtype=int)
        found: np.ndarray = index[:, None] == marks
        return found
    given = unique_labels(y)
    if len(np.setdiff1d(given, classes)):
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. "
            f"'y' has {given}."
        )
    columns = binarizer.transform(y)
    dense: np.ndarray = columns.toarray() if hasattr(columns, "toarray") else columns
    return dense.astype(bool)


def is_multilabel(binarizer: LabelBinarizer) -> bool:
    return bool(binarizer.y_type_.startswith("multilabel"))


def positions(classes: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Where each label stands among the sorted classes; None where one is not among them."""
    try:
        index: np.ndarray = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    except TypeError:  # numbers among texts
        return None
    return index if np.all(classes[index] == y) else None


def check_class_weight(asked: Any, binarizer: LabelBinarizer) -> None:
    """ValueError for a `class_weight` that does not go with the labels."""
    if is_multilabel(binarizer):
        if isinstance(asked, dict):
            raise ValueError(
                "class_weight of several labels per row must be 'balanced' or a list of dicts "
                f"{{0: weight, 1: weight}}, one for each label; got {asked}"
            )
    elif isinstance(asked, list):
        raise ValueError(
            "class_weight must be a dict {label: weight} or 'balanced': a list is for several "
            f"labels per row; got {asked}"
        )
    elif isinstance(asked, dict):
        for label, weight in asked.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
                raise ValueError(
                    f"class_weight must hold numbers of at least 0; got {weight!r} for {label!r}"
                )
            if label not in binarizer.classes_:
                raise ValueError(
                    f"class_weight names {label!r}, which is no class of y: {binarizer.classes_}"
                )


def weighted(asked: Any, classes: np.ndarray, y: Any, given: np.ndarray | None) -> np.ndarray:
    """What the rows weigh (N,): their classes' weight times the sample weights given."""
    if isinstance(asked, str) and y.ndim == 1:
        rows = np.ones(len(y)) if given is None else given
        weight = balanced_weights(np.searchsorted(classes, y), rows)
    else:
        weight = compute_sample_weight(asked, y)
    weight = weight if given is None else weight * given
    if not weight.any():
        raise ValueError("class_weight and sample_weight must not be zero for all rows")
    check_sizes(weight, "class_weight and sample_weight")
    found: np.ndarray = weight
    return found
