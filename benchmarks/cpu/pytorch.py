"""PyTorch as contenders: a user's training loop, eager, with fused Adam, and compiled."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad_and_value

from benchmarks.cpu.problems import Problem, flatten

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8  # PyTorch's defaults
ACTIVATIONS = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}


def network(problem: Problem) -> torch.nn.Sequential:
    """The shape's network with the weights that all contenders start from."""
    layers: list[torch.nn.Module] = []
    for weights, bias in problem.start:
        layers += [torch.nn.Linear(*weights.shape), ACTIVATIONS[problem.shape.activation]()]
        for parameter, value in zip(layers[-2].parameters(), (weights.T, bias), strict=True):
            parameter.data = torch.from_numpy(value.copy(order="C"))
    return torch.nn.Sequential(*layers[:-1])


class Loop:
    """Epochs of minibatches; losses are summed on the device and read at the epoch's end."""

    def __init__(self, problem: Problem, build: Callable[..., Callable[..., Any]]) -> None:
        """build: from the model and the loss to the step, (x, y) -> loss."""
        self.shape, self.shuffle, self.units = problem.shape, problem.shuffle, problem.shape.steps
        self.X, self.y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
        self.model = network(problem)
        if self.shape.loss == "cross_entropy":
            self.loss = torch.nn.functional.cross_entropy
        else:
            self.y = self.y[:, None]
            self.loss = half_squared_error
        self.step = build(self.model, self.loss)
        self.curve: list[float] = []

    def epoch(self) -> None:
        rows, batch, total = len(self.X), self.shape.batch, 0.0
        order = torch.randperm(rows) if self.shuffle else torch.arange(rows)
        for start in range(0, rows, batch):
            index = order[start : start + batch]
            total = total + self.step(self.X[index], self.y[index])
        self.curve.append(float(total) * batch / rows)

    def seconds(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            self.epoch()
        return time.perf_counter() - started

    def result(self, count: int) -> np.ndarray:
        self.seconds(count)
        linear = [layer for layer in self.model if isinstance(layer, torch.nn.Linear)]
        return flatten([(y.weight.detach().numpy().T, y.bias.detach().numpy()) for y in linear])


def half_squared_error(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half of PyTorch's mse_loss, as in xpmlp and scikit-learn."""
    return 0.5 * torch.nn.functional.mse_loss(score, target)


def eager(problem: Problem, **options: Any) -> Loop:
    def build(model: Any, loss: Any) -> Callable[..., Any]:
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, **options)

        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            optimizer.step()
            return value.detach()

        return step

    return Loop(problem, build)


def fused(problem: Problem) -> Loop:
    return eager(problem, fused=True)


def compiled(problem: Problem) -> Loop:
    """The whole step as one compiled graph: gradient and Adam written as functions.

    Compiling the eager step instead breaks the graph at `backward` and is as slow as eager.
    """

    def build(model: Any, loss: Any) -> Callable[..., Any]:
        theta = {name: p.detach() for name, p in model.named_parameters()}
        m, v = ({name: torch.zeros_like(p) for name, p in theta.items()} for _ in range(2))
        t = torch.zeros((), dtype=torch.float64)

        @torch.compile
        def update(theta: Any, m: Any, v: Any, t: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
            g, value = grad_and_value(lambda p: loss(functional_call(model, p, (x,)), y))(theta)
            t += 1
            correction1, correction2 = 1 - BETA1**t, 1 - BETA2**t
            for name, p in theta.items():
                m[name].lerp_(g[name], 1 - BETA1)
                v[name].mul_(BETA2).addcmul_(g[name], g[name], value=1 - BETA2)
                root = (v[name] / correction2).sqrt() + EPS
                p.sub_(RATE / correction1 * m[name] / root)
            return value

        return lambda x, y: update(theta, m, v, t, x, y)

    return Loop(problem, build)
