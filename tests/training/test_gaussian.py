"""The Gaussian loss: a mean and a variance for each target, in `train`, estimators and files."""

import numpy as np
import pytest

import xpmlp
from xpmlp import MLPRegressor, train
from xpmlp.devices.namespace import to_host

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def rows(rng):
    X = rng.uniform(-1, 1, (800, 1))
    deviation = 0.05 + 0.4 * (X[:, 0] > 0)
    return X, X[:, 0] + deviation * rng.standard_normal(800)


def test_learns_mean_and_deviation(rows):
    X, y = rows
    settled = {"learning_rate": 0.01, "schedule": "cosine", "epochs": 200}
    model = train("1-16-2", X, y, loss="gaussian", **settled)
    at = np.array([[-0.5], [0.5]])
    # about 40 rows near 0.5 have a deviation of 0.45: their mean is accurate to 0.07
    assert model.predict(at) == pytest.approx([-0.5, 0.5], abs=0.15)
    assert model.predict(at).shape == (2,)
    mean, deviation = model.predict(at, return_std=True)
    assert np.array_equal(mean, model.predict(at))
    assert deviation == pytest.approx([0.05, 0.45], rel=0.35)


def test_means_come_before_log_variances(rows):
    X, y = rows
    model = train("1-16-4", X, np.stack([y, -y], axis=1), loss="gaussian", epochs=3)
    assert np.array_equal(model.predict(X), model.scores(X)[:, :2])
    with pytest.raises(ValueError, match="needs 2 neurons for each target; the last layer has 3"):
        train("1-16-3", X, y, loss="gaussian")


@pytest.mark.parametrize("outputs", [1, 2])
def test_return_std_has_the_deviations_in_the_form_of_predict(outputs, place):
    xp = place.xp
    X = xp.reshape(xp.arange(12.0, device=place.device), (12, 1)) / 12
    y = X[:, 0] if outputs == 1 else xp.concat([X, -X], axis=1)
    model = train(f"1-5-{2 * outputs}", X, y, loss="gaussian", epochs=2, members=2)
    est = MLPRegressor("gaussian", max_iter=2, random_state=0).fit(X, to_host(y))
    for predictor in (model, est):
        mean, std = predictor.predict(X, return_std=True)
        assert type(mean) is type(std) is type(predictor.predict(X))
        assert mean.shape == std.shape == predictor.predict(X).shape
        assert bool(xp.all(mean == predictor.predict(X)))
    log_variance = to_host(model.scores(X))[..., outputs:]
    std = to_host(model.predict(X, return_std=True)[1]).reshape(log_variance.shape)
    np.testing.assert_allclose(std, np.exp(0.5 * log_variance), rtol=1e-6)


def test_return_std_needs_the_gaussian_loss(rows):
    X, y = rows
    for predictor in (train("1-2-1", X, y, epochs=1), MLPRegressor(max_iter=1).fit(X, y)):
        with pytest.raises(ValueError, match=r"needs loss='gaussian'.* loss is 'squared_error'"):
            predictor.predict(X, return_std=True)


def test_regressor_with_the_gaussian_loss(rows, tmp_path):
    X, y = rows
    est = MLPRegressor("gaussian", learning_rate_init=0.01, max_iter=500, random_state=0)
    est.fit(X, y)
    assert est.predict(X).shape == (800,)
    assert est.score(X, y) > 0.6
    est.save(tmp_path / "est.safetensors")
    assert np.array_equal(
        MLPRegressor.load(tmp_path / "est.safetensors").predict(X), est.predict(X)
    )
    network = xpmlp.load(tmp_path / "est.safetensors")
    for one, other in zip(
        network.predict(X, return_std=True), est.predict(X, return_std=True), strict=True
    ):
        assert np.array_equal(one, other)


def test_save_and_onnx_export(rows, tmp_path, run_onnx):
    X, y = rows
    model = train("1-16-4", X, np.stack([y, -y], axis=1), loss="gaussian", epochs=3)
    model.save(tmp_path / "model.safetensors")
    assert np.array_equal(xpmlp.load(tmp_path / "model.safetensors").predict(X), model.predict(X))
    xpmlp.to_onnx(model, tmp_path / "model.onnx")
    outputs = run_onnx((tmp_path / "model.onnx").read_bytes(), {"X": X.astype("float32")})
    np.testing.assert_allclose(outputs["prediction"], model.predict(X), rtol=1e-4, atol=1e-5)


def test_quantiles_of_several_targets_are_ordered_by_level(rows):
    X, y = rows
    two = np.stack([y, 2 * y], axis=1)
    model = train(
        "1-16-4", X, two, loss="quantile:0.1,0.9", learning_rate=0.02, schedule="cosine", epochs=300
    )
    below = two[:, None, :] < model.predict(X).reshape(-1, 2, 2)  # (N, level, target)
    assert below.mean(axis=0) == pytest.approx(np.array([[0.1, 0.1], [0.9, 0.9]]), abs=0.06)
