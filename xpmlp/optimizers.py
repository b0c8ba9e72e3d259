"""Optimizers: elementwise rules (xp, h, t, theta, g, *slots) -> (theta, *slots).

theta, the gradient g and each slot are one flat buffer (..., P). `t` is the number of this
update, from 1, a 0-d array of theta's dtype. `h` holds the hyper-parameters by name, each a
float or an array that broadcasts against (..., P), such as (K, 1) for K members;
`h.learning_rate` is that of this update. Slots start at zero, one buffer for each parameter of the
rule after g, so a user's own rule is a plain function of this form.

`train` takes those in `OPTIMIZERS` by name. Its `optimizer_params` are a rule's hyper-parameters
but learning_rate and weight_decay: each in [0, 1), eps at least 0.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from inspect import signature
from types import SimpleNamespace
from typing import Any, NamedTuple

from xpmlp.names import lookup, public_dir, title
from xpmlp.types import Array, Namespace

__all__ = [
    "OPTIMIZERS", "Optimizer", "Rule", "adagrad", "adam", "adam_sklearn", "adamw",
    "decoupled", "momentum", "muon", "nesterov", "optimizer", "rmsprop", "sgd",
]  # fmt: skip
__dir__ = public_dir(__all__)

Rule = Callable[..., Any]


class Optimizer(NamedTuple):
    """A rule with what it needs: how many slots, and its hyper-parameters' defaults.

    Parameters
    ----------
    rule : function (xp, h, t, theta, g, *slots) -> (theta, *slots)
        See `xpmlp.optimizers`.
    slots : int
        How many buffers of the parameters' size it keeps from update to update.
    defaults : dict
        {name: value} of its hyper-parameters but the learning rate.
    name : str, optional
        What a message calls it.
    matrix_rule : function of the same form, optional
        In the rule's place where weights are: it is given them as matrices (..., n_in, n_out), with
        their gradients and slots.

    Examples
    --------
    >>> import xpmlp
    >>> def signum(xp, h, t, theta, g, m):
    ...     m = h.beta * m + (1 - h.beta) * g
    ...     return theta - h.learning_rate * xp.sign(m), m
    >>> own = Optimizer(signum, slots=1, defaults={"beta": 0.9})
    >>> model = xpmlp.train("1-1", [[0.0], [1.0]], [1.0, 3.0], optimizer=own, epochs=2)
    >>> bool(model.history["loss"][1] < model.history["loss"][0])
    True
    """

    rule: Rule
    slots: int
    defaults: Mapping[str, float]
    name: str | None = None
    matrix_rule: Rule | None = None


def sgd(xp: Namespace, h: Any, t: Array, theta: Array, g: Array) -> tuple[Array, ...]:
    """theta <- theta - learning_rate * g.

    Parameters
    ----------
    xp, h, t, theta, g
        As for every rule (see `xpmlp.optimizers`); of h the learning_rate.

    References
    ----------
    Robbins & Monro 1951, "A stochastic approximation method"

    Examples
    --------
    >>> sgd(np, SimpleNamespace(learning_rate=0.5), 1, np.ones(1), np.ones(1))
    (array([0.5]),)
    """
    return (theta - h.learning_rate * g,)


def momentum(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """v <- momentum * v - learning_rate * g, theta <- theta + v: the heavy ball.

    The learning rate is inside the velocity, as in scikit-learn.

    Parameters
    ----------
    xp, h, t, theta, g, v
        As for every rule; of h learning_rate and momentum (0.9).

    References
    ----------
    Polyak 1964, "Some methods of speeding up the convergence of iteration methods"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, momentum=0.9)
    >>> momentum(np, h, 2, np.ones(1), np.ones(1), -np.ones(1))
    (array([-0.4]), array([-1.4]))
    """
    v = h.momentum * v - h.learning_rate * g
    return theta + v, v


def nesterov(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """v <- momentum * v - learning_rate * g, theta <- theta + momentum * v - learning_rate * g.

    Parameters
    ----------
    xp, h, t, theta, g, v
        As for every rule; of h learning_rate and momentum (0.9).

    References
    ----------
    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, momentum=0.9)
    >>> nesterov(np, h, 1, np.ones(1), np.ones(1), np.zeros(1))
    (array([0.05]), array([-0.5]))
    """
    v = h.momentum * v - h.learning_rate * g
    return theta + h.momentum * v - h.learning_rate * g, v


def rmsprop(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """v <- rho * v + (1 - rho) * g**2, theta <- theta - learning_rate * g / (sqrt(v) + eps).

    Parameters
    ----------
    xp, h, t, theta, g, v
        As for every rule; of h learning_rate, rho (0.99) and eps (1e-8).

    References
    ----------
    Tieleman & Hinton 2012, "Lecture 6.5: RMSProp"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.05, rho=0.99, eps=1e-8)
    >>> rmsprop(np, h, 1, np.ones(1), np.ones(1), np.zeros(1))
    (array([0.50000005]), array([0.01]))
    """
    v = h.rho * v + (1 - h.rho) * g * g
    return theta - h.learning_rate * g / (xp.sqrt(v) + h.eps), v


def adagrad(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """v <- v + g**2, theta <- theta - learning_rate * g / (sqrt(v) + eps).

    Parameters
    ----------
    xp, h, t, theta, g, v
        As for every rule; of h learning_rate and eps (1e-10).

    References
    ----------
    Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and stochastic
    optimization"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, eps=1e-10)
    >>> adagrad(np, h, 1, np.ones(1), 2 * np.ones(1), np.zeros(1))
    (array([0.5]), array([4.]))
    """
    v = v + g * g
    return theta - h.learning_rate * g / (xp.sqrt(v) + h.eps), v


def moments(h: Any, g: Array, m: Array, v: Array) -> tuple[Array, Array]:
    """Running means of g and g * g (Kingma & Ba 2015)."""
    return h.beta1 * m + (1 - h.beta1) * g, h.beta2 * v + (1 - h.beta2) * g * g


def bias_correction(xp: Namespace, t: Array, beta: Any) -> Array:
    """1 - beta ** t, the share of a running mean that t updates have filled."""
    number = isinstance(beta, float | int)
    log = (math.log(beta) if beta > 0 else -math.inf) if number else xp.log(beta)
    # expm1: 1 - 0.999 ** t loses five digits in float32
    return -xp.expm1(t * log)


def adam(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, m: Array, v: Array) -> Any:
    """theta <- theta - learning_rate * m_t / (sqrt(v_t) + eps), as in PyTorch.

    m <- beta1 * m + (1 - beta1) * g and v <- beta2 * v + (1 - beta2) * g**2 are running means,
    m_t = m / (1 - beta1**t) and v_t = v / (1 - beta2**t) are without their bias towards 0.

    Parameters
    ----------
    xp, h, t, theta, g, m, v
        As for every rule; of h learning_rate, beta1 (0.9), beta2 (0.999) and eps (1e-8).

    References
    ----------
    Kingma & Ba 2015, "Adam: A method for stochastic optimization", algorithm 1

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, beta1=0.9, beta2=0.999, eps=1e-8)
    >>> theta, m, v = adam(np, h, 1, np.ones(2), np.array([-1.0, 100.0]), np.zeros(2), np.zeros(2))
    >>> theta.round(6)
    array([1.5, 0.5])
    """
    m, v = moments(h, g, m, v)
    root = xp.sqrt(v / bias_correction(xp, t, h.beta2)) + h.eps
    return theta - h.learning_rate / bias_correction(xp, t, h.beta1) * m / root, m, v


def adam_sklearn(
    xp: Namespace, h: Any, t: Array, theta: Array, g: Array, m: Array, v: Array
) -> Any:
    """theta <- theta - rate * m / (sqrt(v) + eps), as in scikit-learn.

    m and v are those of `adam`, rate = learning_rate * sqrt(1 - beta2**t) / (1 - beta1**t): eps
    is added to the raw root, so that it weighs more in the first updates.

    Parameters
    ----------
    xp, h, t, theta, g, m, v
        As for every rule; of h learning_rate, beta1 (0.9), beta2 (0.999) and eps (1e-8).

    References
    ----------
    Kingma & Ba 2015, "Adam: A method for stochastic optimization", end of section 2

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, beta1=0.9, beta2=0.999, eps=1e-8)
    >>> adam_sklearn(np, h, 1, np.ones(1), np.ones(1), np.zeros(1), np.zeros(1))[0].round(6)
    array([0.5])
    """
    m, v = moments(h, g, m, v)
    rate = (
        h.learning_rate * xp.sqrt(bias_correction(xp, t, h.beta2)) / bias_correction(xp, t, h.beta1)
    )
    return theta - rate * m / (xp.sqrt(v) + h.eps), m, v


def decoupled(rule: Rule) -> Rule:
    """`rule` with decoupled weight decay; "adamw" is `decoupled(adam)`.

    theta <- (1 - learning_rate * weight_decay) * theta, then the rule's own step.

    Parameters
    ----------
    rule : function (xp, h, t, theta, g, *slots) -> (theta, *slots)

    Returns
    -------
    function of the same form
        Of h it takes weight_decay too (0.01 for "adamw"), an array that is 0 where nothing decays
        (biases).

    References
    ----------
    Loshchilov & Hutter 2019, "Decoupled weight decay regularization"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=0.5, weight_decay=0.01)
    >>> decoupled(sgd)(np, h, 1, np.ones(1), np.zeros(1))
    (array([0.995]),)
    """

    @wraps(rule)
    def decayed(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, *slots: Array) -> Any:
        return rule(xp, h, t, theta - h.learning_rate * h.weight_decay * theta, g, *slots)

    return decayed


@lru_cache(maxsize=64)  # the same function again, so that what was made of it is found
def by_block(rule: Rule) -> Rule:
    """`rule` with the learning rate times h.rate_factor (P,), the factors of the layers' blocks."""

    @wraps(rule)
    def scaled(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, *slots: Array) -> Any:
        rates = {"learning_rate": h.learning_rate * h.rate_factor}
        own = SimpleNamespace(**(vars(h) | rates))
        return rule(xp, own, t, theta, g, *slots)

    return scaled


adamw = decoupled(adam)

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # brings singular values to about 1 in five turns
TURNS = 5


def orthogonalized(xp: Namespace, m: Array) -> Array:
    """The nearest matrix (..., a, b) with singular values of about 1, by Newton-Schulz."""
    tall = m.shape[-2] > m.shape[-1]
    x = m.mT if tall else m
    size = xp.sqrt(xp.sum(xp.sum(x * x, axis=-1, keepdims=True), axis=-2, keepdims=True))
    x = x / (size + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(TURNS):
        s = xp.matmul(x, x.mT)
        x = a * x + xp.matmul(b * s + c * xp.matmul(s, s), x)
    return x.mT if tall else x


def muon(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, m: Array, v: Array) -> Any:
    """theta <- (1 - learning_rate * weight_decay) * theta - learning_rate * stretch * O(d).

    m <- momentum * m + g, d = g + momentum * m, stretch = sqrt(max(1, n_out / n_in)), and O(d) is
    about the nearest orthogonal matrix: every direction of a layer's weights moves alike.

    Parameters
    ----------
    xp, h, t, theta, g, m, v
        As for every rule, but matrices (..., n_in, n_out); v is not used. Of h learning_rate (about
        0.02), momentum (0.95) and weight_decay (0.0). What is no matrix learns by `adam` at
        h.vector_rate (0.015) times the learning rate.

    References
    ----------
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"

    Examples
    --------
    >>> h = SimpleNamespace(learning_rate=1.0, momentum=0.95, weight_decay=0.0)
    >>> zero, g = np.zeros((2, 2)), np.diag([1.0, 5.0])
    >>> theta, m, v = muon(np, h, 1, zero, g, zero, zero)
    >>> bool(np.allclose(theta, -np.eye(2), atol=0.3))
    True
    """
    m = h.momentum * m + g
    direction = orthogonalized(xp, g + h.momentum * m)
    stretch = math.sqrt(max(1.0, theta.shape[-1] / theta.shape[-2]))
    theta = theta - h.learning_rate * h.weight_decay * theta
    return theta - h.learning_rate * stretch * direction, m, v


def muon_vectors(
    xp: Namespace, h: Any, t: Array, theta: Array, g: Array, m: Array, v: Array
) -> Any:
    """Adam at its own share of the learning rate, for biases and the like."""
    own = SimpleNamespace(**(vars(h) | {"learning_rate": h.learning_rate * h.vector_rate}))
    return adam(xp, own, t, theta, g, m, v)


MOMENTUM = {"momentum": 0.9}
BETAS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
OPTIMIZERS = {
    "sgd": Optimizer(sgd, 0, {}, "sgd"),
    "momentum": Optimizer(momentum, 1, MOMENTUM, "momentum"),
    "nesterov": Optimizer(nesterov, 1, MOMENTUM, "nesterov"),
    "rmsprop": Optimizer(rmsprop, 1, {"rho": 0.99, "eps": 1e-8}, "rmsprop"),
    "adagrad": Optimizer(adagrad, 1, {"eps": 1e-10}, "adagrad"),
    "adam": Optimizer(adam, 2, BETAS, "adam"),
    "adam_sklearn": Optimizer(adam_sklearn, 2, BETAS, "adam_sklearn"),
    "adamw": Optimizer(adamw, 2, BETAS | {"weight_decay": 0.01}, "adamw"),
    "muon": Optimizer(
        muon_vectors,
        2,
        BETAS | {"momentum": 0.95, "vector_rate": 0.015, "weight_decay": 0.0},
        "muon",
        muon,
    ),
}


def optimizer(choice: str | Optimizer | Rule) -> Optimizer:
    """The Optimizer of a choice: by name, as a value or as a user's own rule.

    Parameters
    ----------
    choice : str, Optimizer or function (xp, h, t, theta, g, *slots) -> (theta, *slots)

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        For an unknown name, naming those that are known, or a function of another form.

    Examples
    --------
    >>> optimizer("nesterov").defaults
    {'momentum': 0.9}
    """
    if isinstance(choice, str):
        entry: Optimizer = lookup("optimizer", OPTIMIZERS, choice)
        return entry
    if isinstance(choice, Optimizer):
        return choice
    form = "(xp, h, t, theta, g, *slots) -> (theta, *slots)"
    if not callable(choice):
        raise ValueError(f"optimizer must be a name or a rule {form}; got {choice!r}")
    required = [p for p in signature(choice).parameters.values() if p.default is p.empty]
    slots = len(required) - 5
    if slots < 0:
        raise ValueError(f"optimizer {title(choice)} must be a rule {form}")
    return Optimizer(choice, slots, {})
