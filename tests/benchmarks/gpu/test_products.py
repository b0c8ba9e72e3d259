"""The checks of products pass on a GPU, and fail if products are wrong."""

import numpy as np
import pytest

from benchmarks.gpu.checklist import products
from benchmarks.gpu.checklist.check import FAULT, NOTE, OK, distance

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in products.CHECKS}
EXACT = ["gemm-float64", "gemm-float32", "gemm-float16", "gemm-out", "gemm-captured"]


@pytest.fixture
def few_operands(monkeypatch):
    """Fewer products, for a fault in all of them."""
    monkeypatch.setattr(products, "OPERANDS", products.OPERANDS[:4])


@pytest.mark.parametrize("name", CHECKS)
def test_passes_on_correct_products(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


@pytest.mark.parametrize("name", EXACT)
def test_detects_inaccurate_products(name, check, card, few_operands, monkeypatch):
    from support.standin import products

    multiplied = products.multiplied
    monkeypatch.setattr(products, "multiplied", lambda *operands: multiplied(*operands) * 1.01)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert "2-D" in row.detail or "fresh" in row.detail


def test_detects_a_missing_row(check, card, few_operands, monkeypatch):
    """The memory of a product contains NaN before."""
    from support.standin import products

    gemm = products.gemm_strided_batched_ex

    def without_a_row(handle, transa, transb, m, *rest):
        gemm(handle, transa, transb, max(1, m - 1), *rest)

    monkeypatch.setattr(products, "gemm_strided_batched_ex", without_a_row)
    assert check(CHECKS["gemm-float64"]).verdict == FAULT


def test_detects_a_graph_that_computes_nothing(check, card, few_operands, monkeypatch):
    monkeypatch.setattr(card, "graphLaunch", lambda graph, stream: None)
    assert check(CHECKS["gemm-captured"]).verdict == FAULT


def truncate(x):
    bits = np.ascontiguousarray(x).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def test_tf32_may_truncate_instead_of_rounding(check, card, monkeypatch):
    from support.standin import products

    monkeypatch.setattr(products, "to_tf32", truncate)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == OK, row


def test_detects_tf32_without_effect(check, card, monkeypatch):
    from support.standin import products

    monkeypatch.setattr(products, "to_tf32", lambda x: x)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == FAULT
    assert "no effect" in row.detail


def test_notes_that_cupy_can_capture_its_own_products(check, card, gpu, monkeypatch):
    monkeypatch.setattr("cupy.matmul", gpu.xp.matmul)
    assert check(CHECKS["tripwire"]).verdict == NOTE
    card.complaints.clear()  # its first product allocates memory during the capture


@pytest.mark.parametrize("case", products.OPERANDS, ids=lambda case: case.name)
def test_distance_is_small_only_for_the_right_product(case, rng):
    a, b = case.view_a(rng.standard_normal(case.a)), case.view_b(rng.standard_normal(case.b))
    assert distance(np.matmul(a, b), a, b) < products.PRODUCT_ALLOWED["float64"]
    single = np.matmul(a.astype("float32"), b.astype("float32"))
    assert distance(single, a, b) < products.PRODUCT_ALLOWED["float32"]
    assert distance(np.matmul(a, b) * 1.01, a, b) > 1e-5
    assert not distance(np.matmul(a, b) * np.nan, a, b) <= 1e9
    assert distance(np.zeros((1, 1, 1)), a, b) == float("inf")


def test_notes_an_epilogue_that_cublaslt_lacks(card, gpu):
    from support.standin.epilogues import settings

    from benchmarks.gpu.checklist.check import Setting
    from xpmlp.devices.epilogues import Epilogues

    xp = type(gpu.xp)(**vars(gpu.xp))
    xp.epilogues = Epilogues("full", gpu.xp.matmul.__self__.workspace)
    settings.refused = {"DRELU"}
    try:
        row = products.epilogues(Setting(gpu._replace(xp=xp), 0, True))
    finally:
        settings.refused = set()
    assert (row.verdict, row.detail) == (NOTE, "DRELU")
