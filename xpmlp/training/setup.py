"""Each setting as a step needs it: arrays that broadcast, an optimizer, something to run on."""

from typing import Any

from xpmlp.devices.namespace import CPU, Place, to_place
from xpmlp.devices.threads import SMALL, blas_threads
from xpmlp.initializers import initial, initial_population
from xpmlp.layout import block_factors, blocks, padded_size
from xpmlp.optimizers import Optimizer, by_block
from xpmlp.random import dropout_keys, lanes
from xpmlp.recording.engine import MIN_RECORDED_STEPS, Engine, fastest_engine
from xpmlp.recording.executors import LimitedExecutor
from xpmlp.recording.sharded import ShardedExecutor, shard_indices
from xpmlp.spec import Spec
from xpmlp.training.data import Data
from xpmlp.training.memory import PER_NEURON
from xpmlp.training.settings import Settings
from xpmlp.training.shards import Shard
from xpmlp.training.training_step import Penalty, TrainingStep
from xpmlp.types import Array


def initial_params(place: Place, spec: Spec, settings: Settings, dtype: str) -> Array:
    """The initial weights (..., P)."""
    if settings.members is None:
        flat = initial(spec, settings.seeds[0], settings.initializer)
    else:
        flat = initial_population(spec, settings.seeds, settings.initializer)
    return to_place(place, flat, dtype)


def has_rates(spec: Spec) -> bool:
    """Whether a block has a learning rate of its own."""
    return any(block.rate_factor != 1 for block in blocks(spec))


def optimizer_of(spec: Spec, settings: Settings) -> Optimizer:
    """The optimizer asked for, by the blocks' own learning rates where they have some."""
    optimizer = settings.rule()
    if not has_rates(spec):
        return optimizer
    matrix_rule = optimizer.matrix_rule and by_block(optimizer.matrix_rule)
    return optimizer._replace(rule=by_block(optimizer.rule), matrix_rule=matrix_rule)


def choose_engine(place: Place, spec: Spec, settings: Settings, data: Data, done: int) -> Engine:
    """What the steps run on, of a training that has `done` of its epochs. On the host a
    population is cut into shards, and products have as many threads as pay."""
    per_epoch = -(-data.rows // settings.batch_size)
    planned = settings.epochs * per_epoch
    steps = (planned - done * per_epoch if settings.capture else 0, planned)
    threads = blas_threads(settings.n_threads)
    engine = fastest_engine(place, *steps)
    if place.xp is not CPU.xp:
        return engine
    # by all steps, not those to come: a training that is resumed keeps its bits
    if settings.members is not None and settings.capture and planned >= MIN_RECORDED_STEPS:
        neurons = spec.n_in + PER_NEURON * sum(layer.n_out for layer in spec.layers)
        numbers = (2 + settings.rule().slots) * padded_size(spec) + settings.batch_size * neurons
        indices = shard_indices(settings.members, numbers, threads)
        if len(indices) > 1:

            def shard(step: TrainingStep, index: Any) -> Shard:
                return Shard(step, index, fastest_engine(place, *steps))

            return engine._replace(executor=ShardedExecutor(indices, threads, shard))
    largest = settings.batch_size * max(layer.multiplications for layer in spec.layers)
    threads = threads if largest > SMALL else 1
    if threads == blas_threads():
        return engine
    return engine._replace(executor=LimitedExecutor(engine.executor, threads))


def per_member(place: Place, settings: Settings, name: str, value: Any, like: Array) -> Any:
    """A float as it is; one number per member as an array (K, 1)."""
    numbers = settings.each(name, value)
    if not hasattr(value, "__len__"):
        return numbers[0]
    return place.xp.asarray(numbers, dtype=like.dtype, device=place.device)[:, None]


def hyperparameters(place: Place, spec: Spec, settings: Settings, like: Array) -> dict[str, Any]:
    """The rule's hyper-parameters by name; weight decay is 0 off the weights."""
    defaults = dict(settings.rule().defaults)
    default_decay = defaults.pop("weight_decay", 0.0)
    values = defaults | dict(settings.optimizer_params) | {"learning_rate": settings.learning_rate}
    result = {name: per_member(place, settings, name, v, like) for name, v in values.items()}
    decay = default_decay if settings.weight_decay is None else settings.weight_decay
    result["weight_decay"] = 0.0
    if any(settings.each("weight_decay", decay)):
        factors = block_factors(place.xp, spec, like, "decay_factor")
        strength = per_member(place, settings, "weight_decay", decay, like)
        result["weight_decay"] = strength * factors
    if has_rates(spec):
        result["rate_factor"] = block_factors(place.xp, spec, like, "rate_factor")
    return result


def penalties(place: Place, spec: Spec, settings: Settings, like: Array) -> tuple[Penalty, ...]:
    """The penalties asked for, each with its strength as an array that is 0 off the weights."""
    factors = block_factors(place.xp, spec, like, "decay_factor")
    return tuple(
        (name, per_member(place, settings, name, value, like) * factors)
        for name, value in (("l1", settings.l1), ("l2", settings.l2))
        if any(settings.each(name, value))
    )


def dropout_keys_of(place: Place, spec: Spec, settings: Settings) -> tuple[Array | None, ...]:
    """The words (..., 2) that each mask which a layer asks for is drawn from; None where it drops
    nothing."""
    dtype = lanes(place.xp)
    keys: list[Array | None] = []

    def draw(probability: float, neurons: int) -> None:
        words = dropout_keys(settings.seeds, settings.lead, len(keys)) if probability else None
        keys.append(None if words is None else to_place(place, words, dtype))

    for layer in spec.layers:
        layer.masks(draw)
    return tuple(keys)
