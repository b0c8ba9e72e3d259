"""Scores against their formulas."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from xpmlp.tabular.scoring import class_scores, number_scores, round_scores, score_table

ROUNDING = 1e-9


@given(seed=st.integers(0, 99), classes=st.integers(2, 4))
def test_class_scores_match_their_formulas(seed, classes):
    rng = np.random.default_rng(seed)
    names = np.array(["a", "b", "c", "d"][:classes])
    codes = np.concatenate([np.arange(classes), rng.integers(0, classes, 30)])
    proba = rng.dirichlet(np.ones(classes), len(codes))
    scores = class_scores(names[codes], names, proba)
    assert scores["accuracy"] == pytest.approx(np.mean(proba.argmax(axis=1) == codes))
    nats = -np.log(proba[np.arange(len(codes)), codes]).mean()
    assert scores["log_loss"] == pytest.approx(nats, rel=ROUNDING)
    columns = [1] if classes == 2 else range(classes)
    areas = [area(proba[codes == c, c], proba[codes != c, c]) for c in columns]
    assert scores["auc"] == pytest.approx(np.mean(areas), rel=ROUNDING)


def area(positive, negative):
    """How often a row of the class is ranked above a row of another class; a tie counts half."""
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    return sum(pairs) / len(pairs)


def test_auc_is_omitted_if_a_class_is_missing():
    names = np.array(["a", "b"])
    scores = class_scores(np.array(["a", "a"]), names, np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert set(scores) == {"accuracy", "log_loss"}
    assert scores["accuracy"] == 0.5


def test_number_scores_match_their_formulas(rng):
    truth, predicted = rng.normal(size=(2, 50))
    scores = number_scores(truth, predicted)
    error = truth - predicted
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=ROUNDING)
    assert scores["mae"] == pytest.approx(abs(error).mean(), rel=ROUNDING)
    share = (error**2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert scores["r2"] == pytest.approx(1 - share, rel=ROUNDING)


@pytest.mark.parametrize("power", [-1000, -500, -1, 1, 500, 1020])
def test_number_scores_do_not_overflow(power, rng):
    truth, predicted = rng.uniform(1, 2, size=(2, 50))
    scores = number_scores(truth, predicted)
    moved = number_scores(truth * 2.0**power, predicted * 2.0**power)
    assert moved == {
        "rmse": scores["rmse"] * 2.0**power, "mae": scores["mae"] * 2.0**power, "r2": scores["r2"]
    }  # fmt: skip


def test_number_scores_of_zeros_are_zero():
    assert number_scores(np.zeros(3), np.zeros(3)) == {"rmse": 0, "mae": 0, "r2": 1}


def test_one_row_has_no_r2():
    scores = number_scores(np.array([1.0]), np.array([3.0]))
    assert (scores["rmse"], scores["mae"]) == (2, 2)
    assert np.isnan(scores["r2"])


def test_the_table_shows_model_and_baseline():
    lines = score_table({"rmse": 0.25, "r2": 0.9}, {"rmse": 1.5}).splitlines()
    assert lines[0].split() == ["held-out", "this", "model", "baseline"]
    assert [line.split() for line in lines[1:]] == [["rmse", "0.25", "1.5"], ["r2", "0.9", "nan"]]
    assert len(set(map(len, lines))) == 1


def test_scores_have_six_digits():
    assert round_scores({"a": 0.123456789, "b": 1234567.0}) == {"a": 0.123457, "b": 1.23457e6}


def test_nan_is_null_in_json():
    assert round_scores({"r2": float("nan"), "rmse": float("inf")}) == {"r2": None, "rmse": None}
