"""Some members of a population as a step of their own, on arrays of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from xpmlp.layout import windows
from xpmlp.recording.engine import Engine
from xpmlp.step import State
from xpmlp.training.training_step import TrainingStep
from xpmlp.types import Array


class Shard:
    """The step of the members of an index, which changes with each `load`.

    index: (k, ...) is one network, without the members' axis; (slice, ...) is a population.
    """

    def __init__(self, step: TrainingStep, index: Any, engine: Engine) -> None:
        self.step = part(step, index, engine)
        self.executor = engine.executor

    def load(self, step: TrainingStep, index: Any) -> None:
        """Let the shard stand where these members of `step` stand."""
        self.step.state.step[...] = step.state.step
        pairs = zip(changed(self.step), changed(step), strict=True)
        for own, all_members in (*pairs, *self.read(step)):
            own[...] = all_members[index]

    def store(self, step: TrainingStep, index: Any) -> None:
        """Let the members stand where the shard stands, but for the count of steps."""
        for own, all_members in zip(changed(self.step), changed(step), strict=True):
            all_members[index] = own

    def read(self, step: TrainingStep) -> Iterator[tuple[Array, Array]]:
        """What a step reads and never changes, of the shard and of all."""
        own = self.step
        yield own.learning_rate_scale, step.learning_rate_scale
        yield own.base_learning_rate, step.base_learning_rate
        for name, value in step.hyperparameters.items():
            if per_member(value):
                yield own.hyperparameters[name], value
        for (_, strength), (_, value) in zip(own.penalties, step.penalties, strict=True):
            if per_member(value):
                yield strength, value
        for key, value in zip(own.dropout_keys, step.dropout_keys, strict=True):
            if key is not None and value is not None:
                yield key, value


def changed(step: TrainingStep) -> tuple[Array, ...]:
    """All that a step changes, but for the count of steps."""
    return step.buffers[1:]


def per_member(value: Any) -> bool:
    """Whether a setting of a population is an array (K, ...): one number, or one row of numbers
    for all, is not."""
    return getattr(value, "ndim", 0) == 2


def part(step: TrainingStep, index: Any, engine: Engine) -> TrainingStep:
    """A step with copies of the members' arrays."""
    xp, state = engine.xp, step.state

    def copy_of(value: Any) -> Any:
        return xp.asarray(value[index], copy=True)

    def copy_if_per_member(value: Any) -> Any:
        return copy_of(value) if per_member(value) else value

    params, grad = copy_of(state.params), copy_of(state.grad)
    return replace(
        step,
        state=State(
            xp.asarray(state.step, copy=True),
            params,
            grad,
            tuple(map(copy_of, state.slots)),
            windows(xp, step.spec, params),
            windows(xp, step.spec, grad),
            xp.asarray(state.t, copy=True),
            state.matrices,
        ),
        hyperparameters={
            name: copy_if_per_member(value) for name, value in step.hyperparameters.items()
        },
        penalties=tuple((name, copy_if_per_member(value)) for name, value in step.penalties),
        dropout_keys=tuple(None if key is None else copy_of(key) for key in step.dropout_keys),
        engine=engine,
        learning_rate_scale=copy_of(step.learning_rate_scale),
        average=None if step.average is None else copy_of(step.average),
    )
