"""Some members of a population as a training of their own, on arrays of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from xpmlp.layout import windows
from xpmlp.recording.engine import Engine
from xpmlp.step import State
from xpmlp.training.steps import Run
from xpmlp.types import Array


class Section:
    """A training of the members of an index, which changes with each `fill`.

    index: (k, ...) is one network, without the members' axis; (slice, ...) is a population.
    """

    def __init__(self, run: Run, index: Any, engine: Engine) -> None:
        self.run = taken(run, index, engine)

    def fill(self, run: Run, index: Any) -> None:
        """Let the training stand where these members of `run` stand."""
        self.run.state.step[...] = run.state.step
        moved = zip(changed(self.run), changed(run), strict=True)
        for mine, whole in (*moved, *self.read(run)):
            mine[...] = whole[index]

    def spend(self, run: Run, index: Any) -> None:
        """Let the members stand where the training stands, but for the count of steps."""
        for mine, whole in zip(changed(self.run), changed(run), strict=True):
            whole[index] = mine

    def read(self, run: Run) -> Iterator[tuple[Array, Array]]:
        """What a step reads and never changes, of the section and of all."""
        mine = self.run
        yield mine.throttle, run.throttle
        yield mine.base, run.base
        for name, value in run.hyper.items():
            if per_member(value):
                yield mine.hyper[name], value
        for (_, one), (_, value) in zip(mine.penalties, run.penalties, strict=True):
            if per_member(value):
                yield one, value
        for key, value in zip(mine.keys, run.keys, strict=True):
            if key is not None and value is not None:
                yield key, value


def changed(run: Run) -> tuple[Array, ...]:
    """All that a step changes, but for the count of steps."""
    return run.buffers[1:]


def per_member(value: Any) -> bool:
    """Whether a setting of a population is an array (K, ...): one number, or one row of numbers
    for all, is not."""
    return getattr(value, "ndim", 0) == 2


def taken(run: Run, index: Any, engine: Engine) -> Run:
    """A run of its own with copies of the members' arrays."""
    xp, state = run.place.xp, run.state

    def own(value: Any) -> Any:
        return xp.asarray(value[index], copy=True)

    def owned(value: Any) -> Any:
        return own(value) if per_member(value) else value

    params, grad = own(state.params), own(state.grad)
    return replace(
        run,
        state=State(
            xp.asarray(state.step, copy=True),
            params,
            grad,
            tuple(map(own, state.memory)),
            windows(xp, run.spec, params),
            windows(xp, run.spec, grad),
            xp.asarray(state.t, copy=True),
        ),
        hyper={name: owned(value) for name, value in run.hyper.items()},
        penalties=tuple((name, owned(value)) for name, value in run.penalties),
        keys=tuple(None if key is None else own(key) for key in run.keys),
        engine=engine,
        throttle=own(run.throttle),
        kept=params,
        best=own(run.best),
        best_epoch=own(run.best_epoch),
        history={},
        within=0,
        halted=0,
    )
