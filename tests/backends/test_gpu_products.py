"""The checks of products pass on the stand-in, and fail where products are wrong."""

import numpy as np
import pytest

from xpmlp.backends import gpu_products
from xpmlp.backends.gpu_bench import FAULT, NOTE, OK, distance

pytestmark = pytest.mark.slow  # a whole checklist through the stand-in

CHECKS = {check.name: check for check in gpu_products.CHECKS}
EXACT = ["gemm-float64", "gemm-float32", "gemm-float16", "gemm-out", "gemm-captured"]


def coarse(recording):
    """A namespace whose products have ten bits of mantissa, as in TF32."""

    def rounded(x):
        return recording.compute(
            lambda data: (data.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32), x
        )

    changed = vars(recording.XP) | {
        "matmul": lambda a, b, out=None: recording.matmul(rounded(a), rounded(b), out)
    }
    return type(recording.XP)(**changed)


@pytest.mark.parametrize("name", [*EXACT, "tripwire"])
def test_right_products_pass(name, check):
    row = check(CHECKS[name])
    assert row.verdict == OK, row


@pytest.mark.parametrize("name", EXACT)
def test_products_that_are_off_are_seen(name, check, recording, monkeypatch):
    def off(a, b, out=None):
        found = recording.matmul(a, b, out)
        found[...] = found * 1.01
        return found

    monkeypatch.setattr(recording.XP, "matmul", off)
    row = check(CHECKS[name])
    assert row.verdict == FAULT
    assert "2-D" in row.detail or "fresh" in row.detail


def test_a_place_that_is_left_out_is_seen(check, recording, monkeypatch):
    """The memory that a product is made in holds NaN before."""

    def lacking(a, b, out=None):
        found = recording.matmul(a, b, out)
        whole = recording.empty(found.shape, found.dtype)
        if found.ndim > 1:
            whole[1:] = found[1:]
        return whole if found.ndim > 1 else found

    monkeypatch.setattr(recording.XP, "matmul", lacking)
    assert check(CHECKS["gemm-float64"]).verdict == FAULT


def test_a_graph_that_computes_nothing_is_seen(check, recording, monkeypatch):
    monkeypatch.setattr(recording.Graph, "launch", lambda graph: None)
    assert check(CHECKS["gemm-captured"]).verdict == FAULT


def test_tf32_is_coarser_and_where_it_has_no_effect_that_is_seen(
    check, gpu, recording, monkeypatch
):
    fast = gpu._replace(xp=coarse(recording))
    monkeypatch.setattr(gpu_products.cuda, "place", lambda index, precision: fast)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == OK, row
    monkeypatch.setattr(gpu_products.cuda, "place", lambda index, precision: gpu)
    row = check(CHECKS["gemm-tf32"])
    assert row.verdict == FAULT
    assert "no effect" in row.detail


def test_the_day_cupy_records_its_own_products_is_noted(check, recording, monkeypatch):
    monkeypatch.setattr(recording.CUPY, "matmul", recording.matmul)
    assert check(CHECKS["tripwire"]).verdict == NOTE


@pytest.mark.parametrize("case", gpu_products.OPERANDS, ids=lambda case: case.name)
def test_distance_is_small_for_the_product_and_large_for_another(case, rng):
    a, b = case.of_a(rng.standard_normal(case.a)), case.of_b(rng.standard_normal(case.b))
    assert distance(np.matmul(a, b), a, b) < gpu_products.PRODUCT_ALLOWED["float64"]
    single = np.matmul(a.astype("float32"), b.astype("float32"))
    assert distance(single, a, b) < gpu_products.PRODUCT_ALLOWED["float32"]
    assert distance(np.matmul(a, b) * 1.01, a, b) > 1e-5
    assert not distance(np.matmul(a, b) * np.nan, a, b) <= 1e9
    assert distance(np.zeros((1, 1, 1)), a, b) == float("inf")
