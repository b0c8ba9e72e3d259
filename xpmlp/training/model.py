"""A trained network: predict, look inside, save."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xpmlp.devices.namespace import CPU, Place, dtype_name, like_caller, place_of, running, to_host
from xpmlp.layout import windows
from xpmlp.losses import gaussian_parts, loss
from xpmlp.spec import Spec
from xpmlp.training.data import StreamedRows, check_rows
from xpmlp.training.inference import link_for, require_finite, scores
from xpmlp.training.labels import Labels, class_probabilities, decode
from xpmlp.types import Array


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, or a population of K with a leading axis on everything it returns.

    `train` and `load` give one. Nothing in it changes by itself, so threads may predict at the same
    time.

    Attributes
    ----------
    spec : Spec
    params
    flat : array of shape (..., P)
        All parameters in one buffer, padding included, of which params are views.
    classes_
    members
    history : dict of lists
        What was measured after every epoch: a Report's loss, learning_rate, grad_norm, val_loss,
        val_score, best_epoch, seconds, executor, restored and metrics, arrays (K,) for a
        population.

    Examples
    --------
    >>> import xpmlp
    >>> model = xpmlp.train("1-2", [[0.0], [1.0]], ["no", "yes"], loss="cross_entropy", epochs=200,
    ...                     learning_rate=0.1)
    >>> model.predict([[0.9]])
    array(['yes'], dtype='<U3')
    >>> model.params[0].weights.shape
    (1, 2)
    """

    spec: Spec
    flat: Array = field(repr=False)
    place: Place = field(repr=False)
    _labels: Labels = field(repr=False)
    history: dict[str, list[Any]] = field(repr=False, default_factory=dict)

    @cached_property
    def params(self) -> tuple[Any, ...]:
        """Per layer its blocks, of a dense one (weights (..., n_in, n_out), bias (..., 1, n_out)):
        views, not copies."""
        return windows(self.place.xp, self.spec, self.flat)

    @property
    def classes_(self) -> Any:
        """The sorted labels (C,), or None where y held numbers."""
        return self._labels.classes

    @property
    def members(self) -> int | None:
        """How many networks there are in the population; None for a single one."""
        return None if self.flat.ndim == 1 else int(self.flat.shape[0])

    def member(self, k: int) -> "Model":
        """Network k of a population as a model of its own.

        Parameters
        ----------
        k : int in [-K, K)

        Returns
        -------
        Model

        Raises
        ------
        IndexError
            Where there is no such member.

        Examples
        --------
        >>> import xpmlp
        >>> both = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], members=2, epochs=1)
        >>> both.predict([[0.5]]).shape, both.member(0).predict([[0.5]]).shape
        ((2, 1), (1,))
        """
        if self.members is None or not -self.members <= k < self.members:
            raise IndexError(f"there is no member {k} among {self.members or 'no'} members")
        history = {
            name: [entry[k].item() if hasattr(entry, "shape") else entry for entry in entries]
            for name, entries in self.history.items()
        }
        return snapshot(self.spec, self.place, self.flat[k, :], self._labels, history)

    def scores(self, X: Any) -> Array:
        """What the last layer computes, before the link of the loss.

        Parameters
        ----------
        X : array of shape (N, n_in)
            As for `predict`.

        Returns
        -------
        array of shape (..., N, n_out)

        Raises
        ------
        ValueError
            As for `predict`.
        """
        return self._linked(X, lambda xp, score: score)

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array of shape (N, n_in)
            As for `predict`.

        Returns
        -------
        array of shape (..., N, C)
            In the order of `classes_`. Where y held no labels, the predictions (..., N, n_out).

        Raises
        ------
        ValueError
            As for `predict`.
        """
        prediction = self._linked(X, loss(self.spec.loss).link)
        if self.classes_ is None:
            return prediction
        place = place_of(prediction)
        with running(place):
            return class_probabilities(place.xp, prediction)

    def predict(self, X: Any, *, return_std: bool = False) -> Array:
        """Labels, or numbers as y had them.

        Parameters
        ----------
        X : array of shape (N, n_in)
            Finite numbers: NumPy, CuPy, PyTorch, lists.
        return_std : bool, default=False
            Whether to give the standard deviations too, of loss "gaussian" alone.

        Returns
        -------
        array of shape (..., N) or (..., N, n_out), or with `return_std` a pair of them
            In X's namespace and on its device, but for labels that are no numbers.

        Raises
        ------
        ValueError
            Naming the first row that is not finite, or whose prediction is not; ShapeError where X
            has another number of columns. For `return_std` with another loss.
        """
        link = link_for(self.spec.loss, loss(self.spec.loss).link, return_std=return_std)
        linked = self._linked(X, link)
        if self.classes_ is not None:
            return decode(X, linked, self.classes_)
        if return_std:
            return tuple(map(self._as_y, gaussian_parts(self.place.xp, linked)))
        return self._as_y(linked)

    def _as_y(self, prediction: Array) -> Array:
        """Predictions (..., N, n) in the form that y had."""
        return prediction[..., 0] if self._labels.flat and prediction.shape[-1] == 1 else prediction

    def _linked(self, X: Any, link: Callable[..., Array]) -> Array:
        """Linked scores of X in the caller's namespace."""
        xp = self.place.xp
        x = StreamedRows(self.place, check_rows(X, self.spec), dtype_name(self.flat))
        with running(self.place):
            prediction = scores(xp, self.spec, self.params, x, require_finite(xp, link))
            return like_caller(X, prediction, self.place)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy keep: arrays of the host, so that a GPU is not needed to load."""
        kept = {name: value for name, value in self.__dict__.items() if name != "params"}
        return kept | {"flat": to_host(self.flat), "place": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"place": CPU})

    def _parts(self) -> tuple["Model", dict[str, Any], dict[str, Any]]:
        """What a model file holds: the network, and nothing around it."""
        return self, {}, {}

    def save(self, path: Any) -> None:
        """Write the model to one safetensors file.

        Parameters
        ----------
        path : path
            As for `xpmlp.save`, which names the errors.
        """
        import xpmlp

        xpmlp.save(self, path)


def snapshot(
    spec: Spec, place: Place, flat: Array, labels: Labels, history: dict[str, list[Any]]
) -> Model:
    """A model with copies of everything that training may change later."""
    with running(place):
        copied = place.xp.asarray(flat, copy=True)
    return Model(spec, copied, place, labels, {name: list(v) for name, v in history.items()})
