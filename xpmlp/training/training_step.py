"""One step of a training, with all that it reads and writes.

The path of one minibatch: Batch -> gradient -> penalty -> finite? -> clip -> update -> loss. It
never turns back, and nothing on it reads a value from the device: losses add up where they are.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from xpmlp.apply import account
from xpmlp.devices.namespace import dtype_name
from xpmlp.optimizers import Optimizer
from xpmlp.random import mask
from xpmlp.recording.engine import Engine
from xpmlp.schedules import Progress, Schedule, constant, schedule
from xpmlp.spec import Spec
from xpmlp.step import Batch, State, gradient, penalize, squared_norm, update
from xpmlp.training.batches import Minibatch, Window, minibatch
from xpmlp.training.divergence import add_to_accounts, guarded
from xpmlp.training.settings import Settings
from xpmlp.types import Array, Namespace

Penalty = tuple[str, Array]  # "l1" or "l2", and its strength


@account
def scheduled(
    xp: Namespace, factor: Schedule, per_epoch: int, epochs: int, base: Array, step: Array
) -> tuple[Array]:
    """The learning rate (..., 1): a schedule's factor, an array or a Python number, times base.

    per_epoch: steps of an epoch; step: updates done so far."""
    now = xp.astype(step, base.dtype)
    epoch = now / per_epoch
    return (base * factor(xp, Progress(now, epoch, epoch / epochs)),)


def averaged(xp: Namespace, decay: float, t: Array, params: Array, average: Array) -> Any:
    """The exponential moving average after update t: a plain mean while that is shorter."""
    share = xp.maximum(xp.full_like(t, 1 - decay), 1 / (t + 1))
    return (average + share * (params - average),)


@dataclass
class TrainingStep:
    """One update of a training; an executor runs it, records it, or shards its members."""

    spec: Spec
    settings: Settings
    steps_per_epoch: int
    optimizer: Optimizer
    engine: Engine
    state: State
    hyperparameters: dict[str, Any]  # floats, or arrays against (..., P)
    penalties: tuple[Penalty, ...]  # with strengths against (..., P)
    dropout_keys: tuple[Array | None, ...]  # what the dropout masks are drawn from
    learning_rate_scale: Array  # (..., 1): 1, less after a plateau, 0 = stopped
    average: Array | None = None  # (..., P) of the parameters over the steps, if it is asked for

    def __post_init__(self) -> None:
        xp = self.engine.xp
        each = self.learning_rate_scale[..., 0]
        self.running_loss = xp.zeros_like(each)  # (...) mean over the epoch under way, so far
        self.grad_norm = xp.zeros_like(each)  # (...) of the last gradient, unclipped
        self.alive = xp.ones_like(each)  # (...) 1, or 0 since a step that was not finite
        # (...) of the epoch under way, exact up to 2**24 in float32
        self.finite_steps = xp.zeros_like(each)
        # (..., 1) the step when the slots were last empty
        self.slots_reset_step = xp.zeros_like(self.learning_rate_scale)
        # (..., 1) the epoch's learning rate before its schedule, and that of the last update
        self.base_learning_rate = xp.zeros_like(self.learning_rate_scale)
        self.learning_rate = xp.zeros_like(self.learning_rate_scale)
        self.guarded = guarded(self.optimizer, self.settings.clip)
        buffers = {
            "learning_rate": self.learning_rate,
            "alive": self.alive[..., None],
            "slots_reset_step": self.slots_reset_step,
        }
        if self.settings.clip is not None:
            buffers["grad_norm"] = self.grad_norm[..., None]
        self.h = SimpleNamespace(**self.hyperparameters | buffers)

    @property
    def buffers(self) -> tuple[Array, ...]:
        """All that a step changes, the count of steps first."""
        state = self.state
        return (
            *(state.step, state.params, state.grad, *state.slots),
            *(self.running_loss, self.learning_rate, self.grad_norm, self.alive),
            *(self.finite_steps, self.slots_reset_step),
            *(() if self.average is None else (self.average,)),
        )

    @property
    def weights(self) -> Array:
        """(..., P) what is measured and returned: the parameters, or their average."""
        return self.state.params if self.average is None else self.average

    def __call__(self, window: Window, t: int) -> None:
        """Update t of a window, which adds its loss to `running_loss`; none where that or the
        gradient is not finite, or was not before."""
        batch, state, engine = minibatch(window, t), self.state, self.engine
        engine.restart()
        value = self.fill_gradient(batch)
        results = (value, batch.share, squared_norm(engine.xp, state.grad))
        accounts = (self.alive, self.running_loss, self.finite_steps)
        self.set_learning_rate()
        engine.apply(
            add_to_accounts, engine.xp, *results, *accounts, into=(self.grad_norm, *accounts)
        )
        update(engine.xp, self.guarded, state, self.h, apply=engine.apply)
        if self.average is not None:
            arguments = (self.settings.ema_decay, state.t, state.params, self.average)
            engine.apply(averaged, engine.xp, *arguments, into=(self.average,))

    def fill_gradient(self, batch: Minibatch) -> Array:
        """Fill the gradient from a minibatch, penalties included; its loss (...)."""
        state, engine = self.state, self.engine
        xp, apply = engine.xp, engine.apply
        value = gradient(xp, self.spec, state, batch.batch, self.masks(batch.batch), apply=apply)
        engine.join()
        for name, strength in self.penalties:
            cost = penalize(xp, state, name, strength, batch.scale, apply=apply)
            value = value + cost
        return xp.asarray(value)  # no scalar of NumPy's

    def masks(self, batch: Batch) -> tuple[Any, ...]:
        """Dropout factors of this step for every layer; () where no layer has dropout."""
        if all(key is None for key in self.dropout_keys):
            return ()
        rows, dtype = batch.weight.shape[-1], dtype_name(self.state.params)
        xp, step, apply = self.engine.xp, self.state.step, self.engine.apply
        keys = iter(self.dropout_keys)

        def draw(probability: float, neurons: int) -> Any:
            key = next(keys)
            if key is None:
                return None
            return mask(xp, key, step, probability, (rows, neurons), dtype, apply=apply)

        return tuple(layer.masks(draw) for layer in self.spec.layers)

    def set_learning_rate(self) -> None:
        """The learning rate of the update to come."""
        factor, engine = schedule(self.settings.schedule), self.engine
        if factor is not constant:
            sizes = (self.steps_per_epoch, self.settings.epochs)
            arguments = (factor, *sizes, self.base_learning_rate, self.state.step)
            engine.apply(scheduled, engine.xp, *arguments, into=(self.learning_rate,))
