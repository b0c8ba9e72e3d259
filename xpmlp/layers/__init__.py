"""Layer kinds: each owns its blocks of parameters, its forward and backward, and its lines.

A layer is frozen data. Its parameters are blocks, windows onto a flat buffer; every function is
given them as arrays. A kind of your own is a frozen dataclass with `n_in`, `n_out`, `blocks` and
two functions:

    forward(xp, x, *blocks) -> y                        (..., B, n_in) -> (..., B, n_out)
    backward(xp, x, y, g, *blocks) -> (dx, *dblocks)    of g = dL/dy; each shaped like its array

>>> from dataclasses import dataclass
>>> import numpy as np, xpmlp
>>> @dataclass(frozen=True)
... class Shift(Layer):
...     "y = x + shift."
...     n_in: int
...     @property
...     def n_out(self): return self.n_in
...     @property
...     def blocks(self): return (Block("shift", (1, self.n_in), "s"),)
...     def forward(self, xp, x, shift): return x + shift
...     def backward(self, xp, x, y, g, shift): return g, xp.sum(g, axis=-2, keepdims=True)
>>> spec = xpmlp.Spec.parse([Shift(3), Dense(3, 2, "tanh")])
>>> xpmlp.gradcheck(spec).passed
True
"""

from xpmlp.layers.columnwise import Normalize, Parametric, PReLU, Scale
from xpmlp.layers.dense import Dense
from xpmlp.layers.layer import Block, Layer
from xpmlp.layers.residual import Residual
from xpmlp.names import public_dir

__all__ = ["Block", "Dense", "Layer", "Normalize", "PReLU", "Parametric", "Residual", "Scale"]
__dir__ = public_dir(__all__)
