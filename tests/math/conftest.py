"""PyTorch's own activations and losses: an independent reference, in float64."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def torch(optional) -> Any:
    return optional("torch")


@pytest.fixture
def torch_activation(torch) -> Callable[[str], Callable[[Any], Any]]:
    """PyTorch's activation of the given name."""
    F = torch.nn.functional
    functions = {
        "identity": lambda z: z,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": F.relu,
        "leaky_relu": lambda z, leak=0.01: F.leaky_relu(z, leak),
        "elu": lambda z, alpha=1.0: F.elu(z, alpha),
        "selu": F.selu,
        "gelu": lambda z: F.gelu(z, approximate="tanh"),
        "silu": F.silu,
        "mish": F.mish,
        # PyTorch switches to the identity above `threshold`; beyond 700 both agree in float64
        "softplus": lambda z: F.softplus(z, threshold=700),
    }

    def find(name: str) -> Callable[[Any], Any]:
        word, _, number = name.partition(":")
        f = functions[word]
        return (lambda z: f(z, float(number))) if number else f

    return find


@pytest.fixture
def torch_loss(torch) -> Callable[[str], Callable[[Any, Any], Any]]:
    """PyTorch's loss of the given name: (score, target) -> one value per row."""
    F = torch.nn.functional

    def by_output(values: Any) -> Any:
        return values.sum(-1)

    def poisson(score: Any, target: Any) -> Any:
        # PyTorch omits the terms without the score; with them a perfect fit has loss 0
        constant = torch.xlogy(target, target) - target
        return F.poisson_nll_loss(score, target, reduction="none") + constant

    def gaussian(score: Any, target: Any) -> Any:
        mean, log_variance = score.split(target.shape[-1], dim=-1)
        nll = torch.nn.functional.gaussian_nll_loss
        return nll(mean, target, log_variance.exp(), reduction="none", eps=0)

    def pinball(score: Any, target: Any, *levels: float) -> Any:
        k = target.shape[-1]
        q = torch.tensor(levels or (0.5,), dtype=score.dtype).repeat_interleave(k)
        target = torch.cat([target] * (score.shape[-1] // k), dim=-1)
        return torch.where(target > score, q * (target - score), (q - 1) * (target - score))

    def cross_entropy(score: Any, target: Any, smoothing: float = 0.0) -> Any:
        rows = score.reshape(-1, score.shape[-1]), target.reshape(-1, score.shape[-1])
        value = F.cross_entropy(*rows, reduction="none", label_smoothing=smoothing)
        return value.reshape(score.shape[:-1])

    none = {"reduction": "none"}
    functions = {
        "squared_error": lambda s, t: by_output(F.mse_loss(s, t, **none)) / 2,
        "absolute_error": lambda s, t: by_output(F.l1_loss(s, t, **none)),
        "huber": lambda s, t, delta=1.0: by_output(F.huber_loss(s, t, delta=delta, **none)),
        "quantile": lambda s, t, *levels: by_output(pinball(s, t, *levels)),
        "gaussian": lambda s, t: by_output(gaussian(s, t)),
        "poisson": lambda s, t: by_output(poisson(s, t)),
        "binary_cross_entropy": lambda s, t: by_output(
            F.binary_cross_entropy_with_logits(s, t, **none)
        ),
        "cross_entropy": cross_entropy,
    }

    def find(name: str) -> Callable[[Any, Any], Any]:
        word, _, arguments = name.partition(":")
        numbers = [float(piece) for piece in arguments.split(",") if piece]
        return lambda score, target: functions[word](score, target, *numbers)

    return find
