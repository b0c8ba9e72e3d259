"""Optimizers: elementwise rules (xp, h, t, theta, g, *slots) -> (theta, *slots).

theta, the gradient g and each slot are one flat buffer (..., P). `t` is the number of this
update, from 1, a 0-d array of theta's dtype. `h` holds the hyper-parameters by name, each a
float or an array that broadcasts against (..., P), such as (K, 1) for K members;
`h.learning_rate` is that of this update. Slots start at zero, one buffer for each parameter of the
rule after g, so a user's own rule is a plain function of this form.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from inspect import signature
from types import SimpleNamespace
from typing import Any, NamedTuple

from xpmlp.names import lookup, title
from xpmlp.types import Array, Namespace

Rule = Callable[..., Any]


class Optimizer(NamedTuple):
    """A rule with what it needs: how many slots, and its hyper-parameters' defaults.

    matrix_rule: of the same form as the rule, and in its place where weights are: it is given
    them as matrices (..., n_in, n_out), with their gradients and slots.
    """

    rule: Rule
    slots: int
    defaults: Mapping[str, float]
    name: str | None = None
    matrix_rule: Rule | None = None


def sgd(xp: Namespace, h: Any, t: Array, theta: Array, g: Array) -> tuple[Array, ...]:
    """theta - rate * g."""
    return (theta - h.learning_rate * g,)


def momentum(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """The heavy ball (Polyak 1964) with the rate inside the velocity, as scikit-learn has it."""
    v = h.momentum * v - h.learning_rate * g
    return theta + v, v


def nesterov(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """Nesterov's momentum in the form of Sutskever et al. 2013, as scikit-learn has it."""
    v = h.momentum * v - h.learning_rate * g
    return theta + h.momentum * v - h.learning_rate * g, v


def rmsprop(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """Rate divided by a running root mean square of the gradient (Tieleman & Hinton 2012)."""
    v = h.rho * v + (1 - h.rho) * g * g
    return theta - h.learning_rate * g / (xp.sqrt(v) + h.eps), v


def adagrad(xp: Namespace, h: Any, t: Array, theta: Array, g: Array, v: Array) -> Any:
    """Rate divided by the root of the sum of squared gradients (Duchi et al. 2011)."""
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
    """Kingma & Ba 2015, algorithm 1: eps is added to the corrected root, as in PyTorch."""
    m, v = moments(h, g, m, v)
    root = xp.sqrt(v / bias_correction(xp, t, h.beta2)) + h.eps
    return theta - h.learning_rate / bias_correction(xp, t, h.beta1) * m / root, m, v


def adam_sklearn(
    xp: Namespace, h: Any, t: Array, theta: Array, g: Array, m: Array, v: Array
) -> Any:
    """Kingma & Ba 2015, end of section 2: eps is added to the raw root, as in scikit-learn."""
    m, v = moments(h, g, m, v)
    rate = (
        h.learning_rate * xp.sqrt(bias_correction(xp, t, h.beta2)) / bias_correction(xp, t, h.beta1)
    )
    return theta - rate * m / (xp.sqrt(v) + h.eps), m, v


def decoupled(rule: Rule) -> Rule:
    """`rule` with decoupled weight decay (Loshchilov & Hutter 2019): theta shrinks by
    rate * decay beside the rule's own step. `h.weight_decay` is 0 where nothing decays (biases)."""

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
    """Momentum whose matrix is orthogonalized (Jordan 2024): every direction of a layer's weights
    moves alike, times the root of n_out / n_in where that is above 1. v is not used here; what
    is no matrix learns by Adam at `vector_rate` times the learning rate."""
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
    """The Optimizer of a choice: by name, as a value or as a user's own rule."""
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
