"""The checks of fused kernels pass on a GPU, and fail if a kernel is wrong."""

import pytest

from benchmarks.gpu.checklist import fusion
from benchmarks.gpu.checklist.check import FAULT, FIGURE, OK
from xpmlp.activations import ACTIVATIONS
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording import codegen, cuda_writer
from xpmlp.spec import Spec
from xpmlp.step import PENALTIES

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in fusion.CHECKS}
KERNELS = {  # number of kernels of a kind, per dtype
    "fused-rules": len(OPTIMIZERS),
    "fused-activations": 2 * len(ACTIVATIONS),
    "fused-penalties": 2 * len(PENALTIES),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(fusion, "SMALL", Spec.parse("6-5-4", loss="cross_entropy"))


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "kernels"])
def test_every_kernel_matches_its_function(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row
    if name in KERNELS:
        assert sum(row.figures["kernels"].values()) == 2 * KERNELS[name]


@pytest.mark.parametrize(
    ("name", "form", "wrong"),
    [
        ("fused-rules", "subtract", "{1} - {0}"),
        ("fused-activations", "maximum", "{0} > {1} ? {0} : {1}"),  # which does not propagate NaN
        ("fused-penalties", "multiply", "{} * {} * T(1.0001)"),
        ("fused-outcomes", "multiply", "{} + {}"),
    ],
)
def test_detects_a_wrong_formula(name, form, wrong, check, card, monkeypatch):
    monkeypatch.setitem(codegen.FORMS, form, wrong)
    assert check(CHECKS[name]).verdict == FAULT


def test_detects_a_wrong_sum(check, card, monkeypatch):
    monkeypatch.setattr(
        cuda_writer.CudaBackend,
        "sum",
        lambda self, x, axis, keepdims: self.base.sum(x[:3], axis=-2),
    )
    assert check(CHECKS["fused-layers"]).verdict == FAULT


def test_fused_kernels_reduce_the_number_of_nodes(check):
    row = check(CHECKS["kernels"])
    assert row.verdict == FIGURE, row
    assert 5 < row.figures["after"]["kernel"] < row.figures["before"]["kernel"]


def test_detects_kernels_that_save_no_nodes(check, card, monkeypatch):
    monkeypatch.setattr(fusion, "unfused", lambda trainer: trainer)
    assert check(CHECKS["kernels"]).verdict == FAULT
