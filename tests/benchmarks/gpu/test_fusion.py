"""The checks of kernels pass on a GPU, and fail where a kernel computes something else."""

import pytest

from benchmarks.gpu.checklist import fusion
from benchmarks.gpu.checklist.check import FAULT, FIGURE, OK
from xpmlp.activations import ACTIVATIONS
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording import codegen as sources, cuda_writer as kernels
from xpmlp.spec import Spec
from xpmlp.step import PENALTIES

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in fusion.CHECKS}
EVERY = {  # functions of a kind that are kernels, in one dtype
    "fused-rules": len(OPTIMIZERS),
    "fused-activations": 2 * len(ACTIVATIONS),
    "fused-penalties": 2 * len(PENALTIES),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(fusion, "SMALL", Spec.parse("6-5-4", loss="cross_entropy"))


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "kernels"])
def test_every_function_is_itself_as_a_kernel(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row
    if name in EVERY:
        assert sum(row.figures["kernels"].values()) == 2 * EVERY[name]


@pytest.mark.parametrize(
    ("name", "form", "wrong"),
    [
        ("fused-rules", "subtract", "{1} - {0}"),
        ("fused-activations", "maximum", "{0} > {1} ? {0} : {1}"),  # without its care for NaN
        ("fused-penalties", "multiply", "{} * {} * T(1.0001)"),
        ("fused-outcomes", "multiply", "{} + {}"),
    ],
)
def test_another_formula_is_seen(name, form, wrong, check, card, monkeypatch):
    monkeypatch.setitem(sources.FORMS, form, wrong)
    assert check(CHECKS[name]).verdict == FAULT


def test_a_sum_in_the_wrong_place_is_seen(check, card, monkeypatch):
    monkeypatch.setattr(
        kernels.CudaBackend, "sum", lambda of, x, axis, keepdims: of.base.sum(x[:3], axis=-2)
    )
    assert check(CHECKS["fused-layers"]).verdict == FAULT


def test_nodes_are_counted_before_and_after(check):
    row = check(CHECKS["kernels"])
    assert row.verdict == FIGURE, row
    assert 5 < row.figures["after"]["kernel"] < row.figures["before"]["kernel"]


def test_kernels_that_save_no_nodes_are_seen(check, card, monkeypatch):
    monkeypatch.setattr(fusion, "unfused", lambda trainer: trainer)
    assert check(CHECKS["kernels"]).verdict == FAULT
