"""How to train: frozen and checked before any work is done."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from xpmlp.core.names import nearest
from xpmlp.core.optimizers import Optimizer, optimizer
from xpmlp.core.schedules import schedule
from xpmlp.core.spec import whole

Number = float | Sequence[float]  # one for all, or one per member


@dataclass(frozen=True)
class Settings:
    """The settings of `train`, where each is described."""

    optimizer: Any = "adam"
    rate: Number = 1e-3
    schedule: Any = None
    epochs: int = 100
    batch: int = 32
    seed: int | Sequence[int] = 0
    members: int | None = None
    dtype: str | None = None
    initializer: Any = "auto"
    shuffle: bool = True
    weight_decay: Number | None = None
    l1: Number = 0.0
    l2: Number = 0.0
    clip: float | None = None
    hyper: Mapping[str, Number] = field(default_factory=dict)
    class_weight: Any = None
    keep: str | None = None
    monitor: str = "val_loss"
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        schedule(self.schedule)
        for name in ("epochs", "batch"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        if self.members is not None:
            object.__setattr__(self, "members", whole(self.members, "members"))
        self.check_numbers()
        self.check_words()
        self.seeds  # noqa: B018 - raises for a bad seed

    def check_numbers(self) -> None:
        for name in ("rate", "weight_decay", "l1", "l2", "min_delta", "clip"):
            value = getattr(self, name)
            if value is None:
                continue
            for one in self.each(name, value):
                if not (one >= 0 and math.isfinite(one)):
                    raise ValueError(f"{name} must be at least 0 and finite; got {one}")
        if self.clip == 0:
            raise ValueError("clip must be above 0, the largest norm a gradient keeps; got 0")
        if self.patience is not None:
            object.__setattr__(self, "patience", whole(self.patience, "patience"))
        known = {"rate", "weight_decay", *optimizer(self.optimizer).defaults}
        for name, value in self.hyper.items():
            if isinstance(self.optimizer, str) and name not in known - {"rate"}:
                raise ValueError(
                    f"hyper-parameter {name!r} is unknown to {self.optimizer!r}"
                    f"{nearest(name, sorted(known))} Known: {', '.join(sorted(known))}"
                )
            for one in self.each(name, value):
                top = math.inf if name == "eps" else 1
                if not 0 <= one < top:
                    raise ValueError(f"{name} must be in [0, {top:g}); got {one}")

    def check_words(self) -> None:
        for name, allowed in (
            ("dtype", ("float32", "float64")),
            ("keep", ("best", "last")),
            ("monitor", ("val_loss", "val_score")),
        ):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        if not isinstance(self.shuffle, bool):
            raise ValueError(f"shuffle must be True or False; got {self.shuffle!r}")

    def each(self, name: str, value: Any) -> list[float]:
        """`value` as a list of floats: one, or one per member."""
        if isinstance(value, str | bytes | bool):
            raise ValueError(f"{name} must be a number; got {value!r}")
        try:
            listed = [float(value)] if not hasattr(value, "__len__") else list(map(float, value))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number or one per member; got {value!r}") from None
        if hasattr(value, "__len__") and len(listed) != self.members:
            raise ValueError(
                f"{name} has {len(listed)} values, but there are {self.members or 'no'} members"
            )
        return listed

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per member: seed, seed + 1, ... where one is given."""
        given = self.seed
        try:
            if isinstance(given, bool):
                raise TypeError
            if not hasattr(given, "__len__"):
                first = operator.index(given)
                listed = tuple(first + k for k in range(self.members or 1))
            else:
                listed = tuple(operator.index(seed) for seed in given)  # type: ignore[union-attr]
        except TypeError:
            raise ValueError(f"seed must be a whole number; got {given!r}") from None
        if len(listed) != (self.members or 1):
            raise ValueError(f"seed has {len(listed)} values for {self.members or 1} members")
        if not all(0 <= seed < 2**64 for seed in listed):
            raise ValueError(f"seed must be in [0, 2**64); got {given!r}")
        return listed

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes: () for one network, (K,) for a population."""
        return () if self.members is None else (self.members,)

    def rule(self) -> Optimizer:
        """The optimizer asked for, with decoupled weight decay where any is asked for."""
        from xpmlp.core.optimizers import decoupled

        asked = optimizer(self.optimizer)
        if self.weight_decay and "weight_decay" not in asked.defaults:
            return asked._replace(rule=decoupled(asked.rule))
        return asked


NAMES = tuple(entry.name for entry in fields(Settings))


def settings(given: Mapping[str, Any]) -> Settings:
    """Settings from keyword arguments; TypeError names an unknown one and the nearest known."""
    for name in given:
        if name not in NAMES:
            raise TypeError(f"train() has no argument {name!r}{nearest(name, list(NAMES))}")
    return Settings(**given)


Callback = Callable[[Any], Any]
