"""Validation of a user's own functions, by a call with a few numbers before training.

A wrong result is named here, with what it should be; in training it would surface as an error
about shapes that the user did not write.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from xpmlp.activations import activation
from xpmlp.apply import plain
from xpmlp.devices.namespace import Place
from xpmlp.initializers import initializer
from xpmlp.layers.layer import Layer, as_rows, is_built_in
from xpmlp.losses import loss
from xpmlp.names import title
from xpmlp.optimizers import optimizer
from xpmlp.random import Stream, generator
from xpmlp.schedules import Progress, schedule
from xpmlp.shapes import many, written
from xpmlp.spec import Spec
from xpmlp.training.settings import Settings
from xpmlp.types import Array, Namespace

ROWS = 2


def validate_callables(place: Place, spec: Spec, settings: Settings) -> None:
    """ValueError naming the user's function that does not return what it should."""
    for number, layer in enumerate(spec.layers, 1):
        for function in layer.activations:
            if not isinstance(function, str):
                validate_activation(place, function, f"layer {number}'s activation")
    validate_layers(place, spec)
    if not isinstance(spec.loss, str):
        validate_loss(place, spec)
    if not isinstance(settings.optimizer, str):
        validate_rule(place, settings)
    if callable(settings.schedule):
        validate_schedule(place, settings.schedule)
    if callable(settings.initializer):
        validate_initializer(settings.initializer)


def call_function(what: str, form: str, call: Callable[[], Any]) -> Any:
    """The result of `call`; its errors are raised with the function's name and signature."""
    try:
        return call()
    except Exception as error:  # the user's function may raise anything
        raise ValueError(f"{what} must be a function {form}; trying it gave: {error}") from error


def check_shape(what: str, part: str, value: Any, shape: tuple[int, ...]) -> None:
    actual = getattr(value, "shape", None)
    if actual is None or tuple(actual) != shape:
        description = type(value).__name__ if actual is None else f"an array {tuple(actual)}"
        raise ValueError(f"{what} must give {part} as an array {shape} here; it gave {description}")


def validate_activation(place: Place, custom: Any, what: str) -> None:
    what, form = f"{what} {title(custom)}", "(xp, z) -> (a, slope)"
    z = place.xp.ones((ROWS, 3), device=place.device)
    function = activation(custom)
    a = call_function(what, form, lambda: function.f(place.xp, z))
    check_shape(what, "a", a, (ROWS, 3))
    slope = call_function(what, form, lambda: function.slope(place.xp, z, a))
    check_shape(what, "slope", slope, (ROWS, 3))


def validate_layers(place: Place, spec: Spec) -> None:
    """The layers of a user's own classes, on two rows that go through the network."""
    if all(is_built_in(type(layer)) for layer in spec.layers):
        return
    xp = place.xp
    x = xp.ones((ROWS, spec.n_in), device=place.device)
    for number, layer in enumerate(spec.layers, 1):
        blocks = [
            xp.full(b.shape, b.start, dtype=x.dtype, device=place.device) for b in layer.blocks
        ]
        if not is_built_in(type(layer)) and type(layer).forward is not Layer.forward:
            validate_layer(xp, layer, number, as_rows(xp, x, blocks, plain), blocks)
        if x.ndim > 2 and layer.masks(lambda probability, neurons: probability or None) is not None:
            raise ValueError(
                f"layer {number} cannot drop neurons of {written(tuple(x.shape))}, which has an "
                "axis before the rows: its dropout must be 0"
            )
        x = layer.run_forward(xp, layer.pack(iter(blocks)), x, None, plain).y
    if tuple(x.shape) != (ROWS, spec.n_out):
        raise ValueError(
            f"the network {spec} must end in rows {(ROWS, spec.n_out)} here; it ends in "
            f"{written(tuple(x.shape))}: a layer has to join what another made several of"
        )


def validate_layer(
    xp: Namespace, layer: Layer, number: int, x: Array, blocks: Sequence[Array]
) -> None:
    what = f"layer {number}, {type(layer).__name__},"
    form = "whose forward is (xp, x, *blocks) -> y"
    y = call_function(what, form, lambda: layer.forward(xp, x, *blocks))
    if tuple(getattr(y, "shape", ()))[-1:] != (layer.n_out,):
        check_shape(what, "y", y, (ROWS, layer.n_out))
    form = "whose backward is (xp, x, y, g, *blocks) -> (dx, *dblocks)"
    gradients = call_function(what, form, lambda: layer.backward(xp, x, y, y, *blocks))
    inputs = [x, *blocks]
    if not isinstance(gradients, tuple) and not blocks:
        gradients = (gradients,)
    if not isinstance(gradients, tuple) or len(gradients) != len(inputs):
        parts = ", ".join(["dx", *(f"d{name}" for name in layer.block_names)])
        returned = type(gradients).__name__
        if isinstance(gradients, tuple):
            returned = many(len(gradients), "array")
        raise ValueError(f"{what} must return ({parts}) from backward; it gave {returned}")
    for part, value, like in zip(("dx", *layer.block_names), gradients, inputs, strict=True):
        check_shape(what, part, value, tuple(like.shape))


def validate_loss(place: Place, spec: Spec) -> None:
    what, form = f"loss {title(spec.loss)}", "(xp, score, target) -> (value, delta)"
    measure = loss(spec.loss)
    score = place.xp.ones((ROWS, spec.n_out), device=place.device)
    target = score[:, : measure.targets(spec.n_out)]
    value = call_function(what, form, lambda: measure.value(place.xp, score, target))
    check_shape(what, "value, one number per row,", value, (ROWS,))
    delta = call_function(what, form, lambda: measure.delta(place.xp, score, target))
    check_shape(what, "delta", delta, (ROWS, spec.n_out))


def validate_rule(place: Place, settings: Settings) -> None:
    """The rules on four parameters, with the hyper-parameters of training."""
    chosen, label = optimizer(settings.optimizer), f"optimizer {title(settings.optimizer)}"
    form = "(xp, h, t, theta, g, *slots)"
    one = place.xp.ones((), device=place.device)
    for rule, shape in ((chosen.rule, (4,)), (chosen.matrix_rule, (2, 3))):
        if rule is None:
            continue
        what = label if rule is chosen.rule else f"{label}'s matrix_rule"
        theta = place.xp.ones(shape, device=place.device)
        numbers = dict.fromkeys((*chosen.defaults, *settings.optimizer_params), 0.5)
        # 0 off the weights: an array
        arrays = {name: 0.0 * theta for name in numbers if name == "weight_decay"}
        h = SimpleNamespace(**{"learning_rate": one} | numbers | arrays)
        slots = [0.0 * theta for _ in range(chosen.slots)]
        try:
            results = rule(place.xp, h, one, theta, theta, *slots)
        except Exception as error:  # the user's rule may raise anything
            if isinstance(error, AttributeError) and error.obj is h:
                raise ValueError(
                    f"{what} uses h.{error.name}: {remedy(error.name or '')}"
                ) from None
            raise ValueError(f"{what} must be a rule {form}; trying it gave: {error}") from error
        if not isinstance(results, tuple) or len(results) != 1 + chosen.slots:
            returned = len(results) if isinstance(results, tuple) else type(results).__name__
            raise ValueError(
                f"{what} must return the tuple (theta, *slots), {1 + chosen.slots} arrays for its "
                f"{chosen.slots} slots; it gave {returned}"
            )
        for part, value in zip(("theta", *["slot"] * chosen.slots), results, strict=True):
            check_shape(what, part, value, shape)


def remedy(name: str) -> str:
    """What to do where a rule reads a hyper-parameter that is not there."""
    if name == "weight_decay":
        return (
            "a rule that decays by itself has it among the defaults of its Optimizer; beside any "
            "other rule the weights decay without it"
        )
    return f"give it with optimizer_params={{{name!r}: ...}}"


def validate_schedule(place: Place, custom: Any) -> None:
    what, form = f"schedule {title(custom)}", "(xp, now) -> a number or a 0-d array"
    zero = place.xp.zeros((), device=place.device)
    factor = call_function(
        what, form, lambda: schedule(custom)(place.xp, Progress(zero, zero, zero))
    )
    if not isinstance(factor, float | int):
        check_shape(what, "a factor", factor, ())


def validate_initializer(custom: Any) -> None:
    what, form = f"initializer {title(custom)}", "(generator, n_in, n_out) -> (n_in, n_out)"
    rng = generator(0, Stream.WEIGHTS)
    check_shape(
        what,
        "weights",
        call_function(what, form, lambda: initializer(custom, "")(rng, 3, 2)),
        (3, 2),
    )
