"""Checks of GPU memory: other users between replays, freed trainers, and many steps."""

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
    check_all,
    new_stream,
    use_default_pool,
)
from benchmarks.gpu.checklist.runs import (
    CASE_BY_NAME,
    SMALL,
    case_trainer,
    open_reports,
    quick_spec,
    recorder,
    same_bits,
    sized_trainer,
)
from xpmlp.devices.gemm import WORKSPACE
from xpmlp.devices.namespace import Place, running
from xpmlp.training.batches import unbiased
from xpmlp.training.train import finish
from xpmlp.types import Array

# 5. memory ------------------------------------------------------------------------------------


def foreign_arrays() -> list[Any]:
    """Arrays full of sevens, of the sizes of a small training."""
    import cupy

    return [cupy.full(1 << k, 7.0, dtype="float32") for k in range(16)]


def crowded(env: Setting) -> Result:
    """Allocations of others before every replay change neither the training nor their arrays."""
    rng, conditions = np.random.default_rng([env.seed, 5]), {}
    streams = [new_stream(env.place) for _ in range(3)]

    def allocate(*arguments: Any) -> Any:
        use_default_pool(streams, rng, 2 if env.quick else 40)
        return unbiased(*arguments)

    for name in ("classes, dropout", "three members, dropout", "mish, l1, l2, clipped"):
        trainer, reference = (case_trainer(env, CASE_BY_NAME[name], "float32") for _ in range(2))
        trainer.row_weights = allocate
        foreign: list[Any] = []
        for report in trainer.reports():
            with running(env.place):
                foreign += foreign_arrays() if report.epoch < 5 else []
        finish(reference, [])
        conditions[f"{name} is recorded"] = set(trainer.history["executor"]) == {"captured"}
        conditions[name] = same_bits(trainer, reference)
        conditions[f"{name} leaves others alone"] = all(is_unchanged(array) for array in foreign)
    return check_all(conditions)


def is_unchanged(array: Array) -> bool:
    return bool((array == 7.0).all())


def free_bytes(place: Place) -> int:
    """Free bytes of the card, after freeing all unused memory of this process."""
    import cupy

    gc.collect()
    with running(place):
        place.device.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.cuda.runtime.memGetInfo()[0])


def train_and_drop(env: Setting) -> int:
    """Train by recorded steps, drop the trainer, and return the bytes still used in its pool."""
    trainer = sized_trainer(env.place, SMALL, 128, 4, env.seed)
    with open_reports(trainer) as reports:
        for _ in islice(reports, 3):
            pass
        executor = recorder(trainer)
        if executor.name != "captured":
            raise RuntimeError("the steps were not recorded")
    del trainer
    return sum(int(pool.used_bytes()) for pool in executor.pools)


def dropped(env: Setting) -> Result:
    """Dropped trainers leave no memory behind, except the first, which fills caches."""
    pool_bytes = [train_and_drop(env)]
    before = free_bytes(env.place)
    pool_bytes += [train_and_drop(env) for _ in range(4)]
    lost = before - free_bytes(env.place)
    allowed = 8 << 20
    detail = (
        f"each left up to {max(pool_bytes) / 2**20:.0f} MiB in its pool; the workspace of products "
        f"is {WORKSPACE / 2**20:.0f} MiB per stream"
    )
    figure = f"{lost / 2**20:.1f} MiB after 4 more trainers"
    verdict, detail = (OK, "") if lost <= allowed else (FAULT, detail)
    figures = {"lost": lost, "pool_bytes": pool_bytes}
    return Result(figure, f"{allowed >> 20} MiB", verdict, detail, figures)


# 11. memory over many steps -------------------------------------------------------------------


def flat_memory(env: Setting) -> Result:
    """Many steps take no memory of the card or of the pool."""
    count, allowed = 200 if env.quick else 10_000, 2 << 20
    trainer = sized_trainer(env.place, quick_spec(SMALL) if env.quick else SMALL, 128, 16, env.seed)
    with open_reports(trainer) as reports:
        # the driver's queues grow in the first epochs
        first = next(report for report in reports if report.epoch == 8)
        pools = recorder(trainer).pools
        before, pool_before = free_bytes(env.place), sum(pool.total_bytes() for pool in pools)
        last = next(report for report in reports if report.step >= first.step + count)
        lost = before - free_bytes(env.place)
        grown = sum(pool.total_bytes() for pool in pools) - pool_before
    passed = lost <= allowed and grown == 0 and last.executor == "captured"
    steps = last.step - first.step
    figures = {"lost": lost, "grown": grown, "steps": steps, "executor": last.executor}
    figure = f"{max(lost, 0)} bytes of the card, {grown} of the pool, {steps} steps {last.executor}"
    return Result(figure, "2 MiB, 0", OK if passed else FAULT, figures=figures)


CHECKS = (
    Check(5, "crowded", crowded),
    Check(5, "dropped", dropped),
    Check(11, "flat-memory", flat_memory),
)
