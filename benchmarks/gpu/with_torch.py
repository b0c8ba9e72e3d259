"""PyTorch as contenders: a user's training loop, fused, compiled and as a CUDA graph."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.gpu.clock import WARMUP_EPOCHS, Times, median_us
from benchmarks.gpu.works import BETA1, BETA2, EPS, RATE, Problem, flatten


class Variant(NamedTuple):
    """Optimizations of the eager loop."""

    fused: bool = False  # Adam in one kernel
    compiled: bool = False  # loss and gradient by torch.compile
    graph: bool = False  # the step as a CUDA graph


VARIANTS = {
    "eager": Variant(),
    "eager, fused Adam": Variant(fused=True),
    "compiled, fused Adam": Variant(fused=True, compiled=True),
    "CUDA graph, fused Adam": Variant(fused=True, graph=True),
    "CUDA graph, compiled, fused Adam": Variant(fused=True, compiled=True, graph=True),
}
VERSION = torch.__version__
CLOCK = "events"


def half_squared_error(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Half of PyTorch's mse_loss, as in xpmlp."""
    return 0.5 * torch.nn.functional.mse_loss(score, target)


LOSSES = {
    "cross_entropy": torch.nn.functional.cross_entropy,
    "squared_error": half_squared_error,
}


def network(start: list[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Any:
    layers: list[torch.nn.Module] = []
    for weights, bias in start:
        layers += [torch.nn.Linear(*weights.shape), torch.nn.ReLU()]
        for parameter, value in zip(layers[-2].parameters(), (weights.T, bias), strict=True):
            parameter.data = torch.from_numpy(value.copy(order="C"))
    return torch.nn.Sequential(*layers[:-1]).to(device)


class Learner:
    """One network with its optimizer and its current minibatch."""

    def __init__(
        self, problem: Problem, k: int, variant: Variant, X: torch.Tensor, y: torch.Tensor
    ) -> None:
        work = problem.work
        self.problem, self.X, self.y = problem, X, y
        self.model = network(problem.member(k), X.device)
        self.batch = X[: work.batch].clone(), y[: work.batch].clone()
        self.total = torch.zeros((), dtype=X.dtype, device=X.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=RATE, betas=(BETA1, BETA2), eps=EPS,
            fused=variant.fused or None, capturable=variant.graph,
        )  # fmt: skip
        loss = LOSSES[work.loss]

        def compute_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return loss(self.model(x), y)

        self.compute_loss = torch.compile(compute_loss) if variant.compiled else compute_loss
        self.run_step: Callable[[], object] = self.record() if variant.graph else self.step

    def step(self) -> None:
        """One update on the current minibatch."""
        self.optimizer.zero_grad(set_to_none=True)
        value = self.compute_loss(*self.batch)
        value.backward()
        self.optimizer.step()
        self.total += value.detach()

    def record(self) -> Callable[[], object]:
        """The step as a CUDA graph; network and optimizer keep their state."""
        saved = [p.detach().clone() for p in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), saved, strict=True):
                parameter.copy_(value)
            for slots in self.optimizer.state.values():
                for slot in slots.values():
                    slot.zero_()
            self.total.zero_()
        return graph.replay

    def epoch(self) -> float:
        """Train on every row once; return the mean loss."""
        rows, work = len(self.X), self.problem.work
        draw = torch.randperm if self.problem.shuffle else torch.arange
        order = draw(rows, device=self.X.device)
        x, y = self.batch
        for index in order.split(work.batch):
            torch.index_select(self.X, 0, index, out=x)
            torch.index_select(self.y, 0, index, out=y)
            self.run_step()
        mean = float(self.total) / work.batches
        self.total.zero_()
        return mean

    def weights(self) -> np.ndarray:
        linear = [layer for layer in self.model if isinstance(layer, torch.nn.Linear)]
        parts = [(layer.weight.detach().cpu(), layer.bias.detach().cpu()) for layer in linear]
        return flatten([(w.numpy().T, b.numpy()) for w, b in parts])


def set_device(device: str, precision: str) -> torch.device:
    """Use a device such as "gpu:0" with this precision of float32 products."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU")
    cuda_device = torch.device("cuda", int(device.partition(":")[2] or 0))
    torch.cuda.set_device(cuda_device)
    return cuda_device


def learners(problem: Problem, variant: str, device: str) -> list[Learner]:
    target = set_device(device, problem.work.precision)
    X, y = (torch.from_numpy(part).to(target) for part in (problem.X, problem.y))
    return [Learner(problem, k, VARIANTS[variant], X, y) for k in range(problem.work.members or 1)]


def trained_weights(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, parameters)."""
    weights = []
    for learner in learners(problem, variant, device):
        learner.epoch()
        weights.append(learner.weights())
    return np.stack(weights)


def elapsed(call: Callable[[], object], calls: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls * 1e3


def times(problem: Problem, variant: str, device: str, rounds: int) -> Times:
    """The networks of a population are trained one after another."""
    networks = learners(problem, variant, device)

    def epochs() -> None:
        losses = [learner.epoch() for learner in networks]
        if not np.isfinite(losses).all():
            raise FloatingPointError("the loss is not finite")

    def step() -> None:
        for learner in networks:
            learner.run_step()

    for _ in range(WARMUP_EPOCHS):
        epochs()
    measure = partial(median_us, elapsed, rounds=rounds)
    per_epoch = measure(epochs, calls=1) / problem.work.batches
    return Times(per_epoch, measure(step, calls=max(1, 80 // len(networks))))


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    target = set_device(device, precision)
    return (torch.from_numpy(a).to(target) @ torch.from_numpy(b).to(target)).cpu().numpy()


def variants(members: int | None) -> list[str]:
    """The variants for this number of members; each member would be compiled separately."""
    return [name for name, variant in VARIANTS.items() if not (members and variant.compiled)]
