"""A user's own functions, tried once on a few numbers before any work is done.

What comes back wrong is named here, with what it should be; inside training it would surface as
an error about shapes that are not the user's.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from xpmlp.activations import activation
from xpmlp.devices.namespace import Place
from xpmlp.initializers import initializer
from xpmlp.layers.layer import Layer
from xpmlp.losses import loss
from xpmlp.names import title
from xpmlp.random import Stream, generator
from xpmlp.schedules import Progress, schedule
from xpmlp.spec import Spec
from xpmlp.training.settings import Settings

ROWS = 2


def validate_callables(place: Place, spec: Spec, settings: Settings) -> None:
    """ValueError naming the function of the user's that does not give what it should."""
    for number, layer in enumerate(spec.layers, 1):
        for one in layer.activations:
            if not isinstance(one, str):
                validate_activation(place, one, f"layer {number}'s activation")
        if not type(layer).__module__.startswith("xpmlp."):
            validate_layer(place, layer, number)
    if not isinstance(spec.loss, str):
        validate_loss(place, spec)
    if not isinstance(settings.optimizer, str):
        validate_rule(place, settings)
    if callable(settings.schedule):
        validate_schedule(place, settings.schedule)
    if callable(settings.initializer):
        validate_initializer(settings.initializer)


def tried(what: str, form: str, attempt: Callable[[], Any]) -> Any:
    """What `attempt` gives; its own error with the name of the function and its form."""
    try:
        return attempt()
    except Exception as error:  # whatever the user's function raises
        raise ValueError(f"{what} must be a function {form}; trying it gave: {error}") from error


def same_shape(what: str, part: str, found: Any, wanted: tuple[int, ...]) -> None:
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape) != wanted:
        given = type(found).__name__ if shape is None else f"an array {tuple(shape)}"
        raise ValueError(f"{what} must give {part} as an array {wanted} here; it gave {given}")


def validate_activation(place: Place, asked: Any, what: str) -> None:
    what, form = f"{what} {title(asked)}", "(xp, z) -> (a, slope)"
    z = place.xp.ones((ROWS, 3), device=place.device)
    found = activation(asked)
    a = tried(what, form, lambda: found.f(place.xp, z))
    same_shape(what, "a", a, (ROWS, 3))
    slope = tried(what, form, lambda: found.slope(place.xp, z, a))
    same_shape(what, "slope", slope, (ROWS, 3))


def validate_layer(place: Place, layer: Layer, number: int) -> None:
    """A kind of the user's own, on two rows."""
    what, xp = f"layer {number}, {type(layer).__name__},", place.xp
    x = xp.ones((ROWS, layer.n_in), device=place.device)
    blocks = [xp.full(b.shape, b.start, dtype=x.dtype, device=place.device) for b in layer.blocks]
    form = "whose forward is (xp, x, *blocks) -> y"
    y = tried(what, form, lambda: layer.forward(xp, x, *blocks))
    if tuple(getattr(y, "shape", ()))[-1:] != (layer.n_out,):
        same_shape(what, "y", y, (ROWS, layer.n_out))
    form = "whose backward is (xp, x, y, g, *blocks) -> (dx, *dblocks)"
    found = tried(what, form, lambda: layer.backward(xp, x, y, y, *blocks))
    wanted = [x, *blocks]
    if not isinstance(found, tuple):
        found = (found,)
    if len(found) != len(wanted):
        raise ValueError(
            f"{what} must return dx and a gradient for each of its {len(blocks)} blocks; its "
            f"backward gave {len(found)} arrays"
        )
    for part, value, like in zip(("dx", *layer.block_names), found, wanted, strict=True):
        same_shape(what, part, value, tuple(like.shape))


def validate_loss(place: Place, spec: Spec) -> None:
    what, form = f"loss {title(spec.loss)}", "(xp, score, target) -> (value, delta)"
    measure = loss(spec.loss)
    score = place.xp.ones((ROWS, spec.n_out), device=place.device)
    target = score[:, : measure.targets(spec.n_out)]
    value = tried(what, form, lambda: measure.value(place.xp, score, target))
    same_shape(what, "value, one number per row,", value, (ROWS,))
    delta = tried(what, form, lambda: measure.delta(place.xp, score, target))
    same_shape(what, "delta", delta, (ROWS, spec.n_out))


def validate_rule(place: Place, settings: Settings) -> None:
    """The rule on four parameters, with the hyper-parameters that training will have."""
    rule = settings.rule()
    what, form = f"optimizer {title(settings.optimizer)}", "(xp, h, t, theta, g, *slots)"
    theta = place.xp.ones((4,), device=place.device)
    one = place.xp.ones((), device=place.device)
    h = SimpleNamespace(
        **{"learning_rate": one, "weight_decay": 0.0 * theta}
        | dict.fromkeys((*rule.defaults, *settings.optimizer_params), 0.5)
    )
    slots = [0.0 * theta for _ in range(rule.slots)]
    try:
        found = rule.rule(place.xp, h, one, theta, theta, *slots)
    except Exception as error:  # whatever the user's rule raises
        if isinstance(error, AttributeError) and error.obj is h:
            raise ValueError(
                f"{what} uses h.{error.name}: give it with optimizer_params={{{error.name!r}: ...}}"
            ) from None
        raise ValueError(f"{what} must be a rule {form}; trying it gave: {error}") from error
    if not isinstance(found, tuple) or len(found) != 1 + rule.slots:
        given = len(found) if isinstance(found, tuple) else type(found).__name__
        raise ValueError(
            f"{what} must return the tuple (theta, *slots), {1 + rule.slots} arrays for its "
            f"{rule.slots} slots; it gave {given}"
        )
    for part, value in zip(("theta", *["slot"] * rule.slots), found, strict=True):
        same_shape(what, part, value, (4,))


def validate_schedule(place: Place, asked: Any) -> None:
    what, form = f"schedule {title(asked)}", "(xp, now) -> a number or a 0-d array"
    zero = place.xp.zeros((), device=place.device)
    factor = tried(what, form, lambda: schedule(asked)(place.xp, Progress(zero, zero, zero)))
    if not isinstance(factor, float | int):
        same_shape(what, "a factor", factor, ())


def validate_initializer(asked: Any) -> None:
    what, form = f"initializer {title(asked)}", "(generator, n_in, n_out) -> (n_in, n_out)"
    rng = generator(0, Stream.WEIGHTS)
    same_shape(
        what, "weights", tried(what, form, lambda: initializer(asked, "")(rng, 3, 2)), (3, 2)
    )
