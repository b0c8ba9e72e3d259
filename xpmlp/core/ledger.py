"""The shape ledger: every formula of a training step with the shapes beside it.

Built from the Spec alone, without an array, and tested against the shapes of real traces.
"""

from collections.abc import Sequence
from typing import NamedTuple

from xpmlp.core.layout import padded_size
from xpmlp.core.losses import loss
from xpmlp.core.names import title
from xpmlp.core.spec import Spec, whole

Shape = tuple[int | str, ...]
PRODUCT, LIST = " @ ", ", "


class ShapeError(ValueError):
    """Arrays that do not fit a network: names the layer, the formula and both shapes."""


class Line(NamedTuple):
    """One formula: what is multiplied (or taken) and what comes out."""

    layer: int  # from 1
    formula: str
    operands: tuple[Shape, ...]
    joined: str  # what stands between the operands: " @ " for a product, else ", "
    result: Shape
    becomes: str  # the array whose shape the result has, such as "W2", else ""

    @property
    def shapes(self) -> str:
        given = self.joined.join(map(written, self.operands))
        becomes = f" = {self.becomes}" if self.becomes else ""
        return f"{given} -> {written(self.result)}{becomes}"


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

        def block(name: str, part: Sequence[Line]) -> list[str]:
            return [name] + [f"  {y.layer:>2}  {y.formula:<{width}}   {y.shapes}" for y in part]

        return "\n".join(
            [
                self.network,
                *block("forward", self.forward),
                *block("backward", self.backward),
                f"{self.parameters:,} parameters, {self.operations:,} floating-point operations "
                f"and {self.bytes:,} bytes (float32) per step",
            ]
        )


def written(shape: Shape) -> str:
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def many(count: int, word: str, ending: str = "s") -> str:
    return f"{count:,} {word}{'' if count == 1 else ending}"


def at(name: str, layer: int) -> str:
    """x for the inputs, a1, a2, ... for what the layers pass on."""
    return "x" if layer == 0 else f"{name}{layer}"


def forward_lines(spec: Spec, rows: int | str, lead: Shape) -> list[Line]:
    lines = []
    for i, layer in enumerate(spec.layers, 1):
        x, w = (*lead, rows, layer.n_in), (*lead, layer.n_in, layer.n_out)
        z = (*lead, rows, layer.n_out)
        lines.append(Line(i, f"z{i} = {at('a', i - 1)} @ W{i} + b{i}", (x, w), PRODUCT, z, ""))
        f = title(layer.activation)
        after = f" * mask{i}" if layer.dropout else ""
        lines.append(Line(i, f"a{i} = {f}(z{i}){after}", (z,), LIST, z, ""))
    return lines


def backward_lines(spec: Spec, rows: int | str, lead: Shape) -> list[Line]:
    count = len(spec.layers)
    score = (*lead, rows, spec.n_out)
    target = (*lead, rows, 1 if loss(spec.loss).levels else spec.n_out)
    through = "" if spec.layers[-1].activation == "identity" else f" * f'(z{count})"
    formula = f"d{count} = {title(spec.loss)}'(a{count}, target){through}"
    lines = [Line(count, formula, (score, target), LIST, score, f"z{count}")]
    for i, layer in reversed(list(enumerate(spec.layers, 1))):
        x, w = (*lead, rows, layer.n_in), (*lead, layer.n_in, layer.n_out)
        d = (*lead, rows, layer.n_out)
        turned_x = (*lead, layer.n_in, rows)
        turned_w = (*lead, layer.n_out, layer.n_in)
        below = at("a", i - 1)
        lines.append(Line(i, f"dW{i} = {below}.T @ d{i}", (turned_x, d), PRODUCT, w, f"W{i}"))
        bias = (*lead, 1, layer.n_out)
        lines.append(Line(i, f"db{i} = sum of d{i} over its rows", (d,), LIST, bias, f"b{i}"))
        if i > 1:
            after = f" * mask{i - 1}" if spec.layers[i - 2].dropout else ""
            formula = f"d{i - 1} = d{i} @ W{i}.T * f'(z{i - 1}){after}"
            lines.append(Line(i, formula, (d, turned_w), PRODUCT, x, f"z{i - 1}"))
    return lines


def ledger(spec: Spec | str, *, batch: int = 32, members: int | None = None) -> Ledger:
    """Every formula of one training step of `spec` with its shapes.

    batch: rows per step. members: K shows the leading axis of a population.

    >>> print(ledger("2-3-1", batch=8).backward[3].shapes)
    (8, 1) @ (1, 3) -> (8, 3) = z1
    """
    spec = Spec.parse(spec)
    rows = whole(batch, "batch")
    lead: Shape = () if members is None else (whole(members, "members"),)
    k = members or 1
    products = sum(layer.n_in * layer.n_out for layer in spec.layers)
    skipped = spec.layers[0].n_in * spec.layers[0].n_out  # no delta for the inputs
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


def misfit(
    spec: Spec,
    i: int,
    x: Sequence[int],
    weights: Sequence[int],
    name: str | None = None,
    bias: Sequence[int] = (),
) -> ShapeError:
    """Why rows of shape x do not go through layer i (from 0), with the ledger's line.

    name: what the caller knows the rows by, such as "X".
    """
    layer, number = spec.layers[i], i + 1
    line, given = forward_lines(spec, "B", ())[2 * i], name or at("a", i)
    shown = f"layer {number} computes {line.formula}, and {written(tuple(x))} @ "
    shown += f"{written(tuple(weights))} does not align"
    if len(x) < 2:
        what = f"{given} is {written(tuple(x))} but must be rows (B, {layer.n_in})"
    elif x[-1] != weights[-2]:
        what = f"{given} has {many(x[-1], 'column')} but W{number} has {many(weights[-2], 'row')}"
    elif tuple(weights[-2:]) != (layer.n_in, layer.n_out):
        what = f"W{number} is {written(tuple(weights))} but must be ({layer.n_in}, {layer.n_out})"
        shown = f"layer {number} of network {spec} computes {line.formula}"
    else:
        what = f"b{number} is {written(tuple(bias))} but must be (1, {layer.n_out})"
        shown = f"layer {number} computes {line.formula}"
    return ShapeError(f"{what}: {shown}.\n  ledger: {line.formula}   {line.shapes}")


def miscounted(spec: Spec, params: int, masks: int) -> ShapeError:
    """Why so many params or masks do not belong to the network."""
    what = f"{params} params" if params != len(spec.layers) else f"{masks} masks"
    return ShapeError(
        f"network {spec} has {many(len(spec.layers), 'layer')}: give one (weights, bias) for "
        f"each, and one mask (or None) for each or none at all; got {what}"
    )


def bad_delta(spec: Spec, delta: Sequence[int], z: Sequence[int]) -> ShapeError:
    """Why a delta of this shape cannot be carried back, with the ledger's line."""
    line = backward_lines(spec, "B", ())[0]
    return ShapeError(
        f"delta is {written(tuple(delta))} but must be shaped like z{line.layer}, "
        f"{written(tuple(z))}: layer {line.layer} starts with {line.formula}.\n"
        f"  ledger: {line.formula}   {line.shapes}"
    )


def bad_target(
    spec: Spec, target: Sequence[int], score: Shape, name: str = "the target"
) -> ShapeError:
    """Why a target of this shape cannot be compared with the score, with the ledger's line."""
    line = backward_lines(spec, "B", ())[0]
    return ShapeError(
        f"{name} is {written(tuple(target))} but the score a{line.layer} of layer {line.layer} "
        f"is {written(tuple(score))}: {line.formula} needs {written(line.operands[1])}.\n"
        f"  ledger: {line.formula}   {line.shapes}"
    )


def bad_weight(weight: Sequence[int], score: Sequence[int]) -> ShapeError:
    """Why row weights of this shape do not belong to the rows."""
    return ShapeError(
        f"Batch.weight is {written(tuple(weight))} but must be (..., {score[-2]}): one number "
        f"for each row of the score {written(tuple(score))}"
    )
