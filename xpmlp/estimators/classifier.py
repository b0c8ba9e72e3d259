"""`MLPClassifier`: that of scikit-learn with more parameters."""

from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
    unique_labels,
)
from sklearn.utils.validation import check_is_fitted

from xpmlp.devices.namespace import place_of, running, to_host, to_place
from xpmlp.estimators.base import MLPBase, restore_on_error
from xpmlp.estimators.classes import binarize, check_class_weight, class_row_weights, is_multilabel
from xpmlp.estimators.inference import predict_rows
from xpmlp.estimators.inputs import (
    name_errors,
    read_labels,
    read_targets,
    read_weight,
    to_host_array,
)
from xpmlp.estimators.parameters import CONSTRAINTS, HINTS, shared_doc
from xpmlp.estimators.sklearn_base import ClassifierMixin, fit_context, stochastic_only
from xpmlp.names import with_hints
from xpmlp.training.labels import class_probabilities, most_probable_class
from xpmlp.types import Array, Namespace


class MLPClassifier(ClassifierMixin, MLPBase):
    __doc__ = f"""A multi-layer perceptron for classification, with one or several labels per row.

    scikit-learn's `MLPClassifier` with the same parameters, defaults, attributes and behaviour,
    and with parameters that it lacks (from `dropout` on).

    Parameters
    ----------
    {shared_doc("the accuracy")}
    class_weight : dict, list of dicts, 'balanced' or None, default=None
        What the classes weigh, {{label: weight}}; 'balanced' is n_samples / (classes * count).
        A list of {{0: weight, 1: weight}} is for several labels per row.
        Rows then weigh the same in every batch, so that the gradient is unbiased, where
        scikit-learn's sample weights are normalised within each batch.

    Attributes
    ----------
    classes_ : (n_classes,) labels
    coefs_ : list of weights (n_in, n_out) per layer; may be changed and assigned
    intercepts_ : list of biases (n_out,) per layer; likewise
    loss_ : loss of the last epoch
    loss_curve_ : loss of every epoch
    best_loss_ : the lowest of them, or None with `early_stopping`
    validation_scores_, validation_loss_curve_ : of every epoch with held-out rows, or None
    best_validation_score_ : the highest of them, or None
    history_ : dict of lists, everything measured per epoch
    n_iter_ : epochs of the last `fit`
    t_ : rows seen
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_ : as scikit-learn's

    References
    ----------
    Kingma & Ba 2015, "Adam"; Glorot & Bengio 2010, "Understanding the difficulty of training
    deep feedforward neural networks"; Srivastava et al. 2014, "Dropout".

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from xpmlp import MLPClassifier
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> clf = MLPClassifier(max_iter=300, random_state=1, dropout=0.1).fit(X[:75], y[:75])
    >>> clf.predict_proba(X[75:76]).shape
    (1, 2)
    >>> bool(clf.score(X[75:], y[75:]) > 0.7)
    True
    """

    _parameter_constraints = CONSTRAINTS | {
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }
    loss = "log_loss"
    class_weight: Any
    classes_: np.ndarray
    _label_binarizer: Any  # scikit-learn's name

    @with_hints(HINTS)
    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        class_weight: Any = None,
        schedule: Any = None,
        weight_decay: float | None = None,
        clip: float | None = None,
        scoring: Any = None,
        callbacks: Any = (),
        continuation: str = "exact",
        device: str | None = None,
        dtype: str | None = None,
        precision: str = "full",
        n_threads: int | None = None,
        output: str | None = None,
        checkpoint: Any = None,
        resume: bool = False,
    ) -> None:
        self._store_arguments(locals())

    # labels and targets

    def _resolve_loss(self) -> str:
        multiclass = self._label_binarizer.y_type_ == "multiclass"
        return "cross_entropy" if multiclass else "binary_cross_entropy"

    def _learn_labels(self, y: np.ndarray, *, reset: bool) -> None:
        if reset or not hasattr(self, "classes_"):
            self._check_labels(y)
            with name_errors("y", y):
                self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        elif self.warm_start and set(classes := unique_labels(y)) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )

    def _check_labels(self, y: Any) -> None:
        with name_errors("y", y):
            check_classification_targets(y)

    def _targets(self, y: Any) -> np.ndarray:
        return binarize(self._label_binarizer, y)

    def _row_weights(self, sample_weight: np.ndarray | None, y: Any) -> np.ndarray | None:
        if self.class_weight is None:
            return sample_weight
        check_class_weight(self.class_weight, self._label_binarizer)
        return class_row_weights(self.class_weight, self.classes_, y, sample_weight)

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return target if target.shape[1] == 1 else None

    # scikit-learn's methods

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Learn from rows X and their labels y.

        Parameters
        ----------
        X : (n_samples, n_features) array of any namespace, frame, or sparse matrix
        y : (n_samples,) labels of any kind, or (n_samples, n_classes) of 0 and 1 for several
            labels per row
        sample_weight : (n_samples,) at least 0, default=None
        X_val, y_val, sample_weight_val : held-out rows, measured after every epoch; the weights
            that do best on them are restored at the end

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), single_epoch=False)

    @stochastic_only
    @fit_context
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """One more epoch over X and y: five calls are `fit` with max_iter=5, bit for bit.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val : as for `fit`
        classes : all the labels there will ever be; needed at the first call

        Returns
        -------
        self
        """
        labels = read_labels(to_host_array(y), "y")
        if classes is not None:
            classes = read_labels(to_host_array(classes), "classes")
        val_set = (X_val, y_val, sample_weight_val)
        with restore_on_error(self):
            with name_errors("classes", classes):
                first = _check_partial_fit_first_call(self, classes)
            if first:
                with name_errors("y", labels):
                    multilabel = type_of_target(labels).startswith("multilabel")
                with name_errors("classes", classes):
                    self._label_binarizer = LabelBinarizer().fit(labels if multilabel else classes)
            return self._fit(X, labels, sample_weight, val_set, single_epoch=True)

    def predict(self, X: Any) -> Array:
        """The most probable label of each row, or a 0 or 1 for each of several.

        Parameters
        ----------
        X : (n_samples, n_features)

        Returns
        -------
        (n_samples,) labels, or (n_samples, n_classes) of 0 and 1
        """
        check_is_fitted(self)
        multilabel = is_multilabel(self._label_binarizer)

        def decide(xp: Namespace, p: Array) -> Array:
            if multilabel:
                return xp.astype(p > 0.5, xp.int64)
            return most_probable_class(xp, p)[:, None]

        out = predict_rows(self, X, decide)
        if multilabel:
            return csr_matrix(to_host(out)) if self._label_binarizer.sparse_input_ else out
        place, index = place_of(out), out[:, 0]
        classes = np.repeat(self.classes_, 2) if len(self.classes_) == 1 else self.classes_
        if classes.dtype.kind in "biuf":
            with running(place):
                return place.xp.take(to_place(place, classes), index, axis=0)
        labels: np.ndarray = classes[to_host(index)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, in the order of `classes_`.

        Parameters
        ----------
        X : (n_samples, n_features)

        Returns
        -------
        (n_samples, n_classes); of several labels per row each on its own
        """
        check_is_fitted(self)
        return predict_rows(self, X, class_probabilities)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`.

        Parameters
        ----------
        X : (n_samples, n_features)

        Returns
        -------
        (n_samples, n_classes)
        """
        proba = self.predict_proba(X)
        place = place_of(proba)
        with running(place):
            return place.xp.log(proba)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of rows whose label, or set of labels, is predicted correctly.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        float
        """
        predicted = to_host_array(self.predict(X))
        truth = read_targets(self, y, predicted.shape[0])
        weight = read_weight(sample_weight, predicted.shape[0])
        with name_errors("y", truth):
            return float(accuracy_score(truth, predicted, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
