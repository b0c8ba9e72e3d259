"""Initial weights, drawn on the host from Philox so that they are the same bits everywhere.

An initializer is a function (generator, n_in, n_out) -> (n_in, n_out) float64.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpmlp.layout import padded_size, views
from xpmlp.names import lookup, positive, public_dir, title
from xpmlp.random import Stream, generator
from xpmlp.spec import Spec

__all__ = [
    "INITIALIZERS", "Initializer", "gaussian", "initial", "initial_population",
    "initializer", "normal", "orthogonal", "uniform", "zeros",
]  # fmt: skip
__dir__ = public_dir(__all__)

Initializer = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(scale: float = 1.0) -> Initializer:
    """N(0, scale**2), whatever the sizes.

    Parameters
    ----------
    scale : float above 0

    Examples
    --------
    >>> normal(0.1)(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    positive(scale=scale)
    return lambda rng, n_in, n_out: scale * rng.standard_normal((n_in, n_out))


def deviation(gain: float, n_in: float, n_out: float) -> float:
    return float(np.sqrt(gain / (n_in + n_out)))


def gaussian(gain: float, per_in: float, per_out: float) -> Initializer:
    """Normal with variance gain / (per_in * n_in + per_out * n_out).

    Parameters
    ----------
    gain, per_in, per_out : float
        2, 1, 1 for "glorot_normal"; 2, 1, 0 for "he_normal"; 1, 1, 0 for "lecun_normal".

    References
    ----------
    Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks"; He et al. 2015, "Delving deep into rectifiers: Surpassing human-level performance on
    ImageNet classification"; LeCun et al. 1998, "Efficient backprop"

    Examples
    --------
    >>> float(gaussian(2, 1, 0)(np.random.default_rng(0), 200, 200).std().round(2))
    0.1
    """

    def draw(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
        return deviation(gain, per_in * n_in, per_out * n_out) * rng.standard_normal((n_in, n_out))

    return draw


def uniform(gain: float, per_in: float, per_out: float) -> Initializer:
    """Uniform with variance gain / (per_in * n_in + per_out * n_out), around 0.

    Parameters
    ----------
    gain, per_in, per_out : float
        2, 1, 1 for "glorot_uniform"; 2, 1, 0 for "he_uniform"; 1, 1, 0 for "lecun_uniform" (see
        `gaussian` for the papers).

    Examples
    --------
    >>> float(uniform(2, 1, 0)(np.random.default_rng(0), 200, 200).std().round(2))
    0.1
    """

    def draw(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
        bound = np.sqrt(3.0) * deviation(gain, per_in * n_in, per_out * n_out)
        return rng.uniform(-bound, bound, (n_in, n_out))

    return draw


def orthogonal(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer, uniform among all such.

    References
    ----------
    Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks"; Mezzadri 2007, "How to generate random matrices from the classical
    compact groups"

    Examples
    --------
    >>> weights = orthogonal(np.random.default_rng(0), 3, 2)
    >>> bool(np.allclose(weights.T @ weights, np.eye(2)))
    True
    """
    tall = rng.standard_normal((max(n_in, n_out), min(n_in, n_out)))
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if n_in >= n_out else q.T


def zeros(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    """All 0.

    Examples
    --------
    >>> zeros(np.random.default_rng(0), 1, 2)
    array([[0., 0.]])
    """
    return np.zeros((n_in, n_out))


INITIALIZERS = {
    "normal": normal,
    "glorot_uniform": lambda: uniform(2, 1, 1),  # Glorot & Bengio 2010
    "glorot_normal": lambda: gaussian(2, 1, 1),
    "he_uniform": lambda: uniform(2, 1, 0),  # He et al. 2015
    "he_normal": lambda: gaussian(2, 1, 0),
    "lecun_uniform": lambda: uniform(1, 1, 0),  # LeCun et al. 1998
    "lecun_normal": lambda: gaussian(1, 1, 0),
    "orthogonal": lambda: orthogonal,
    "zeros": lambda: zeros,
}

SUITED = dict.fromkeys(("relu", "leaky_relu", "elu", "gelu", "silu", "mish"), "he_uniform")
SUITED["selu"] = "lecun_normal"


def default_initializer(activation: object) -> str:
    """The initializer for a layer with this activation: He's for relu and its kin, LeCun's for
    selu, else Glorot's."""
    return SUITED.get(title(activation).partition(":")[0], "glorot_uniform")


def initializer(choice: str | Initializer, activation: object) -> Initializer:
    """The initializer of a choice.

    Parameters
    ----------
    choice : str or function (generator, n_in, n_out) -> (n_in, n_out)
        A name with its arguments after a colon, such as "normal:0.1"; "auto" is He's for relu and
        its kin, LeCun's for selu, else Glorot's.
    activation : str, Activation or function
        Of the layer, for "auto".

    Returns
    -------
    function (generator, n_in, n_out) -> array of shape (n_in, n_out), float64

    Raises
    ------
    ValueError
        For an unknown name or argument, naming those that are known.

    Examples
    --------
    >>> initializer("auto", "relu")(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    if callable(choice):
        return choice
    if not isinstance(choice, str):
        raise ValueError(f"initializer must be a name or a function; got {choice!r}")
    entry: Initializer = lookup(
        "initializer", INITIALIZERS, default_initializer(activation) if choice == "auto" else choice
    )
    return entry


def spread_bias(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    """Uniform within 1 / sqrt(n_in): the kinks of a hidden layer lie apart.

    At zero bias every kink of a network with one input lies at 0, and x**2 becomes |x|.
    """
    bound = 1 / np.sqrt(n_in)
    return rng.uniform(-bound, bound, (1, n_out))


def zero_bias(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    return np.zeros((1, n_out))


def initial(spec: Spec, seed: int, choice: str | Initializer = "auto") -> np.ndarray:
    """The initial flat buffer: drawn weights, zero padding.

    Biases are zero, as the papers of the named initializers have them; "auto" spreads those of
    the hidden layers.

    Parameters
    ----------
    spec : Spec
    seed : int in [0, 2**64)
    choice : str or function
        As for `initializer`.

    Returns
    -------
    array of shape (P,), float64
        What `new_state` takes.

    Examples
    --------
    >>> bool((initial(Spec.parse("3-2"), seed=1) == initial(Spec.parse("3-2"), seed=1)).all())
    True
    """
    flat = np.zeros(padded_size(spec))
    values_by_block: list[np.ndarray | float] = []

    def weights(rng: np.random.Generator, activation: object, n_in: int, n_out: int) -> np.ndarray:
        return initializer(choice, activation)(rng, n_in, n_out)

    for i, layer in enumerate(spec.layers):
        hidden = i + 1 < len(spec.layers)
        bias = spread_bias if choice == "auto" and hidden else zero_bias
        values_by_block += layer.draw(generator(seed, Stream.WEIGHTS, i), weights, bias)
    for view, values in zip(views(np, spec, flat), values_by_block, strict=True):
        view[...] = values
    return flat


def initial_population(spec: Spec, seeds: Sequence[int], choice: Any = "auto") -> np.ndarray:
    """One row of initial weights per seed, (K, P): member k is what seeds[k] draws alone."""
    flat = np.empty((len(seeds), padded_size(spec)))  # too many members fail here, at once
    for row, seed in zip(flat, seeds, strict=True):
        row[...] = initial(spec, seed, choice)
    return flat
