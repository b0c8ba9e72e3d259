"""An estimator's parameters as a network, a rule and settings; its weights as a flat buffer."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from xpmlp.devices.namespace import Place, is_array, to_host, to_place
from xpmlp.layers import Dense
from xpmlp.layout import padded_size, windows
from xpmlp.optimizers import Optimizer, optimizer as find_optimizer
from xpmlp.recording.engine import Engine
from xpmlp.spec import AnyLoss, Spec, is_listed
from xpmlp.training.settings import Settings
from xpmlp.types import Array

LOGISTIC = ("logistic", "sigmoid")  # scikit-learn's name of an activation, and ours
HYPER = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "momentum": "momentum"}


@dataclass
class ResumeState:
    """What training goes on with, beside the weights. Kept by an estimator as `_optimizer`."""

    seed: int  # of orders and dropout masks
    split: Any  # the RandomState that held-out rows are drawn from
    solver: Any  # whose slots they are
    learning_rate_init: float  # what learning_rate started from
    learning_rate: float  # of the coming update, before any schedule
    slots: tuple[Array, ...] = ()  # the solver's, each (P,)
    step: int = 0  # updates done
    epoch: int = 0  # epochs done
    last: Array | None = None  # (P,) where training stands, if coefs_ holds better weights ...
    kept: Array | None = None  # (P,) ... and what those are
    best: float = float("inf")  # the lowest of what the best weights go by
    best_epoch: int = 0
    engine: Engine | None = None  # of the last training, with its plans, ...
    engine_at: str = ""  # ... and the name of the place it is for

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: arrays of the host, so that a GPU is not needed to load."""
        on_host = {
            name: None if value is None else to_host(value)
            for name, value in (("last", self.last), ("kept", self.kept))
        }
        slots = tuple(map(to_host, self.slots))
        return self.__dict__ | on_host | {"slots": slots, "engine": None}


def hidden_sizes(est: Any) -> list[int]:
    """The hidden layers' sizes as a list; ValueError naming what is no whole number above 0."""
    asked = est.hidden_layer_sizes
    sizes = list(asked) if hasattr(asked, "__iter__") else [asked]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise ValueError(f"hidden_layer_sizes must hold whole numbers; got {size!r} in {asked}")
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(size) for size in sizes]


def one_each(est: Any, name: str, hidden: int) -> list[Any]:
    """The parameter `name` for each hidden layer: one for all of them, or one for each."""
    asked = getattr(est, name)
    asked = asked.tolist() if isinstance(asked, np.ndarray) else asked
    if not is_listed(asked):
        return [asked] * hidden
    if len(asked) != hidden:
        raise ValueError(
            f"{name} must be one for all or one for each of the {hidden} hidden layers; "
            f"got {len(asked)}: {asked!r}"
        )
    return list(asked)


def spec_of(est: Any, n_in: int, sizes: Sequence[int], n_out: int, loss: AnyLoss) -> Spec:
    """The network with hidden layers of these sizes that the parameters ask for."""
    dropout = one_each(est, "dropout", len(sizes))
    activation = activations(est, len(sizes))
    return Spec.parse([n_in, *sizes, n_out], activation=activation, dropout=dropout, loss=loss)


def bare_spec(est: Any, n_in: int, sizes: Sequence[int], n_out: int) -> Spec:
    """The same for inference: without dropout, and the loss is not asked for."""
    return Spec.parse([n_in, *sizes, n_out], activation=activations(est, len(sizes)))


def activations(est: Any, hidden: int) -> list[Any]:
    """Each hidden layer's activation by our name."""
    asked = one_each(est, "activation", hidden)
    return [LOGISTIC[1] if isinstance(one, str) and one == LOGISTIC[0] else one for one in asked]


def drawn(est: Any, spec: Spec, random: np.random.RandomState) -> np.ndarray:
    """Initial weights (P,) as scikit-learn draws them: uniform, layer by layer, then its bias.

    The bound is Glorot & Bengio's 2010, as scikit-learn has it; the last layer goes by the
    activation before it.
    """
    flat = np.zeros(padded_size(spec))
    asked = one_each(est, "activation", len(spec.layers) - 1) or [est.activation]
    for layer, window, name in zip(
        spec.layers, windows(np, spec, flat), [*asked, asked[-1]], strict=False
    ):
        factor = 2.0 if name in LOGISTIC else 6.0
        bound = np.sqrt(factor / (layer.n_in + layer.n_out))
        window.weights[...] = random.uniform(-bound, bound, (layer.n_in, layer.n_out))
        window.bias[...] = random.uniform(-bound, bound, layer.n_out)
    return flat


def lists(layers: Sequence[Any]) -> tuple[list[Array], list[Array]]:
    """The layers' weights and biases as `coefs_` and `intercepts_`: views, not copies."""
    return [layer.weights for layer in layers], [layer.bias[0, :] for layer in layers]


def dense(coefs: Sequence[Array], intercepts: Sequence[Array]) -> list[Any]:
    """`coefs_` and `intercepts_` as the parameters that `forward` takes."""
    pairs = [(plain(w), plain(b)[None, :]) for w, b in zip(coefs, intercepts, strict=True)]
    return [Dense(*w.shape).pack(iter((w, b))) for w, b in pairs]


def plain(values: Any) -> Array:
    """Weights as an array, where the user wrote a list."""
    return values if is_array(values) else np.asarray(values)


def packed(
    place: Place, spec: Spec, coefs: Sequence[Array], intercepts: Sequence[Array], dtype: str
) -> Array:
    """`coefs_` and `intercepts_`, or what is listed like them, as a flat buffer (P,): a copy."""
    flat = np.zeros(padded_size(spec), dtype=dtype)
    for i, window in enumerate(windows(np, spec, flat)):
        for name, into, values in (
            ("coefs_", window.weights, coefs[i]),
            ("intercepts_", window.bias[0], intercepts[i]),
        ):
            held = to_host(plain(values))
            if held.shape != into.shape:
                raise ValueError(
                    f"{name}[{i}] has shape {held.shape}, but the network {spec} that X, y and "
                    f"hidden_layer_sizes ask for has {into.shape} there"
                )
            into[...] = held
    return to_place(place, flat)


def rule_name(solver: str, *, nesterov: bool) -> str:
    """Our name of the optimizer that a solver is."""
    own = {"adam": "adam_sklearn", "sgd": "nesterov" if nesterov else "momentum"}
    return own.get(solver, solver)


def rule_of(est: Any) -> tuple[Optimizer, dict[str, float]]:
    """The optimizer that `solver` asks for, and its hyper-parameters.

    "adam" and "sgd" are scikit-learn's: epsilon beside the raw root, and momentum in the
    velocity, Nesterov's or not.
    """
    asked = est.solver
    named = isinstance(asked, str)
    rule = find_optimizer(rule_name(asked, nesterov=est.nesterovs_momentum) if named else asked)
    return rule, {ours: getattr(est, name) for ours, name in HYPER.items() if ours in rule.defaults}


def new_resume_state(est: Any, random: np.random.RandomState) -> ResumeState:
    """A state at epoch 0. Nothing is drawn from `random` itself: its copies are asked."""
    given = est.random_state
    seed = int(given) if isinstance(given, Integral) else deepcopy(random).randint(2**31 - 1)
    return ResumeState(
        seed=seed,
        split=deepcopy(random),
        solver=est.solver,
        learning_rate_init=est.learning_rate_init,
        learning_rate=float(est.learning_rate_init),
    )


def settings_of(
    est: Any, state: ResumeState, epochs: int, batch: int, dtype: str, **more: Any
) -> Settings:
    """How to train: scikit-learn's parameters in our words."""
    rule, params = rule_of(est)
    return Settings(
        optimizer=rule,
        learning_rate=float(est.learning_rate_init),
        schedule=est.schedule,
        epochs=epochs,
        batch_size=batch,
        seed=state.seed,
        dtype=dtype,
        shuffle=bool(est.shuffle),
        weight_decay=est.weight_decay,
        l2=float(est.alpha),
        clip=est.clip,
        optimizer_params=params,
        monitor="val_score",
        **more,
    )
