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
        for mine, whole in (*pairs, *self.read(step)):
            mine[...] = whole[index]

    def store(self, step: TrainingStep, index: Any) -> None:
        """Let the members stand where the shard stands, but for the count of steps."""
        for mine, whole in zip(changed(self.step), changed(step), strict=True):
            whole[index] = mine

    def read(self, step: TrainingStep) -> Iterator[tuple[Array, Array]]:
        """What a step reads and never changes, of the shard and of all."""
        mine = self.step
        yield mine.learning_rate_scale, step.learning_rate_scale
        yield mine.base_learning_rate, step.base_learning_rate
        for name, value in step.hyperparameters.items():
            if per_member(value):
                yield mine.hyperparameters[name], value
        for (_, one), (_, value) in zip(mine.penalties, step.penalties, strict=True):
            if per_member(value):
                yield one, value
        for key, value in zip(mine.dropout_keys, step.dropout_keys, strict=True):
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

    def own(value: Any) -> Any:
        return xp.asarray(value[index], copy=True)

    def owned(value: Any) -> Any:
        return own(value) if per_member(value) else value

    params, grad = own(state.params), own(state.grad)
    return replace(
        step,
        state=State(
            xp.asarray(state.step, copy=True),
            params,
            grad,
            tuple(map(own, state.slots)),
            windows(xp, step.spec, params),
            windows(xp, step.spec, grad),
            xp.asarray(state.t, copy=True),
            state.matrices,
        ),
        hyperparameters={name: owned(value) for name, value in step.hyperparameters.items()},
        penalties=tuple((name, owned(value)) for name, value in step.penalties),
        dropout_keys=tuple(None if key is None else own(key) for key in step.dropout_keys),
        engine=engine,
        learning_rate_scale=own(step.learning_rate_scale),
        average=None if step.average is None else own(step.average),
    )
