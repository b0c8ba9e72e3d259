"""The checks of products pass on a GPU, and fail where products are wrong."""

import numpy as np
import pytest

from benchmarks.gpu.checklist import products
from benchmarks.gpu.checklist.check import FAULT, NOTE, OK, distance

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in products.CHECKS}
EXACT = ["gemm-float64", "gemm-float32", "gemm-float16", "gemm-out", "gemm-captured"]


@pytest.fixture
def few(monkeypatch):
    """Fewer products, for a fault that shows in all of them."""
    monkeypatch.setattr(products, "OPERANDS", products.OPERANDS[:4])


@pytest.mark.parametrize("name", CHECKS)
def test_right_products_pass(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


@pytest.mark.parametrize("name", EXACT)
def test_products_that_are_off_are_seen(name, check, card, few, monkeypatch):
    from support.standin import products

    multiplied = products.multiplied
    monkeypatch.setattr(products, "multiplied", lambda *given: multiplied(*given) * 1.01)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert "2-D" in row.detail or "fresh" in row.detail


def test_a_row_that_is_left_out_is_seen(check, card, few, monkeypatch):
    """The memory that a product is made in holds NaN before."""
    from support.standin import products

    gemm = products.gemm_strided_batched_ex

    def lacking(handle, transa, transb, m, *rest):
        gemm(handle, transa, transb, max(1, m - 1), *rest)

    monkeypatch.setattr(products, "gemm_strided_batched_ex", lacking)
    assert check(CHECKS["gemm-float64"]).verdict == FAULT


def test_a_graph_that_computes_nothing_is_seen(check, card, few, monkeypatch):
    monkeypatch.setattr(card, "graphLaunch", lambda graph, stream: None)
    assert check(CHECKS["gemm-captured"]).verdict == FAULT


def truncated(x):
    words = np.ascontiguousarray(x).view(np.uint32)
    return (words & np.uint32(0xFFFFE000)).view(np.float32)


def test_tf32_may_truncate_instead_of_rounding(check, card, monkeypatch):
    from support.standin import products

    monkeypatch.setattr(products, "to_tf32", truncated)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == OK, row


def test_tf32_without_an_effect_is_seen(check, card, monkeypatch):
    from support.standin import products

    monkeypatch.setattr(products, "to_tf32", lambda x: x)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == FAULT
    assert "no effect" in row.detail


def test_the_day_cupy_captures_its_own_products_is_noted(check, card, gpu, monkeypatch):
    monkeypatch.setattr("cupy.matmul", gpu.xp.matmul)
    assert check(CHECKS["tripwire"]).verdict == NOTE
    card.complaints.clear()  # its first product takes memory, within the capture


@pytest.mark.parametrize("case", products.OPERANDS, ids=lambda case: case.name)
def test_distance_is_small_for_the_product_and_large_for_another(case, rng):
    a, b = case.of_a(rng.standard_normal(case.a)), case.of_b(rng.standard_normal(case.b))
    assert distance(np.matmul(a, b), a, b) < products.PRODUCT_ALLOWED["float64"]
    single = np.matmul(a.astype("float32"), b.astype("float32"))
    assert distance(single, a, b) < products.PRODUCT_ALLOWED["float32"]
    assert distance(np.matmul(a, b) * 1.01, a, b) > 1e-5
    assert not distance(np.matmul(a, b) * np.nan, a, b) <= 1e9
    assert distance(np.zeros((1, 1, 1)), a, b) == float("inf")


def test_an_end_that_cublaslt_lacks_is_noted(card, gpu):
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
