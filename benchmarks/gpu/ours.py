"""xpmlp as contenders: as `train` runs it, without recording, and without the kernels too."""

import numpy as np

from benchmarks.gpu.checklist.runs import under_way, unfused
from benchmarks.gpu.checklist.steps import timed
from benchmarks.gpu.clock import Times
from benchmarks.gpu.works import Problem, joined
from xpmlp import __version__
from xpmlp.devices.namespace import running, to_host, to_place
from xpmlp.devices.words import place_for
from xpmlp.layout import windows
from xpmlp.training.steps import Run
from xpmlp.training.train import assemble

VARIANTS = {"captured": "captured", "eager": "eager", "eager, unfused": "eager"}  # and their way
VERSION = __version__
CLOCK = "events"


def begun(problem: Problem, variant: str, device: str) -> Run:
    work = problem.work
    run = assemble(
        work.spec,
        problem.X,
        problem.y,
        batch=work.batch,
        epochs=10**6,
        seed=problem.seed,
        members=work.members,
        shuffle=problem.shuffle,
        precision=work.precision if problem.X.dtype == np.float32 else "full",
        capture=variant == "captured",
        device=device,
    )
    return unfused(run) if variant == "eager, unfused" else run


def check_way(run: Run, variant: str) -> None:
    ways = set(run.history["way"])
    if ways != {VARIANTS[variant]}:
        raise RuntimeError(f"{variant} ran {', '.join(sorted(ways))}")


def learnt(problem: Problem, variant: str, device: str) -> np.ndarray:
    """The weights after an epoch, (networks, numbers)."""
    run = begun(problem, variant, device)
    with under_way(run) as coming:
        next(coming)
    check_way(run, variant)
    layers = windows(np, run.spec, to_host(run.state.params))
    held = problem._replace(start=layers)
    return np.stack([joined(held.member(k)) for k in range(problem.work.members or 1)])


def times(problem: Problem, variant: str, device: str, rounds: int) -> Times:
    run = begun(problem, variant, device)
    found = timed(run, rounds)
    check_way(run, variant)
    if not np.isfinite(run.history["loss"]).all():
        raise FloatingPointError("the loss is no finite number")
    return Times(*found)


def product(a: np.ndarray, b: np.ndarray, precision: str, device: str) -> np.ndarray:
    place = place_for(device, precision)
    with running(place):
        return to_host(place.xp.matmul(to_place(place, a), to_place(place, b)))


def variants(members: int | None) -> list[str]:
    return list(VARIANTS)
