"""A network, an optimizer and settings from an estimator's parameters and weights."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from xpmlp.devices.namespace import Place, is_array, to_host, to_place
from xpmlp.layout import padded_size, windows
from xpmlp.optimizers import Optimizer, optimizer as find_optimizer
from xpmlp.recording.engine import Engine
from xpmlp.spec import AnyLoss, Spec, is_listed
from xpmlp.training.settings import Settings
from xpmlp.types import Array

LOGISTIC = ("logistic", "sigmoid")  # scikit-learn's name of the activation, and xpmlp's
OPTIMIZER_PARAMETERS = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
    "momentum": "momentum",
}


@dataclass
class ResumeState:
    """The state to resume training from, beside the weights: an estimator's `_optimizer`."""

    seed: int  # of orders and dropout masks
    split: Any  # the RandomState of the validation split
    solver: Any  # that the slots belong to
    learning_rate_init: float  # the first learning_rate
    learning_rate: float  # of the next update, before any schedule
    slots: tuple[Array, ...] = ()  # the solver's, each (P,)
    step: int = 0  # updates done
    epoch: int = 0  # epochs done
    last: Array | None = None  # (P,) the last weights, where coefs_ holds better ones ...
    kept: Array | None = None  # (P,) ... which are these
    best: float = float("inf")  # the lowest value of what selects the best weights
    best_epoch: int = 0
    engine: Engine | None = None  # of the last training, with its plans
    engine_at: str = ""  # the name of the engine's place

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with arrays on the host, so that loading needs no GPU."""
        on_host = {
            name: None if value is None else to_host(value)
            for name, value in (("last", self.last), ("kept", self.kept))
        }
        slots = tuple(map(to_host, self.slots))
        return self.__dict__ | on_host | {"slots": slots, "engine": None}


def hidden_sizes(est: Any) -> list[int]:
    """The hidden layers' sizes as a list; ValueError naming one that is not a positive integer."""
    value = est.hidden_layer_sizes
    sizes = list(value) if hasattr(value, "__iter__") else [value]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise ValueError(f"hidden_layer_sizes must hold integers; got {size!r} in {value}")
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(size) for size in sizes]


def broadcast_per_layer(est: Any, name: str, hidden: int) -> list[Any]:
    """The parameter `name` for each hidden layer, from one value for all or one for each."""
    value = getattr(est, name)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not is_listed(value):
        return [value] * hidden
    if len(value) != hidden:
        raise ValueError(
            f"{name} must be one for all or one for each of the {hidden} hidden layers; "
            f"got {len(value)}: {value!r}"
        )
    return list(value)


def make_spec(est: Any, n_in: int, sizes: Sequence[int], n_out: int, loss: AnyLoss) -> Spec:
    """The network of the estimator's parameters."""
    dropout = broadcast_per_layer(est, "dropout", len(sizes))
    activation = layer_activations(est, len(sizes))
    return Spec.parse([n_in, *sizes, n_out], activation=activation, dropout=dropout, loss=loss)


def layer_activations(est: Any, hidden: int) -> list[Any]:
    """Each hidden layer's activation by xpmlp's name."""
    names = broadcast_per_layer(est, "activation", hidden)
    return ["sigmoid" if isinstance(name, str) and name == "logistic" else name for name in names]


def draw_initial_weights(est: Any, spec: Spec, random: np.random.RandomState) -> np.ndarray:
    """Initial weights (P,) as scikit-learn draws them: uniform, each layer's weights, then bias.

    The bound is that of Glorot & Bengio 2010, as in scikit-learn; the last layer has that of the
    activation before it.
    """
    flat = np.zeros(padded_size(spec))
    names = broadcast_per_layer(est, "activation", len(spec.layers) - 1) or [est.activation]
    for layer, window, name in zip(
        spec.layers, windows(np, spec, flat), [*names, names[-1]], strict=False
    ):
        factor = 2.0 if name in LOGISTIC else 6.0
        bound = np.sqrt(factor / (layer.n_in + layer.n_out))
        window.weights[...] = random.uniform(-bound, bound, (layer.n_in, layer.n_out))
        window.bias[...] = random.uniform(-bound, bound, layer.n_out)
    return flat


def coefs_and_intercepts(layers: Sequence[Any]) -> tuple[list[Array], list[Array]]:
    """The layers' weights and biases as `coefs_` and `intercepts_`: views, not copies."""
    return [layer.weights for layer in layers], [layer.bias[0, :] for layer in layers]


def inference_network(est: Any) -> tuple[Spec, list[Any]]:
    """A fitted network without dropout and loss, and its parameters as `forward` takes them."""
    weights = [as_array(w) for w in est.coefs_]
    biases = [as_array(b)[None, :] for b in est.intercepts_]
    sizes = [weights[0].shape[0], *(w.shape[1] for w in weights)]
    spec = Spec.parse(sizes, activation=layer_activations(est, len(weights) - 1))
    pairs = zip(weights, biases, strict=True)
    return spec, [layer.pack(iter(p)) for layer, p in zip(spec.layers, pairs, strict=True)]


def as_array(values: Any) -> Array:
    """Weights as an array, which a user may have assigned as lists."""
    return values if is_array(values) else np.asarray(values)


def pack_weights(
    place: Place, spec: Spec, coefs: Sequence[Array], intercepts: Sequence[Array], dtype: str
) -> Array:
    """`coefs_` and `intercepts_`, or lists of the same shapes, copied to a flat buffer (P,)."""
    flat = np.zeros(padded_size(spec), dtype=dtype)
    for i, window in enumerate(windows(np, spec, flat)):
        for name, target, values in (
            ("coefs_", window.weights, coefs[i]),
            ("intercepts_", window.bias[0], intercepts[i]),
        ):
            array = to_host(as_array(values))
            if array.shape != target.shape:
                raise ValueError(
                    f"{name}[{i}] has shape {array.shape}, but the network {spec} of X, y and "
                    f"hidden_layer_sizes has {target.shape} there"
                )
            target[...] = array
    return to_place(place, flat)


def optimizer_name(solver: str, *, nesterov: bool) -> str:
    """xpmlp's name of a solver's optimizer."""
    names = {"adam": "adam_sklearn", "sgd": "nesterov" if nesterov else "momentum"}
    return names.get(solver, solver)


def make_optimizer(est: Any) -> tuple[Optimizer, dict[str, float]]:
    """The optimizer of `solver` and its hyper-parameters.

    "adam" and "sgd" are scikit-learn's: epsilon is added to the root without bias correction,
    and the velocity has momentum, Nesterov's or not.
    """
    solver = est.solver
    if isinstance(solver, str):
        solver = optimizer_name(solver, nesterov=est.nesterovs_momentum)
    rule = find_optimizer(solver)
    return rule, {
        parameter: getattr(est, name)
        for parameter, name in OPTIMIZER_PARAMETERS.items()
        if parameter in rule.defaults
    }


def new_resume_state(est: Any, random: np.random.RandomState) -> ResumeState:
    """A state at epoch 0. `random` itself is left as it is: numbers are drawn from copies."""
    seed = est.random_state
    seed = int(seed) if isinstance(seed, Integral) else deepcopy(random).randint(2**31 - 1)
    return ResumeState(
        seed=seed,
        split=deepcopy(random),
        solver=est.solver,
        learning_rate_init=est.learning_rate_init,
        learning_rate=float(est.learning_rate_init),
    )


def make_settings(
    est: Any, state: ResumeState, epochs: int, batch_size: int, dtype: str, **more: Any
) -> Settings:
    """The settings of training by scikit-learn's parameters."""
    rule, params = make_optimizer(est)
    return Settings(
        optimizer=rule,
        learning_rate=float(est.learning_rate_init),
        schedule=est.schedule,
        epochs=epochs,
        batch_size=batch_size,
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
