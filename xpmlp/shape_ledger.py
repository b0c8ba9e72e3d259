"""The shape ledger: every formula of a training step with the shapes beside it.

Built from the Spec alone, without an array, and tested against the shapes of real traces.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from xpmlp.layout import padded_size
from xpmlp.losses import loss
from xpmlp.names import title, whole, with_hints
from xpmlp.shapes import LIST, Line, Position, Shape, ShapeError, Upstream, written
from xpmlp.spec import Spec


class Ledger(NamedTuple):
    """Every line of one training step, and what the step costs."""

    network: str
    forward: tuple[Line, ...]
    backward: tuple[Line, ...]
    parameters: int  # weights and biases, of one member
    operations: int  # floating-point operations of the products of one step, all members
    bytes: int  # of parameters, gradient, activations and deltas in float32, all members

    def __str__(self) -> str:
        lines = (*self.forward, *self.backward)
        width = max(len(line.formula) for line in lines)
        label = max(2, *(len(str(line.layer)) for line in lines))

        def block(name: str, part: Sequence[Line]) -> list[str]:
            return [name] + [
                f"  {y.layer:>{label}}  {y.formula:<{width}}   {y.shapes}" for y in part
            ]

        return "\n".join(
            [
                self.network,
                *block("forward", self.forward),
                *block("backward", self.backward),
                f"{self.parameters:,} parameters, {self.operations:,} floating-point operations "
                f"and {self.bytes:,} bytes (float32) per step",
            ]
        )


def forward_lines(spec: Spec, rows: int | str, lead: Shape) -> list[Line]:
    places = layer_places(spec, rows, lead)
    pairs = zip(spec.layers, places, strict=True)
    return [line for layer, at in pairs for line in layer.forward_lines(at)]


def layer_places(spec: Spec, rows: int | str, lead: Shape = ()) -> list[Position]:
    """Where each layer stands: it is given x, or what the layer before gives."""
    count = range(1, len(spec.layers) + 1)
    return [Position(i, "x" if i == 1 else f"a{i - 1}", rows, lead) for i in count]


def backward_lines(spec: Spec, rows: int | str, lead: Shape) -> list[Line]:
    score = (*lead, rows, spec.n_out)
    target = (*lead, rows, loss(spec.loss).targets(spec.n_out))
    formula = f"{title(spec.loss)}'(a{len(spec.layers)}, target)"
    lines, upstream = [], Upstream(formula, (score, target), LIST)
    places = layer_places(spec, rows, lead)
    for layer, at in reversed(list(zip(spec.layers, places, strict=True))):
        layer_lines, upstream = layer.backward_lines(at, upstream)
        lines += layer_lines
    return lines


@with_hints({"batch": "batch_size", "rows": "batch_size", "loss": "Spec.parse(..., loss=...)"})
def ledger(
    spec: Any, *, batch_size: int = 32, members: int | None = None, activation: Any = "relu"
) -> Ledger:
    """Every formula of one training step of `spec` with its shapes.

    Parameters
    ----------
    spec : Spec or anything `Spec.parse` reads, such as "2-16-1"
    batch_size : int
        Rows per step.
    members : int, optional
        K shows the leading axis of a population.
    activation : str or function
        Of the hidden layers, where spec is written as sizes.

    Returns
    -------
    Ledger
        Its text is the table; `forward` and `backward` are its lines.

    Raises
    ------
    ValueError
        Naming the size or the layer that is wrong.

    Examples
    --------
    >>> print(ledger("2-3-1", batch_size=8).backward[3].shapes)
    (8, 1) @ (1, 3) -> (8, 3) = z1
    """
    spec = Spec.parse(spec, activation=activation)
    rows = whole(batch_size, "batch_size")
    lead: Shape = () if members is None else (whole(members, "members"),)
    k = members or 1
    products = sum(layer.multiplications for layer in spec.layers)
    skipped = spec.layers[0].input_multiplications  # no delta for the inputs
    neurons = sum(layer.n_out for layer in spec.layers)
    return Ledger(
        network=f"{spec}, loss {title(spec.loss)}, batch {rows}"
        + (f", {members} members" if lead else ""),
        forward=tuple(forward_lines(spec, rows, lead)),
        backward=tuple(backward_lines(spec, rows, lead)),
        parameters=spec.parameters,
        operations=2 * k * rows * (3 * products - skipped),
        bytes=4 * k * (2 * padded_size(spec) + 3 * rows * neurons),
    )


def bad_target(
    spec: Spec, target: Sequence[int], score: Shape, name: str = "the target"
) -> ShapeError:
    """Why a target of this shape cannot be compared with the score, with the ledger's line."""
    line = backward_lines(spec, "B", ())[0]
    return ShapeError(
        f"{name} is {written(tuple(target))} but the score a{line.layer} of layer {line.layer} "
        f"is {written(tuple(score))}: {line.formula} needs {written(line.operands[1])}."
        f"{line.quoted}"
    )


def bad_weight(weight: Sequence[int], score: Sequence[int]) -> ShapeError:
    """Why row weights of this shape do not belong to the rows."""
    return ShapeError(
        f"Batch.weight is {written(tuple(weight))} but must be (..., {score[-2]}): one number "
        f"for each row of the score {written(tuple(score))}"
    )
