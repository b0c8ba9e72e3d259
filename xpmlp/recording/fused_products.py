"""A layer's functions as products with an epilogue, where the activation is relu or none.

`network` has the formulas; for three of them cuBLASLt has one kernel that computes the product and
what follows it (see `epilogues`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from xpmlp.activations import activation
from xpmlp.devices.epilogues import (
    BGRADA,
    BIAS,
    DRELU,
    RELU_AUX_BIAS,
    RELU_BIAS,
    Epilogue,
    Epilogues,
    relu_mask_shape,
)
from xpmlp.network import activated, gradients, returned
from xpmlp.types import Array, Namespace

IDENTITY, RELU = activation("identity"), activation("relu")


class Product:
    """A lazy a @ b: what follows it decides how it is computed."""

    def __init__(self, a: Array, b: Array) -> None:
        self.a, self.b = a, b
        self.array: Array | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.a.shape[:-1], self.b.shape[-1])


class FusedProducts:
    """The products with an epilogue of one trainer's steps. Not thread-safe."""

    def __init__(self, epilogues: Epilogues, xp: Namespace) -> None:
        """xp: CuPy's namespace, with our `matmul`."""
        self.epilogues, self.cupy = epilogues, epilogues.cupy
        self.relu_masks: dict[int, tuple[Array, Array]] = {}  # by a's id: a, and relu's mask
        epilogues.self_test(xp.matmul)

    def restart(self) -> None:
        """Begin a step: the masks of the previous one may go."""
        self.relu_masks.clear()

    def apply(self, function: Callable[..., Any], args: Any, into: Sequence[Array]) -> Any:
        """function(xp, *args) as one product with an epilogue; None where there is none."""
        if function is activated:
            return self.activated(*args)
        if function is returned:
            return self.returned(*args)
        if function is gradients and into:
            x, delta = args
            done = self.epilogues.multiply(BGRADA, x.mT, delta, into[0], bias=into[1])
            return tuple(into) if done else None
        return None

    def activated(self, f: Any, product: Any, bias: Array, mask: Any = None) -> Any:
        if mask is not None or not isinstance(product, Product):
            return None
        if f is IDENTITY.f:
            z = self.new_product(BIAS, product, bias=bias)
            return None if z is None else (z, z, z)
        if f is not RELU.f:
            return None
        relu_mask = self.cupy.empty(relu_mask_shape(product.shape), dtype="uint8")
        a = self.new_product(RELU_AUX_BIAS, product, bias=bias, aux=relu_mask)
        if a is not None:
            self.relu_masks[id(a)] = a, relu_mask
        else:
            a = self.new_product(RELU_BIAS, product, bias=bias)
        # relu's slope needs only whether z > 0, which is whether a > 0
        return None if a is None else (a, a, a)

    def returned(self, slope: Any, back: Any, z: Array, a: Array, mask: Any = None) -> Any:
        if mask is not None or slope is not RELU.slope or not isinstance(back, Product):
            return None
        _, relu_mask = self.relu_masks.get(id(a), (None, None))
        return None if relu_mask is None else self.new_product(DRELU, back, aux=relu_mask)

    def new_product(self, epilogue: Epilogue, product: Product, **operands: Array) -> Array | None:
        """The product with its epilogue, as a new array; None where it is not supported."""
        if len(product.shape) != 2 or not (product.a.dtype == product.b.dtype == "float32"):
            return None
        out = self.cupy.empty(product.shape, dtype="float32")
        return (
            out
            if self.epilogues.multiply(epilogue, product.a, product.b, out, **operands)
            else None
        )
