"""PyTorch as contenders: the loop that its users write, fused, compiled and as a CUDA graph."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.gpu.clock import WARM, Times, median_us
from benchmarks.gpu.works import BETA1, BETA2, EPS, RATE, Problem, joined


class Variant(NamedTuple):
    """What is made faster than the eager loop."""

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
    """Half of PyTorch's mse_loss, as ours."""
    return 0.5 * torch.nn.functional.mse_loss(score, target)


LOSSES = {
    "cross_entropy": torch.nn.functional.cross_entropy,
    "squared_error": half_squared_error,
}


def network(start: list[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Any:
    layers: list[torch.nn.Module] = []
    for weights, bias in start:
        layers += [torch.nn.Linear(*weights.shape), torch.nn.ReLU()]
        for own, given in zip(layers[-2].parameters(), (weights.T, bias), strict=True):
            own.data = torch.from_numpy(given.copy(order="C"))
    return torch.nn.Sequential(*layers[:-1]).to(device)


class Learner:
    """One network with its optimizer, and the minibatch that it learns from."""

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

        def measure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return loss(self.model(x), y)

        self.measure = torch.compile(measure) if variant.compiled else measure
        self.again: Callable[[], object] = self.recorded() if variant.graph else self.step

    def step(self) -> None:
        """One update from the minibatch that lies ready."""
        self.optimizer.zero_grad(set_to_none=True)
        value = self.measure(*self.batch)
        value.backward()
        self.optimizer.step()
        self.total += value.detach()

    def recorded(self) -> Callable[[], object]:
        """The step as a CUDA graph; network and optimizer are left as they were."""
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
            for own, value in zip(self.model.parameters(), saved, strict=True):
                own.copy_(value)
            for memory in self.optimizer.state.values():
                for part in memory.values():
                    part.zero_()
            self.total.zero_()
        return graph.replay

    def epoch(self) -> float:
        """Every row once; the mean loss, as a loop reports it."""
        rows, work = len(self.X), self.problem.work
        draw = torch.randperm if self.problem.shuffle else torch.arange
        order = draw(rows, device=self.X.device)
        x, y = self.batch
        for index in order.split(work.batch):
            torch.index_select(self.X, 0, index, out=x)
            torch.index_select(self.y, 0, index, out=y)
            self.again()
        mean = float(self.total) / work.batches
        self.total.zero_()
        return mean

    def weights(self) -> np.ndarray:
        linear = [layer for layer in self.model if isinstance(layer, torch.nn.Linear)]
        parts = [(layer.weight.detach().cpu(), layer.bias.detach().cpu()) for layer in linear]
        return joined([(w.numpy().T, b.numpy()) for w, b in parts])


def placed(device: str, precision: str) -> torch.device:
    """The device of a word such as "gpu:0"; products of float32 there as asked."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU")
    found = torch.device("cuda", int(device.partition(":")[2] or 0))
    torch.cuda.set_device(found)
    return found


def learners(problem: Problem, variant: str, device: str) -> list[Learner]:
    where = placed(device, problem.work.precision)
    X, y = (torch.from_numpy(part).to(where) for part in (problem.X, problem.y))
    chosen = VARIANTS[variant]
    return [Learner(problem, k, chosen, X, y) for k in range(problem.work.members or 1)]


def learnt(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, numbers)."""
    found = []
    for learner in learners(problem, variant, device):
        learner.epoch()
        found.append(learner.weights())
    return np.stack(found)


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
    everyone = learners(problem, variant, device)

    def epochs() -> None:
        losses = [learner.epoch() for learner in everyone]
        if not np.isfinite(losses).all():
            raise FloatingPointError("the loss is no finite number")

    def step() -> None:
        for learner in everyone:
            learner.again()

    for _ in range(WARM):
        epochs()
    measured = partial(median_us, elapsed, rounds=rounds)
    whole = measured(epochs, calls=1) / problem.work.batches
    return Times(whole, measured(step, calls=max(1, 80 // len(everyone))))


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    where = placed(device, precision)
    return (torch.from_numpy(a).to(where) @ torch.from_numpy(b).to(where)).cpu().numpy()


def variants(members: int | None) -> list[str]:
    """Each network of a population would be compiled anew: that is left out."""
    return [name for name, variant in VARIANTS.items() if not (members and variant.compiled)]
