"""Checks of memory on a GPU: others use it between replays, it comes back, and it stays flat."""

import gc
from itertools import islice
from typing import Any

import numpy as np

from benchmarks.gpu.checklist.check import (
    FAULT,
    OK,
    Check,
    Result,
    Setting,
    counted,
    disturb,
    new_lane,
)
from benchmarks.gpu.checklist.runs import (
    NAMED,
    SMALL,
    begun,
    quick_spec,
    recorder,
    same,
    sized,
    under_way,
)
from xpmlp.devices.gemm import WORKSPACE
from xpmlp.devices.namespace import Place, running
from xpmlp.training.batches import unbiased
from xpmlp.training.train import finish
from xpmlp.types import Array

# 5. memory ------------------------------------------------------------------------------------


def bystanders() -> list[Any]:
    """Arrays of somebody else's, all sevens, of as many sizes as a small training's."""
    import cupy

    return [cupy.full(1 << k, 7.0, dtype="float32") for k in range(16)]


def crowded(on: Setting) -> Result:
    """Others allocating before every window's replay, against training alone: neither notices."""
    rng, found = np.random.default_rng([on.seed, 5]), {}
    lanes = [new_lane(on.place) for _ in range(3)]

    def crowd(*given: Any) -> Any:
        disturb(lanes, rng, 2 if on.quick else 40)
        return unbiased(*given)

    for name in ("classes, dropout", "three members, dropout", "mish, l1, l2, clipped"):
        crowd_in, alone = (begun(on, NAMED[name], "float32") for _ in range(2))
        crowd_in.row_weights = crowd
        others: list[Any] = []
        for report in crowd_in.reports():
            with running(on.place):
                others += bystanders() if report.epoch < 5 else []
        finish(alone, [])
        found[f"{name} is recorded"] = set(crowd_in.history["executor"]) == {"captured"}
        found[name] = same(crowd_in, alone)
        found[f"{name} leaves others alone"] = all(sevens(array) for array in others)
    return counted(found)


def sevens(array: Array) -> bool:
    return bool((array == 7.0).all())


def free_bytes(place: Place) -> int:
    """Bytes free on the card when nobody holds what could be let go of."""
    import cupy

    gc.collect()
    with running(place):
        place.device.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.cuda.runtime.memGetInfo()[0])


def one_trainer(on: Setting) -> int:
    """Train by recorded steps, and drop it all; what its pool still lends afterwards, in bytes."""
    trainer = sized(on.place, SMALL, 128, 4, on.seed)
    with under_way(trainer) as coming:
        for _ in islice(coming, 3):
            pass
        executor = recorder(trainer)
        if executor.name != "captured":
            raise RuntimeError("the steps were not recorded")
    del trainer
    return sum(int(pool.used_bytes()) for pool in executor.pools)


def dropped(on: Setting) -> Result:
    """Trainers that come and go leave no memory behind; the first pays for what is kept."""
    kept = [one_trainer(on)]
    before = free_bytes(on.place)
    kept += [one_trainer(on) for _ in range(4)]
    lost = before - free_bytes(on.place)
    allowed = 8 << 20
    detail = (
        f"each left up to {max(kept) / 2**20:.0f} MiB in its pool; the product's workspace of "
        f"every stream it has seen is {WORKSPACE / 2**20:.0f} MiB"
    )
    shown = f"{lost / 2**20:.1f} MiB after 4 more trainers"
    verdict = OK if lost <= allowed else FAULT
    said = detail if verdict == FAULT else ""
    return Result(shown, f"{allowed >> 20} MiB", verdict, said, {"lost": lost, "kept": kept})


# 11. memory over many steps -------------------------------------------------------------------


def flat_memory(on: Setting) -> Result:
    """Steps take no memory: the card and the pool before and after many of them."""
    count, allowed = 200 if on.quick else 10_000, 2 << 20
    trainer = sized(on.place, quick_spec(SMALL) if on.quick else SMALL, 128, 16, on.seed)
    with under_way(trainer) as coming:
        first = next(report for report in coming if report.epoch == 8)  # the driver's queues grow
        pools = recorder(trainer).pools
        before, pooled = free_bytes(on.place), sum(pool.total_bytes() for pool in pools)
        last = next(report for report in coming if report.step >= first.step + count)
        lost = before - free_bytes(on.place)
        grown = sum(pool.total_bytes() for pool in pools) - pooled
    right = lost <= allowed and grown == 0 and last.executor == "captured"
    steps = last.step - first.step
    figures = {"lost": lost, "grown": grown, "steps": steps, "executor": last.executor}
    shown = f"{max(lost, 0)} bytes of the card, {grown} of the pool, {steps} steps {last.executor}"
    return Result(shown, "2 MiB, 0", OK if right else FAULT, figures=figures)


CHECKS = (
    Check(5, "crowded", crowded),
    Check(5, "dropped", dropped),
    Check(11, "flat-memory", flat_memory),
)
