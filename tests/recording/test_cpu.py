"""The fast steps on the CPU match the plain ones and never expose a reused buffer."""

from functools import partial, wraps
from types import SimpleNamespace

import numpy as np
import pytest

from xpmlp.activations import ACTIVATIONS, activation
from xpmlp.apply import plain
from xpmlp.devices.namespace import CPU, to_host
from xpmlp.losses import LOSSES, loss
from xpmlp.network import activated, returned
from xpmlp.optimizers import OPTIMIZERS, decoupled
from xpmlp.recording.engine import (
    MIN_RECORDED_STEPS,
    activation_only,
    fastest_engine,
    plain_engine,
    prediction_engine,
)
from xpmlp.recording.numpy_writer import NumpyBackend, UfuncCompiler
from xpmlp.recording.plans import is_own
from xpmlp.recording.tracing import trace
from xpmlp.spec import Spec
from xpmlp.training.train import make_trainer

ORDER = 1e-12  # relative, float64: sums and products in another order, over a few steps


def same_bits(a, b):
    """Whether two arrays have the same bits, including signs of zeros and NaNs."""
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.fixture
def values(rng):
    """Rows that reach every branch: zeros of both signs, tiny and huge numbers."""
    special = [0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0, 1e4, -1e4]
    return lambda dtype: np.concatenate([rng.normal(size=40), special]).reshape(6, 8).astype(dtype)


# Elementwise functions


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_activations_have_the_bits_of_plain_numpy(name, dtype, lead, values, rng):
    pair, backend = activation(name), NumpyBackend()
    product = np.broadcast_to(values(dtype), (*lead, 6, 8)).copy()
    bias = rng.normal(size=(*lead, 1, 8)).astype(dtype)
    delta = rng.normal(size=product.shape).astype(dtype)
    with np.errstate(all="ignore"):
        z, a, _ = activated(np, pair.f, product, bias, None)
        expected = returned(np, pair.slope, delta, z, a, None)
        for _ in range(3):  # first in new buffers, then in reused ones
            backend.restart()
            fast_z, fast_a, _ = backend.apply(activated, np, pair.f, product, bias, None)
            actual = backend.apply(returned, np, pair.slope, delta, fast_z, fast_a, None)
            assert same_bits(fast_z, z)
            assert same_bits(fast_a, a)
            assert same_bits(actual, expected)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_have_the_bits_of_plain_numpy(name, dtype, values, rng):
    """In a prediction, a is written over the product."""
    f, product = activation(name).f, values(dtype)
    bias = rng.normal(size=(1, 8)).astype(dtype)
    with np.errstate(all="ignore"):
        expected = activated(np, f, product, bias, None)[1]
        with prediction_engine(CPU.xp) as fast:
            z, a, _ = fast.apply(activated, fast.xp, f, product, bias, None)
    assert a is z is product
    assert same_bits(a, expected)


def test_predictions_with_relu_need_no_scratch_array(values, rng):
    arrays = values("float32"), rng.normal(size=(1, 8)).astype("float32")
    compiler = UfuncCompiler(trace(activation_only, activation("relu").f, *arrays), arrays, (0,))
    compiler.plan()
    assert all(
        getattr(array, "shape", ()) != arrays[0].shape for array in compiler.bindings.values()
    )


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_in_place_rules_have_the_bits_of_plain_numpy(name, dtype, lead, rng):
    rule, backend = OPTIMIZERS[name], NumpyBackend()
    buffers = [rng.normal(size=(*lead, 64)).astype(dtype) for _ in range(2 + rule.slots)]
    buffers[2:] = map(np.abs, buffers[2:])
    theta, g, *slots = (part.copy() for part in buffers)
    decay = {"weight_decay": np.full(64, 0.1, dtype=dtype)}
    h = SimpleNamespace(**rule.defaults | decay)
    for t in range(1, 4):
        h.learning_rate = rng.uniform(size=(*lead, 1)).astype(dtype)
        now = np.asarray(float(t), dtype=dtype)
        expected = rule.rule(np, h, now, theta, g, *slots)
        moved = [buffers[0], *buffers[2:]]
        backend.restart()
        backend.apply(rule.rule, np, h, now, *buffers, into=moved)
        assert all(map(same_bits, moved, expected))
        theta, *slots = expected


@pytest.fixture
def trusted(monkeypatch):
    """Treat the functions of these tests as the library's own."""
    monkeypatch.setattr("xpmlp.recording.plans.is_own", lambda function: True)


@pytest.mark.parametrize("count", [2, 2**15])
@pytest.mark.parametrize("apply", [plain, NumpyBackend().apply], ids=["plain", "fast"])
def test_a_result_does_not_overwrite_an_argument_in_use(apply, count, trusted):
    def swap(xp, x, y):
        return y, x + 0.0 * y

    x, y = np.full(count, 1.0), np.full(count, 3.0)
    apply(swap, np, x, y, into=(x, y))
    assert (x == 3).all()
    assert (y == 1).all()


def test_a_repeated_argument_is_read_before_it_is_written(trusted):
    def sum_and_product(xp, x, y):
        return x + 1, x * y

    x, y = np.array([[2.0, 3.0]]), np.zeros((1, 2))
    NumpyBackend().apply(sum_and_product, np, x, x, into=(x, y))
    assert x.tolist() == [[3.0, 4.0]]
    assert y.tolist() == [[4.0, 9.0]]


def test_results_may_be_arguments_or_constants(trusted):
    def argument_and_product(xp, x, y):
        return x, x * y

    def ones(xp, x):
        return xp.ones_like(x)

    x = np.array([[1.0, 2.0]])
    same, product = NumpyBackend().apply(argument_and_product, np, x, x)
    assert same is x
    assert product.tolist() == [[1.0, 4.0]]
    assert NumpyBackend().apply(ones, np, x).tolist() == [[1.0, 1.0]]


def test_every_constant_and_shape_has_its_own_plan(trusted):
    def scaled(xp, h, x):
        return h.factor * x

    backend = NumpyBackend()
    for factor, shape in ((2.0, (1, 3)), (3.0, (1, 3)), (3.0, (2, 5))):
        backend.restart()
        actual = backend.apply(scaled, np, SimpleNamespace(factor=factor), np.ones(shape))
        assert actual.shape == shape
        assert (actual == factor).all()


# User-defined functions


def test_user_functions_are_recognized():
    assert is_own(activation("relu").f)
    assert is_own(OPTIMIZERS["adamw"].rule)
    custom = activation(lambda xp, z: (xp.sin(z), xp.cos(z)))
    assert not is_own(custom.f)
    assert not is_own(custom.slope)
    assert not is_own(loss(lambda xp, score, target: (score, target)).value)
    assert not is_own(lambda xp, x: x)
    assert not is_own(wraps(activation("relu").f)(lambda xp, z: z))
    assert not is_own(partial(activation("relu").f, np))
    assert not is_own(decoupled(lambda xp, h, t, theta, g: (theta,)))
    assert is_own(decoupled(OPTIMIZERS["adam"].rule))


def test_a_user_function_is_called_every_step_with_new_arrays():
    scores = []

    def noisy(xp, score, target):
        scores.append((score, score.copy()))
        return xp.sum((score - target) ** 2, axis=-1), 2 * (score - target)

    X = np.linspace(-1, 1, 12)[:, None]
    spec = Spec.parse("1-4-1", activation=["sigmoid", "sigmoid"])
    run = make_trainer(spec, X, X[:, 0], loss=noisy, epochs=3, batch_size=4)
    before = len(scores)  # called once for validation
    list(run.reports())
    assert len(scores) - before == 2 * 3 * 3  # value and delta, three batches, three epochs
    assert all(same_bits(one, copy) for one, copy in scores)


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.float32, np.float64])
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_user_function_may_return_another_dtype(kind, members, dtype):
    def steps(xp, z):
        return xp.astype(z > 0, kind), xp.astype(xp.ones_like(z), kind)

    spec = Spec.parse("4-6-3", activation=[steps])
    assert_trainings_agree(
        *train_on_every_engine(spec, members=members, dtype=dtype),
        rtol=ORDER if dtype == "float64" else 1e-5,
    )


def test_a_user_function_may_multiply_by_a_numpy_scalar():
    root = np.sqrt(2 / np.pi)

    def scaled(xp, z):
        return xp.tanh(root * z), root * (1 - xp.tanh(root * z) ** 2)

    assert_trainings_agree(
        *train_on_every_engine(Spec.parse("4-6-3", activation=[scaled]), dtype="float32"), rtol=1e-5
    )


def test_a_rule_may_return_theta_as_a_slot():
    def previous(xp, h, t, theta, g, old):
        return theta - h.learning_rate * g + 0.5 * h.learning_rate * (theta - old), theta

    assert_trainings_agree(*train_on_every_engine(Spec.parse("4-6-3"), optimizer=previous))


# Whole trainings


ENGINES = {
    "plain": plain_engine,
    "fast": fastest_engine,
    "replayed": lambda place: fastest_engine(place, MIN_RECORDED_STEPS),
}


def train(run, engine):
    run.step.engine = ENGINES[engine](run.place)
    reports = list(run.reports())
    return run, reports


def train_on_every_engine(spec, **arguments):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(23, spec.n_in))
    kind = loss(spec.loss)
    if kind.labels == "classes":
        y = np.arange(23) % spec.n_out
    elif kind.labels == "binary":
        y = (rng.uniform(size=(23, spec.n_out)) > 0.5).astype(float)
    else:
        y = rng.uniform(0.1, 2, size=(23, kind.targets(spec.n_out)))
    settings = {"epochs": 3, "batch_size": 5, "learning_rate": 0.01} | arguments
    return [train(make_trainer(spec, X, y, **settings), engine) for engine in ENGINES]


def assert_trainings_agree(plain, fast, replayed, rtol=ORDER):
    """Compare the fast engines with the plain one, and replayed steps with recorded ones."""
    (plain_run, plain_reports), (fast_run, fast_reports) = plain, fast
    replayed_run, replayed_reports = replayed
    assert all(
        same_bits(*pair)
        for pair in zip(replayed_run.step.buffers, fast_run.step.buffers, strict=True)
    )
    assert np.array_equal([r.loss for r in replayed_reports], [r.loss for r in fast_reports])
    assert np.allclose(fast_run.state.params, plain_run.state.params, rtol=rtol, atol=rtol)
    assert all(
        np.allclose(a, b, rtol=rtol, atol=rtol)
        for a, b in zip(fast_run.state.slots, plain_run.state.slots, strict=True)
    )
    assert np.allclose([r.loss for r in fast_reports], [r.loss for r in plain_reports], rtol=rtol)
    norms = [[r.grad_norm for r in epochs] for epochs in (fast_reports, plain_reports)]
    assert np.allclose(*norms, rtol=max(rtol, 1e-9))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("measure", sorted(LOSSES))
def test_every_activation_and_loss_trains_alike_on_every_engine(name, measure):
    measure = "quantile:0.1,0.5,0.9" if measure == "quantile" else measure
    n_out = 4 if measure == "gaussian" else 3
    spec = Spec.parse(f"4-6-5-{n_out}", activation=name, loss=measure)
    trainings = train_on_every_engine(spec)
    assert_trainings_agree(*trainings)
    assert {r.executor for r in trainings[2][1]} == {"replayed"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"l1": 0.01, "l2": 0.1, "clip": 0.5}, {"schedule": "cosine", "weight_decay": 0.1}],
    ids=["plain", "penalties", "schedule"],
)
def test_every_rule_trains_alike_on_every_engine(name, members, options):
    spec = Spec.parse("4-6-5-3", activation="tanh", dropout=0.2, loss="cross_entropy")
    trainings = train_on_every_engine(spec, optimizer=name, members=members, **options)
    assert_trainings_agree(*trainings)
    assert {r.executor for r in trainings[2][1]} == {"replayed"}


@pytest.mark.parametrize("sizes", ["3-1", "1-1-1", "2-40-1", "50-64-64-10"])
@pytest.mark.parametrize("batch", [1, 7, 23])
def test_every_size_trains_alike_on_every_engine(sizes, batch):
    assert_trainings_agree(*train_on_every_engine(Spec.parse(sizes), batch_size=batch))


def test_reports_and_models_do_not_change_later():
    spec = Spec.parse("4-6-5-3", activation="sigmoid")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    run = make_trainer(spec, X, y, epochs=6, batch_size=5, members=2, X_val=X, y_val=y, clip=1.0)
    given_out = []
    for report in run.reports():
        model = report.model()
        arrays = [
            report.loss,
            report.learning_rate,
            report.grad_norm,
            report.val_loss,
            report.val_score,
        ]
        arrays += [report.best_epoch, model.flat, model.predict(X), model.params[0].weights]
        given_out.append([(np.asarray(a), np.array(a, copy=True)) for a in arrays])
    assert all(same_bits(a, copy) for epoch in given_out for a, copy in epoch)


def test_two_trainers_do_not_share_buffers():
    spec = Spec.parse("4-6-1", activation="sigmoid")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)), rng.normal(size=20)
    expected = [r.loss for r in make_trainer(spec, X, y, epochs=5, batch_size=4).reports()]
    iterators = [make_trainer(spec, X, y, epochs=5, batch_size=4).reports() for _ in range(2)]
    losses = [(next(iterators[0]).loss, next(iterators[1]).loss) for _ in range(5)]
    assert losses == [(value, value) for value in expected]


@pytest.mark.parametrize("name", ["numpy", "strict", "torch"])
def test_other_namespaces_use_the_plain_engine(name, place_named):
    place = place_named(name)
    engine = fastest_engine(place)
    assert (engine.xp is place.xp) == (place.xp is not CPU.xp)
    x = place.xp.ones((2, 3), device=place.device)
    assert to_host(engine.apply(activation("relu").f, engine.xp, x)).tolist() == [[1.0] * 3] * 2
