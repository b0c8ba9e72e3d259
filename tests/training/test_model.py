"""A trained model: predictions, copies and immutability."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import xpmlp
from xpmlp import Spec, epochs, train
from xpmlp.devices.namespace import to_host
from xpmlp.training import inference

EXACT = 1e-12  # relative: a matrix product of fewer rows may sum in another order


@pytest.fixture
def rows(rng):
    X = rng.normal(size=(30, 3))
    return X, np.sin(X).sum(axis=1)


@pytest.fixture
def model(rows):
    return train("3-16-8-1", *rows, epochs=3)


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 600, 1024])
@pytest.mark.parametrize("members", [None, 2])
def test_predictions_in_chunks_equal_those_in_one_go(monkeypatch, count, members, rows, rng):
    model = train("3-6-1", *rows, epochs=2, members=members)
    X = rng.normal(size=(count, 3))
    whole = model.predict(X)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1)  # chunks of 256 rows
    chunked = model.predict(X)
    assert chunked.shape == whole.shape
    assert np.allclose(chunked, whole, rtol=EXACT, atol=EXACT)
    by_row = np.concatenate([model.predict(X[i : i + 1]) for i in range(count)], axis=-1)
    assert np.allclose(by_row, whole, rtol=EXACT, atol=EXACT)


def test_predictions_match_the_formula(rows):
    X, y = rows
    model = train(Spec.parse("3-6-1", activation="tanh"), X, y, epochs=2)
    (w1, b1), (w2, b2) = model.params
    expected = np.tanh(X @ w1 + b1) @ w2 + b2
    assert np.allclose(model.predict(X), expected[:, 0], rtol=EXACT, atol=EXACT)
    assert np.allclose(model.scores(X), expected, rtol=EXACT, atol=EXACT)


def test_predictions_have_no_dropout(rows):
    X, y = rows
    model = train(Spec.parse("3-6-1", dropout=0.5), X, y, epochs=2)
    assert (model.predict(X) == model.predict(X)).all()
    (w1, b1), (w2, b2) = model.params
    expected = np.maximum(X @ w1 + b1, 0) @ w2 + b2
    assert np.allclose(model.predict(X), expected[:, 0], rtol=EXACT, atol=EXACT)


def test_predictions_apply_the_link(rng):
    X = rng.normal(size=(10, 3))
    counts = train("3-1", X, np.arange(10), loss="poisson", epochs=2)
    assert np.allclose(counts.predict(X), np.exp(counts.scores(X)[:, 0]), rtol=EXACT)
    classes = train("3-3", X, np.arange(10) % 3, loss="cross_entropy", epochs=2)
    e = np.exp(classes.scores(X))
    assert np.allclose(classes.predict_proba(X), e / e.sum(axis=1, keepdims=True), rtol=EXACT)
    two = train("3-1", X, np.arange(10) % 2, loss="binary_cross_entropy", epochs=2)
    positive = 1 / (1 + np.exp(-two.scores(X)[:, 0]))
    assert np.allclose(two.predict_proba(X)[:, 1], positive, rtol=EXACT)


def test_huge_inputs_give_no_warning(rows):
    """Warnings are errors here."""
    X, y = rows
    model = train("3-4-1", X, (y > 0).astype(int), loss="binary_cross_entropy", epochs=2)
    probability = model.predict_proba(1e300 * X)
    assert ((probability >= 0) & (probability <= 1)).all()


def test_threads_may_predict_at_once(model, rng):
    sets = [rng.normal(size=(count, 3)) for count in (1, 40, 700, 2000)]
    expected = [model.predict(X) for X in sets]

    def predict_row(i):
        return i, model.predict(sets[i % 4])

    with ThreadPoolExecutor(2) as pool:
        for i, actual in pool.map(predict_row, range(100)):
            assert actual.tobytes() == expected[i % 4].tobytes()


def test_two_threads_train_as_one(rows):
    X, y = rows
    expected = [train("3-8-1", X, y, seed=seed, epochs=5).flat for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        models = list(
            pool.map(lambda seed: train("3-8-1", X, y, seed=seed, epochs=5).flat, range(6))
        )
    for actual, expected_model in zip(models, expected, strict=True):
        assert actual.tobytes() == expected_model.tobytes()


def test_further_training_does_not_change_a_model(rows):
    X, y = rows
    reports = epochs("3-8-1", X, y, epochs=8, learning_rate=0.05)
    early = next(reports).model()
    then = early.flat.copy(), early.predict(X), early.params[0].weights.copy()
    for _ in reports:
        pass
    assert (early.flat == then[0]).all()
    assert (early.predict(X) == then[1]).all()
    assert (early.params[0].weights == then[2]).all()
    assert len(early.history["loss"]) == 1


def test_a_model_does_not_keep_the_callers_rows_alive(rows):
    X, y = rows
    model = train("3-8-1", X, y, epochs=2)
    before = model.predict(X)
    old = X.copy()
    X[...] = 0
    assert (model.predict(old) == before).all()


def test_a_models_fields_are_frozen(model):
    with pytest.raises(FrozenInstanceError):
        model.flat = None


def test_params_are_windows_onto_the_flat_buffer(model):
    assert [tuple(p.weights.shape) for p in model.params] == [(3, 16), (16, 8), (8, 1)]
    assert [tuple(p.bias.shape) for p in model.params] == [(1, 16), (1, 8), (1, 1)]
    assert all(np.shares_memory(p.weights, model.flat) for p in model.params)


def test_params_of_a_population_have_a_leading_axis(place, rows):
    X, y = (place.xp.asarray(a, device=place.device) for a in (rows[0], rows[1][:, None]))
    model = train("3-4-1", X, y, members=2, epochs=1)
    assert [tuple(p.weights.shape) for p in model.params] == [(2, 3, 4), (2, 4, 1)]
    assert tuple(model.predict(X).shape) == (2, 30, 1)
    assert np.isfinite(to_host(model.flat)).all()


def test_printing_a_model_shows_the_network_and_no_arrays(model):
    assert "array" not in repr(model)
    assert "relu" in repr(model)


def test_model_save_equals_the_function(model, tmp_path, rows):
    model.save(tmp_path / "one.safetensors")
    assert (
        xpmlp.load(tmp_path / "one.safetensors").predict(rows[0]) == model.predict(rows[0])
    ).all()


def test_a_model_can_be_copied_and_pickled():
    X = np.linspace(-1, 1, 20)[:, None]
    model = train("1-4-1", X, X, epochs=3)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (copied.predict(X) == model.predict(X)).all()
        assert copied.history == model.history
        assert copied.flat is not model.flat
    assert len({model, model}) == 1


def test_a_torch_models_pickle_needs_no_torch(optional):
    torch = optional("torch")
    X = torch.linspace(-1, 1, 20)[:, None]
    unpickled = pickle.loads(pickle.dumps(train("1-4-1", X, X, epochs=3)))
    assert isinstance(unpickled.flat, np.ndarray)
    assert isinstance(unpickled.predict(X.numpy()), np.ndarray)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("row", [0, 255, 299])
def test_rows_with_overflowing_scores_raise(members, row, rng, monkeypatch):
    """In every chunk: their scores are NaN, so a label would be wrong."""
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1)  # chunks of 256 rows
    X = rng.normal(size=(300, 3)).astype(np.float32)
    model = train(Spec.parse("3-8-2", loss="cross_entropy"), X, X[:, 0] > 0, epochs=1,
                  members=members)  # fmt: skip
    X[row:] = 3e38
    for method in (model.predict, model.predict_proba, model.scores):
        with pytest.raises(ValueError, match=f"prediction of row {row} of X .* for float32"):
            method(X)
