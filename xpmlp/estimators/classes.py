"""Labels as targets, and class weights."""

from numbers import Real
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from xpmlp.estimators.inputs import check_weight_range
from xpmlp.training.labels import balanced_weights


def binarize(binarizer: LabelBinarizer, y: Any) -> np.ndarray:
    """y as booleans (N, n_outputs): one column for two classes, else one for each class.

    Raises ValueError for a label that the binarizer has not seen.
    """
    classes, kind = binarizer.classes_, binarizer.y_type_
    index = class_indices(classes, y) if y.ndim == 1 and not is_multilabel(binarizer) else None
    if index is not None:
        marks = np.arange(len(classes)) if kind == "multiclass" else np.ones(1, dtype=int)
        one_hot: np.ndarray = index[:, None] == marks
        return one_hot
    labels = unique_labels(y)
    if len(np.setdiff1d(labels, classes)):
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. "
            f"'y' has {labels}."
        )
    columns = binarizer.transform(y)
    dense: np.ndarray = columns.toarray() if hasattr(columns, "toarray") else columns
    return dense.astype(bool)


def is_multilabel(binarizer: LabelBinarizer) -> bool:
    return bool(binarizer.y_type_.startswith("multilabel"))


def class_labels(est: Any) -> np.ndarray | None:
    """The labels of a classifier with one label per row, as `train` has them."""
    binarizer = getattr(est, "_label_binarizer", None)
    if binarizer is None or is_multilabel(binarizer) or len(est.classes_) == 1:
        return None
    labels: np.ndarray = est.classes_
    return np.asarray(labels.tolist()) if labels.dtype.kind == "O" else labels


def class_indices(classes: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """The index of each label in the sorted classes; None where one is not in them."""
    try:
        index: np.ndarray = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    except TypeError:  # numbers among strings
        return None
    return index if np.all(classes[index] == y) else None


def check_class_weight(class_weight: Any, binarizer: LabelBinarizer) -> None:
    """ValueError for a `class_weight` that does not fit the labels."""
    if is_multilabel(binarizer):
        if isinstance(class_weight, dict):
            raise ValueError(
                "class_weight of several labels per row must be 'balanced' or a list of dicts "
                f"{{0: weight, 1: weight}}, one for each label; got {class_weight}"
            )
    elif isinstance(class_weight, list):
        raise ValueError(
            "class_weight must be a dict {label: weight} or 'balanced': a list is for several "
            f"labels per row; got {class_weight}"
        )
    elif isinstance(class_weight, dict):
        for label, weight in class_weight.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < np.inf:
                raise ValueError(
                    f"class_weight must hold numbers of at least 0; got {weight!r} for {label!r}"
                )
            if label not in binarizer.classes_:
                raise ValueError(
                    f"class_weight names {label!r}, which is not a class of y: {binarizer.classes_}"
                )


def class_row_weights(
    class_weight: Any, classes: np.ndarray, y: Any, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Row weights (N,): class weights times sample weights."""
    if isinstance(class_weight, str) and y.ndim == 1:
        rows = np.ones(len(y)) if sample_weight is None else sample_weight
        weight = balanced_weights(np.searchsorted(classes, y), rows)
    else:
        weight = compute_sample_weight(class_weight, y)
    weight = weight if sample_weight is None else weight * sample_weight
    if not weight.any():
        raise ValueError("class_weight and sample_weight must not be zero for all rows")
    check_weight_range(weight, "class_weight and sample_weight")
    weights: np.ndarray = weight
    return weights
