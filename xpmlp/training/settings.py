"""How to train: frozen and checked before any work is done."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xpmlp.names import nearest, title, whole
from xpmlp.optimizers import Optimizer, decoupled, optimizer
from xpmlp.schedules import schedule

Number = float | Sequence[float]  # one for all, or one per member


@dataclass(frozen=True)
class Settings:
    """The settings of `train`, where each is described."""

    optimizer: Any = "adam"
    learning_rate: Number = 1e-3
    schedule: Any = None
    epochs: int = 100
    batch_size: int = 32
    seed: int | Sequence[int] = 0
    members: int | None = None
    dtype: str | None = None
    initializer: Any = "auto"
    shuffle: bool = True
    weight_decay: Number | None = None
    l1: Number = 0.0
    l2: Number = 0.0
    clip: float | None = None
    ema_decay: float | None = None
    optimizer_params: Mapping[str, Number] = field(default_factory=dict)
    class_weight: Any = None
    keep: str | None = None
    monitor: str = "val_loss"
    patience: int | None = None
    min_delta: float = 0.0
    capture: bool = True
    n_threads: int | None = None
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        schedule(self.schedule)
        self.take("dtype", dtype_word(self.dtype))
        for name in ("epochs", "batch_size", "members", "patience", "n_threads"):
            value = getattr(self, name)
            if value is not None or name in ("epochs", "batch_size"):
                self.take(name, whole(value, name))
        for name in ("learning_rate", "weight_decay", "l1", "l2"):
            if getattr(self, name) is not None:
                self.check_amount(name, self.each(name, getattr(self, name)))
        self.check_scalars()
        self.check_optimizer_params()
        self.check_words()
        if self.on_divergence == "restore" and self.keep is None:
            self.take("keep", "best")  # the last may be half gone already
        seeds = self.seeds
        self.take("seed", seeds if isinstance(seeds, tuple) and self.members else seeds[0])

    def take(self, name: str, value: Any) -> None:
        """Hold the checked form of a field."""
        object.__setattr__(self, name, value)

    def check_amount(self, name: str, values: Sequence[float]) -> None:
        for one in values:
            if not (one >= 0 and math.isfinite(one)):
                raise ValueError(f"{name} must be at least 0 and finite; got {one}")

    def check_scalars(self) -> None:
        for name in ("clip", "min_delta", "ema_decay"):
            value = getattr(self, name)
            if value is None and name != "min_delta":
                continue
            if hasattr(value, "__len__") and not isinstance(value, str):
                raise ValueError(f"{name} must be one number for all members; got {value!r}")
            (number,) = self.each(name, value)
            if name == "ema_decay" and not 0 <= number < 1:
                raise ValueError(f"ema_decay must be in [0, 1); got {number}")
            if name == "clip" and not (number > 0 and math.isfinite(number)):
                raise ValueError(f"clip must be above 0 and finite; got {number}")
            self.check_amount(name, [number])

    def check_optimizer_params(self) -> None:
        known = sorted({*optimizer(self.optimizer).defaults} - {*OWN})
        params = self.optimizer_params
        if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
            raise ValueError(
                f"optimizer_params must be a dict such as {{'beta2': 0.95}}; got {params!r}"
            )
        for name, value in params.items():
            if name in OWN:
                raise ValueError(f"optimizer_params must not hold {name!r}: pass {name}= itself")
            named = isinstance(self.optimizer, str) or (
                isinstance(self.optimizer, Optimizer) and known
            )
            if named and name not in known:
                raise ValueError(
                    f"optimizer_params: {name!r} is unknown to {title(self.optimizer)!r}"
                    f"{nearest(name, known)} Known: {', '.join(known) or 'none'}"
                )
            top = 1 if isinstance(self.optimizer, str) and name != "eps" else math.inf
            for one in self.each(name, value):
                if not 0 <= one < top:
                    raise ValueError(f"{name} must be in [0, {top:g}); got {one}")

    def check_words(self) -> None:
        for name, allowed in (
            ("dtype", (None, "float32", "float64")),
            ("keep", (None, "best", "last")),
            ("monitor", ("val_loss", "val_score")),
            ("on_divergence", ("raise", "restore")),
        ):
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in allowed:
                words = ", ".join(word for word in allowed if word)
                raise ValueError(f"{name} must be one of {words}; got {value!r}")
        for name in ("shuffle", "capture"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; got {getattr(self, name)!r}")

    def each(self, name: str, value: Any) -> list[float]:
        """`value` as a list of floats: one, or one per member."""
        if isinstance(value, str | bytes | bool):
            raise ValueError(f"{name} must be a number; got {value!r}")
        try:
            numbers = [float(value)] if not hasattr(value, "__len__") else list(map(float, value))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number or one per member; got {value!r}") from None
        if hasattr(value, "__len__") and len(numbers) != self.members:
            raise ValueError(
                f"{name} has {len(numbers)} values, but there are {self.members or 'no'} members"
            )
        return numbers

    @property
    def seeds(self) -> Any:
        """One seed per member, a tuple, or a range seed, seed + 1, ... where one is given."""
        value: Any = self.seed
        several = hasattr(value, "__len__")
        values: Sequence[int]
        try:
            if isinstance(value, bool):
                raise TypeError
            values = tuple(map(operator.index, value)) if several else (operator.index(value),)
        except TypeError:
            raise ValueError(f"seed must be a whole number; got {value!r}") from None
        if several and len(values) != (self.members or 1):
            raise ValueError(f"seed has {len(values)} values for {self.members or 1} members")
        if not several:  # not a tuple: members may be absurdly many
            values = range(values[0], values[0] + (self.members or 1))
        if not all(0 <= seed < 2**64 for seed in (values if several else (values[0], values[-1]))):
            raise ValueError(f"seed must be in [0, 2**64); got {value!r}")
        return values

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes: () for one network, (K,) for a population."""
        return () if self.members is None else (self.members,)

    def rule(self) -> Optimizer:
        """The optimizer asked for, with decoupled weight decay where any is asked for."""
        chosen = optimizer(self.optimizer)
        if self.weight_decay is None or "weight_decay" in chosen.defaults:
            return chosen
        matrix_rule = chosen.matrix_rule and decoupled(chosen.matrix_rule)
        return chosen._replace(rule=decoupled(chosen.rule), matrix_rule=matrix_rule)


def dtype_word(dtype: Any) -> Any:
    """The name of a dtype given by name or as NumPy's or PyTorch's own."""
    if dtype is float:
        return "float64"
    if dtype is None or isinstance(dtype, str):
        return dtype
    return getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype).rpartition(".")[2])


OWN = ("learning_rate", "weight_decay")  # hyper-parameters that are arguments of their own
ELSEWHERE = {  # what other libraries, and older code, call our arguments
    "learning_rate_init": "learning_rate",
    "lr": "learning_rate",
    "rate": "learning_rate",
    "eta": "learning_rate",
    "max_iter": "epochs",
    "n_epochs": "epochs",
    "batch": "batch_size",
    "decay": "weight_decay",
    "threads": "n_threads",
    "random_state": "seed",
    "alpha": "l2",
    "solver": "optimizer",
    "hyper": "optimizer_params",
    "iterations": "epochs",
    "rng": "seed",
    "criterion": "loss",
    "loss_function": "loss",
    "gradient_clip": "clip",
    "max_grad_norm": "clip",
    "clipnorm": "clip",
    "l2_penalty": "l2",
    "scoring": "metrics",
    "early_stopping": "patience",
    "n_iter_no_change": "patience",
    "tol": "min_delta",
    "momentum": "optimizer_params={'momentum': ...}",
    "beta1": "optimizer_params={'beta1': ...}",
    "beta2": "optimizer_params={'beta2': ...}",
    "betas": "optimizer_params={'beta1': ..., 'beta2': ...}",
    "eps": "optimizer_params={'eps': ...}",
    "epsilon": "optimizer_params={'eps': ...}",
    "beta_1": "optimizer_params={'beta1': ...}",
    "beta_2": "optimizer_params={'beta2': ...}",
    "hidden_layer_sizes": "the sizes in the spec",
    "init": "initializer",
    "weight_init": "initializer",
    "weights": "params",
    "warm_start": "the model in place of the spec",
    "kernel_initializer": "initializer",
    "validation_data": "X_val and y_val",
    "validation_split": "X_val and y_val",
    "validation_fraction": "X_val and y_val",
    "X_test": "X_val",
    "y_test": "y_val",
    "n_jobs": "n_threads",
    "verbose": "callbacks=[xpmlp.ProgressBar()]",
}
