"""xpmlp as contenders: captured as `train` runs it, eager, and eager without fused kernels."""

import numpy as np

from benchmarks.gpu.checklist.runs import open_reports, unfused
from benchmarks.gpu.checklist.steps import time_trainer
from benchmarks.gpu.clock import Times
from benchmarks.gpu.works import Problem, flatten
from xpmlp import __version__
from xpmlp.devices.namespace import running, to_host, to_place
from xpmlp.devices.words import place_for
from xpmlp.layout import windows
from xpmlp.training.train import make_trainer
from xpmlp.training.trainer import Trainer

# the executor of each variant
VARIANTS = {"captured": "captured", "eager": "eager", "eager, unfused": "eager"}
VERSION = __version__
CLOCK = "events"


def new_trainer(problem: Problem, variant: str, device: str) -> Trainer:
    work = problem.work
    trainer = make_trainer(
        work.spec,
        problem.X,
        problem.y,
        batch_size=work.batch,
        epochs=10**6,
        seed=problem.seed,
        members=work.members,
        shuffle=problem.shuffle,
        precision=work.precision if problem.X.dtype == np.float32 else "full",
        capture=variant == "captured",
        device=device,
    )
    return unfused(trainer) if variant == "eager, unfused" else trainer


def check_executor(trainer: Trainer, variant: str) -> None:
    executors = set(trainer.history["executor"])
    if executors != {VARIANTS[variant]}:
        raise RuntimeError(f"{variant} ran {', '.join(sorted(executors))}")


def trained_weights(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, parameters)."""
    trainer = new_trainer(problem, variant, device)
    with open_reports(trainer) as reports:
        next(reports)
    check_executor(trainer, variant)
    layers = windows(np, trainer.spec, to_host(trainer.state.params))
    trained = problem._replace(start=layers)
    return np.stack([flatten(trained.member(k)) for k in range(problem.work.members or 1)])


def times(problem: Problem, variant: str, device: str, rounds: int) -> Times:
    trainer = new_trainer(problem, variant, device)
    measured = time_trainer(trainer, rounds)
    check_executor(trainer, variant)
    if not np.isfinite(trainer.history["loss"]).all():
        raise FloatingPointError("the loss is not finite")
    return Times(*measured)


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    place = place_for(device, precision)
    with running(place):
        return to_host(place.xp.matmul(to_place(place, a), to_place(place, b)))


def variants(members: int | None) -> list[str]:
    return list(VARIANTS)
