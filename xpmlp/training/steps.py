"""A training under way, and one step of it.

The path of one minibatch: Batch -> gradient -> penalty -> finite? -> clip -> update -> loss. It
never turns back, and nothing on it reads a value from the device: losses add up where they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from xpmlp.apply import account
from xpmlp.devices.namespace import Place, dtype_name
from xpmlp.optimizers import Optimizer
from xpmlp.random import mask
from xpmlp.recording.engine import Engine
from xpmlp.schedules import Progress, Schedule, constant, schedule
from xpmlp.spec import Spec
from xpmlp.step import Batch, State, gradient, penalize, squared_norm, update
from xpmlp.training.batches import Drawn, Window, drawn, unbiased
from xpmlp.training.data import Data
from xpmlp.training.divergence import Trouble, guarded, tally
from xpmlp.training.labels import Labels
from xpmlp.training.memory import Need
from xpmlp.training.model import Model, snapshot
from xpmlp.training.settings import Settings
from xpmlp.types import Array, Namespace

Penalty = tuple[str, Array]  # "l1" or "l2", and its strength


@dataclass
class Run:
    """One training under way: everything the loop reads and writes. Made by `begin`."""

    spec: Spec
    settings: Settings
    place: Place
    optimizer: Optimizer
    state: State
    need: Need
    data: Data
    held: Data | None  # the held-out set, if any
    labels: Labels
    hyper: dict[str, Any]  # hyper-parameters: floats, or arrays against (..., P)
    penalties: tuple[Penalty, ...]  # with strengths against (..., P)
    keys: tuple[Array | None, ...]  # what the dropout masks are drawn from
    engine: Engine
    throttle: Array  # (..., 1) factor on the rate: 1, less after a plateau, 0 = stopped
    kept: Array  # (..., P) the parameters that training will return
    best: Array  # (...) the lowest watched value so far
    best_epoch: Array  # (...) int64, the epoch it was reached in
    weigh: Callable[..., Any] = unbiased  # what the rows of a batch weigh
    score: Callable[..., Array] | None = None  # a metric; None is the one that suits the loss
    history: dict[str, list[Any]] = field(default_factory=dict)
    first: int = 0  # epochs done before this training, of which the history may tell
    epoch: int = 0  # epochs done
    within: int = 0  # steps done of the epoch under way
    seconds: float = 0.0
    once: bool = False  # whether its caller ends it after an epoch
    halted: int = 0  # the signal that asks to stop after the present step (see `interruption`)
    attend: Callable[[], Any] = field(default=lambda: None, repr=False)  # after every window
    asked: Callable[["Run"], Any] = attrgetter("settings")  # what for, as its caller says it
    beside: dict[str, Any] = field(default_factory=dict)  # numbers its caller goes on from

    def __post_init__(self) -> None:
        xp = self.place.xp
        self.met = xp.zeros_like(self.best)  # (...) mean loss of the epoch under way, so far
        self.norm = xp.zeros_like(self.best)  # (...) of the last gradient, unclipped
        self.alive = xp.ones_like(self.best)  # (...) 1, or 0 since a step that was not finite
        # (...) of the epoch under way, exact up to 2**24 in float32
        self.made = xp.zeros_like(self.best)
        self.since = xp.zeros_like(self.throttle)  # (..., 1) the step when memory was empty
        self.base = xp.zeros_like(self.throttle)  # (..., 1) the epoch's rate before its schedule
        self.rate = xp.zeros_like(self.throttle)  # (..., 1) of the last update
        self.troubles: dict[int, Trouble] = {}  # by member
        self.ahead: tuple[int, Array] | None = None  # an epoch with its order, drawn before it
        self.guarded = guarded(self.optimizer, self.settings.clip)
        held = {"rate": self.rate, "alive": self.alive[..., None], "since": self.since}
        if self.settings.clip is not None:
            held["norm"] = self.norm[..., None]
        self.h = SimpleNamespace(**self.hyper | held)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """All that a step changes."""
        state = self.state
        trained = (state.step, state.params, state.grad, *state.memory)
        accounts = (self.met, self.rate, self.norm, self.alive, self.made)
        return (*trained, *accounts, self.since)

    @property
    def batch(self) -> int:
        return min(self.settings.batch, self.data.rows)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.data.rows // self.batch)

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights are kept, and not the last."""
        return (self.settings.keep or ("best" if self.held else "last")) == "best"

    def turns(self, steps: int, first: int = 0) -> Iterator[int]:
        """The steps of a window in turn, until a signal asks to stop; `within` counts them."""
        for t in range(first, steps):
            yield t
            self.within += 1
            if self.halted:
                return

    def model(self) -> Model:
        """A model with a copy of the parameters kept so far."""
        return snapshot(self.spec, self.place, self.kept, self.labels, self.history)


def masks(run: Run, batch: Batch) -> tuple[Any, ...]:
    """Dropout factors of this step for every layer; () where no layer has dropout."""
    if all(key is None for key in run.keys):
        return ()
    rows, dtype = batch.weight.shape[-1], dtype_name(run.state.params)
    xp, step, apply = run.engine.xp, run.state.step, run.engine.apply
    keys = iter(run.keys)

    def draw(probability: float, neurons: int) -> Any:
        key = next(keys)
        if key is None:
            return None
        return mask(xp, key, step, probability, (rows, neurons), dtype, apply=apply)

    return tuple(layer.masks(draw) for layer in run.spec.layers)


@account
def scaled(
    xp: Namespace, moving: Schedule, per_epoch: int, epochs: int, base: Array, step: Array
) -> tuple[Array]:
    """The rate (..., 1): a schedule's factor, an array or as well a Python number, times base.

    per_epoch: steps of an epoch; step: updates done so far."""
    now = xp.astype(step, base.dtype)
    epoch = now / per_epoch
    return (base * moving(xp, Progress(now, epoch, epoch / epochs)),)


def pace(run: Run) -> None:
    """The rate of the update to come."""
    moving, fast, s = schedule(run.settings.schedule), run.engine, run.settings
    if moving is not constant:
        given = (moving, run.steps_per_epoch, s.epochs, run.base, run.state.step)
        fast.apply(scaled, fast.xp, *given, into=(run.rate,))


def learn(run: Run, batch: Drawn) -> Array:
    """Fill the gradient from a minibatch, penalties included; its loss (...)."""
    state, fast = run.state, run.engine
    value = gradient(
        fast.xp, run.spec, state, batch.batch, masks(run, batch.batch), apply=fast.apply
    )
    fast.join()
    for name, strength in run.penalties:
        cost = penalize(fast.xp, state, name, strength, batch.scale, apply=fast.apply)
        value = value + cost
    return fast.xp.asarray(value)  # no scalar of NumPy's


def step(run: Run, batch: Drawn) -> None:
    """One update, which adds its loss to `run.met`; none where that or the gradient is not
    finite, or was not before."""
    state, fast = run.state, run.engine
    fast.restart()
    value = learn(run, batch)
    seen = (value, batch.share, squared_norm(fast.xp, state.grad))
    accounts = (run.alive, run.met, run.made)
    pace(run)
    fast.apply(tally, fast.xp, *seen, *accounts, into=(run.norm, *accounts))
    update(fast.xp, run.guarded, state, run.h, apply=fast.apply)


def advance(run: Run, window: Window, t: int) -> None:
    """Update t of a window."""
    step(run, drawn(window, t))
