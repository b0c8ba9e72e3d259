"""A run at its beginning: initial weights, and each setting as the step needs it."""

from typing import Any

from xpmlp.devices.namespace import CPU, Place, to_place
from xpmlp.devices.threads import SMALL, blas_threads
from xpmlp.initializers import initial, initial_population
from xpmlp.layout import block_factors, blocks, padded_size
from xpmlp.optimizers import Optimizer, by_block
from xpmlp.random import dropout_keys, lanes
from xpmlp.recording.engine import WORTH, Engine, engine
from xpmlp.recording.executors import Limited
from xpmlp.recording.sharded import Sections, cut
from xpmlp.spec import Spec
from xpmlp.step import new_state
from xpmlp.training.data import Data
from xpmlp.training.labels import Labels
from xpmlp.training.memory import PER_NEURON, Need
from xpmlp.training.sections import Section
from xpmlp.training.settings import Settings
from xpmlp.training.steps import Penalty, Run
from xpmlp.types import Array


def drawn(place: Place, spec: Spec, chosen: Settings, dtype: str) -> Array:
    """The initial weights (..., P)."""
    if chosen.members is None:
        flat = initial(spec, chosen.seeds[0], chosen.initializer)
    else:
        flat = initial_population(spec, chosen.seeds, chosen.initializer)
    return to_place(place, flat, dtype)


def begin(
    spec: Spec,
    chosen: Settings,
    place: Place,
    data: Data,
    held: Data | None,
    labels: Labels,
    params: Array,
    asked: Need,
    done: int = 0,
) -> Run:
    """A run at epoch 0 from `params` (..., P): empty memory, hyper-parameters where needed.

    done: how many of its epochs there are no more.
    """
    xp, device, rule = place.xp, place.device, rule_of(spec, chosen)
    state = new_state(xp, spec, rule, params)
    real = state.params.dtype
    return Run(
        spec=spec,
        settings=chosen,
        place=place,
        optimizer=rule,
        state=state,
        need=asked,
        data=data,
        held=held,
        labels=labels,
        hyper=hyper(place, spec, chosen, state.params),
        penalties=penalties(place, spec, chosen, state.params),
        keys=keys(place, spec, chosen),
        engine=driven(place, spec, chosen, data, done),
        throttle=xp.ones((*chosen.lead, 1), dtype=real, device=device),
        kept=params,
        best=xp.full(chosen.lead, float("inf"), dtype=real, device=device),
        best_epoch=xp.zeros(chosen.lead, dtype=xp.int64, device=device),
    )


def has_rates(spec: Spec) -> bool:
    """Whether a block has a learning rate of its own."""
    return any(block.rate != 1 for block in blocks(spec))


def rule_of(spec: Spec, chosen: Settings) -> Optimizer:
    """The optimizer asked for, by the blocks' own learning rates where they have some."""
    rule = chosen.rule()
    return rule._replace(rule=by_block(rule.rule)) if has_rates(spec) else rule


def steps_ahead(chosen: Settings, data: Data, done: int) -> tuple[int, int]:
    """How many steps a training has to come that may be recorded, and how many in all."""
    each = -(-data.rows // chosen.batch)
    return (chosen.epochs - done) * each if chosen.capture else 0, chosen.epochs * each


def driven(place: Place, spec: Spec, chosen: Settings, data: Data, done: int) -> Engine:
    """What the steps run on. On the host a population is cut into sections, and products have as
    many threads as pay."""
    ahead, threads = steps_ahead(chosen, data, done), blas_threads(chosen.n_threads)
    whole = engine(place, *ahead)
    if place.xp is not CPU.xp:
        return whole
    # by all steps, not those to come: a training that is resumed keeps its bits
    if chosen.members is not None and chosen.capture and ahead[1] >= WORTH:
        neurons = spec.n_in + PER_NEURON * sum(layer.n_out for layer in spec.layers)
        each = (2 + chosen.rule().memories) * padded_size(spec) + chosen.batch * neurons
        indices = cut(chosen.members, each, threads)
        if len(indices) > 1:

            def section(run: Run, index: Any) -> Section:
                return Section(run, index, engine(place, *ahead))

            return whole._replace(way=Sections(indices, threads, section))
    largest = chosen.batch * max(layer.multiplications for layer in spec.layers)
    threads = threads if largest > SMALL else 1
    return whole if threads == blas_threads() else whole._replace(way=Limited(whole.way, threads))


def per_member(place: Place, chosen: Settings, name: str, value: Any, like: Array) -> Any:
    """A float as it is; one number per member as an array (K, 1)."""
    listed = chosen.each(name, value)
    if not hasattr(value, "__len__"):
        return listed[0]
    return place.xp.asarray(listed, dtype=like.dtype, device=place.device)[:, None]


def hyper(place: Place, spec: Spec, chosen: Settings, like: Array) -> dict[str, Any]:
    """The rule's hyper-parameters by name; `decay` is weight decay on weights alone."""
    defaults = dict(chosen.rule().defaults)
    default_decay = defaults.pop("weight_decay", 0.0)
    named = defaults | dict(chosen.hyper) | {"rate": chosen.rate}
    found = {name: per_member(place, chosen, name, v, like) for name, v in named.items()}
    decay = default_decay if chosen.weight_decay is None else chosen.weight_decay
    found["decay"] = 0.0
    if any(chosen.each("weight_decay", decay)):
        decays = block_factors(place.xp, spec, like, "decay")
        found["decay"] = per_member(place, chosen, "weight_decay", decay, like) * decays
    if has_rates(spec):
        found["rate_factor"] = block_factors(place.xp, spec, like, "rate")
    return found


def penalties(place: Place, spec: Spec, chosen: Settings, like: Array) -> tuple[Penalty, ...]:
    """The penalties asked for, each with its strength as an array that is 0 off the weights."""
    decays = block_factors(place.xp, spec, like, "decay")
    return tuple(
        (name, per_member(place, chosen, name, value, like) * decays)
        for name, value in (("l1", chosen.l1), ("l2", chosen.l2))
        if any(chosen.each(name, value))
    )


def keys(place: Place, spec: Spec, chosen: Settings) -> tuple[Array | None, ...]:
    """The words (..., 2) that each mask which a layer asks for is drawn from; None where it drops
    nothing."""
    lane = lanes(place.xp)
    found: list[Array | None] = []

    def draw(probability: float, neurons: int) -> None:
        words = dropout_keys(chosen.seeds, chosen.lead, len(found)) if probability else None
        found.append(None if words is None else to_place(place, words, lane))

    for layer in spec.layers:
        layer.masks(draw)
    return tuple(found)
