"""Shapes as people read them: the lines of the ledger, and the error that quotes one."""

from collections.abc import Sequence
from typing import NamedTuple

Shape = tuple[int | str, ...]
PRODUCT, LIST = " @ ", ", "


class ShapeError(ValueError):
    """Arrays that do not fit a network: names the layer, the formula and both shapes.

    Examples
    --------
    >>> import xpmlp
    >>> try:
    ...     xpmlp.train("2-1", [[1.0], [2.0]], [0.0, 1.0])
    ... except xpmlp.ShapeError as error:
    ...     print(str(error).splitlines()[-1])
      ledger: z1 = X @ W1 + b1   (B, 2) @ (2, 1) -> (B, 1)
    """


class Line(NamedTuple):
    """One formula: what is multiplied (or taken) and what comes out."""

    layer: int | str  # from 1; "2.1" is the first layer of the block that is layer 2
    formula: str
    operands: tuple[Shape, ...]
    joined: str  # what stands between the operands: " @ " for a product, else ", "
    result: Shape
    becomes: str  # the array whose shape the result has, such as "W2", else ""

    @property
    def shapes(self) -> str:
        operands = self.joined.join(map(written, self.operands))
        becomes = f" = {self.becomes}" if self.becomes else ""
        return f"{operands} -> {written(self.result)}{becomes}"

    @property
    def quoted(self) -> str:
        return f"\n  ledger: {self.formula}   {self.shapes}"


class Position(NamedTuple):
    """Where a layer stands, for the lines that it writes about itself."""

    label: int | str  # its number, from 1
    input: str  # the name of its rows: "x", "a1", ...
    rows: int | str  # how many there are
    lead: Shape = ()  # of a population


class Upstream(NamedTuple):
    """How dL/da of a layer comes from the layer above it, or from the loss."""

    formula: str  # such as "d2 @ W2.T"
    operands: tuple[Shape, ...]
    joined: str

    def line(
        self, layer: int | str, name: str, result: Shape, becomes: str, factor: str = ""
    ) -> Line:
        """The line that gives it a name, times a factor such as " * f'(z1)"."""
        formula = f"{name} = {self.formula}{factor}"
        return Line(layer, formula, self.operands, self.joined, result, becomes)


def written(shape: Sequence[int | str]) -> str:
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def many(count: int, word: str, ending: str = "s") -> str:
    return f"{count:,} {word}{'' if count == 1 else ending}"
