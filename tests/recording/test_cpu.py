"""The fast steps of the CPU: the numbers of the plain ones, and nothing recycled in sight."""

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

ORDER = 1e-12  # relative, float64: sums and products add up in another order, over some steps


def bits(one, other):
    """Whether two arrays are the same, signs of zeros and NaNs included."""
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.fixture
def values(rng):
    """Rows that reach every branch: zeros of both signs, tiny and huge numbers."""
    special = [0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0, 1e4, -1e4]
    return lambda dtype: np.concatenate([rng.normal(size=40), special]).reshape(6, 8).astype(dtype)


# Elementwise functions


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_activations_have_the_plain_bits(name, dtype, lead, values, rng):
    pair, backend = activation(name), NumpyBackend()
    product = np.broadcast_to(values(dtype), (*lead, 6, 8)).copy()
    bias = rng.normal(size=(*lead, 1, 8)).astype(dtype)
    back = rng.normal(size=product.shape).astype(dtype)
    with np.errstate(all="ignore"):
        z, a, _ = activated(np, pair.f, product, bias, None)
        expected = returned(np, pair.slope, back, z, a, None)
        for _ in range(3):  # the first time in new buffers, then in used ones
            backend.restart()
            fast_z, fast_a, _ = backend.apply(activated, np, pair.f, product, bias, None)
            found = backend.apply(returned, np, pair.slope, back, fast_z, fast_a, None)
            assert bits(fast_z, z)
            assert bits(fast_a, a)
            assert bits(found, expected)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_have_the_plain_bits(name, dtype, values, rng):
    """Where a lies over the product that it is made of."""
    f, product = activation(name).f, values(dtype)
    bias = rng.normal(size=(1, 8)).astype(dtype)
    with np.errstate(all="ignore"):
        expected = activated(np, f, product, bias, None)[1]
        with prediction_engine(CPU.xp) as fast:
            z, a, _ = fast.apply(activated, fast.xp, f, product, bias, None)
    assert a is z is product
    assert bits(a, expected)


def test_predictions_by_relu_need_no_scratch(values, rng):
    arrays = values("float32"), rng.normal(size=(1, 8)).astype("float32")
    compiler = UfuncCompiler(trace(activation_only, activation("relu").f, *arrays), arrays, (0,))
    compiler.plan()
    assert all(getattr(one, "shape", ()) != arrays[0].shape for one in compiler.bindings.values())


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_rules_have_the_plain_bits_where_they_are_written(name, dtype, lead, rng):
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
        assert all(map(bits, moved, expected))
        theta, *slots = expected


@pytest.fixture
def trusted(monkeypatch):
    """The functions of these tests pass for the library's own."""
    monkeypatch.setattr("xpmlp.recording.plans.is_own", lambda function: True)


@pytest.mark.parametrize("count", [2, 2**15])
@pytest.mark.parametrize("apply", [plain, NumpyBackend().apply], ids=["plain", "fast"])
def test_a_result_is_not_written_over_an_argument_that_is_needed_still(apply, count, trusted):
    def swap(xp, x, y):
        return y, x + 0.0 * y

    x, y = np.full(count, 1.0), np.full(count, 3.0)
    apply(swap, np, x, y, into=(x, y))
    assert (x == 3).all()
    assert (y == 1).all()


def test_an_argument_that_stands_twice_is_read_before_it_is_written(trusted):
    def both(xp, x, y):
        return x + 1, x * y

    x, y = np.array([[2.0, 3.0]]), np.zeros((1, 2))
    NumpyBackend().apply(both, np, x, x, into=(x, y))
    assert x.tolist() == [[3.0, 4.0]]
    assert y.tolist() == [[4.0, 9.0]]


def test_a_result_may_be_an_argument_and_a_constant_is_no_result(trusted):
    def both(xp, x, y):
        return x, x * y

    def one(xp, x):
        return xp.ones_like(x)

    x = np.array([[1.0, 2.0]])
    same, product = NumpyBackend().apply(both, np, x, x)
    assert same is x
    assert product.tolist() == [[1.0, 4.0]]
    assert NumpyBackend().apply(one, np, x).tolist() == [[1.0, 1.0]]


def test_other_numbers_and_other_shapes_get_their_own_plan(trusted):
    def scaled(xp, h, x):
        return h.factor * x

    backend = NumpyBackend()
    for factor, shape in ((2.0, (1, 3)), (3.0, (1, 3)), (3.0, (2, 5))):
        backend.restart()
        found = backend.apply(scaled, np, SimpleNamespace(factor=factor), np.ones(shape))
        assert found.shape == shape
        assert (found == factor).all()


# A user's own functions


def test_a_users_functions_are_told_apart():
    assert is_own(activation("relu").f)
    assert is_own(OPTIMIZERS["adamw"].rule)
    own = activation(lambda xp, z: (xp.sin(z), xp.cos(z)))
    assert not is_own(own.f)
    assert not is_own(own.slope)
    assert not is_own(loss(lambda xp, score, target: (score, target)).value)
    assert not is_own(lambda xp, x: x)
    assert not is_own(wraps(activation("relu").f)(lambda xp, z: z))
    assert not is_own(partial(activation("relu").f, np))
    assert not is_own(decoupled(lambda xp, h, t, theta, g: (theta,)))
    assert is_own(decoupled(OPTIMIZERS["adam"].rule))


def test_a_users_function_is_called_every_step_with_arrays_that_stay():
    kept = []

    def noisy(xp, score, target):
        kept.append((score, score.copy()))
        return xp.sum((score - target) ** 2, axis=-1), 2 * (score - target)

    X = np.linspace(-1, 1, 12)[:, None]
    spec = Spec.parse("1-4-1", activation=["sigmoid", "sigmoid"])
    run = make_trainer(spec, X, X[:, 0], loss=noisy, epochs=3, batch_size=4)
    before = len(kept)  # tried once, before any work
    list(run.reports())
    assert len(kept) - before == 2 * 3 * 3  # value and delta, three batches, three epochs
    assert all(bits(one, copy) for one, copy in kept)


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.float32, np.float64])
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_users_function_may_give_another_dtype(kind, members, dtype):
    def steps(xp, z):
        return xp.astype(z > 0, kind), xp.astype(xp.ones_like(z), kind)

    spec = Spec.parse("4-6-3", activation=[steps])
    close(*pair_of(spec, members=members, dtype=dtype), rtol=ORDER if dtype == "float64" else 1e-5)


def test_a_users_function_may_promote_by_a_number_of_numpys():
    root = np.sqrt(2 / np.pi)

    def scaled(xp, z):
        return xp.tanh(root * z), root * (1 - xp.tanh(root * z) ** 2)

    close(*pair_of(Spec.parse("4-6-3", activation=[scaled]), dtype="float32"), rtol=1e-5)


def test_a_rule_may_keep_the_parameters_that_were():
    def previous(xp, h, t, theta, g, old):
        return theta - h.learning_rate * g + 0.5 * h.learning_rate * (theta - old), theta

    close(*pair_of(Spec.parse("4-6-3"), optimizer=previous))


# Whole trainings


ENGINES = {
    "plain": plain_engine,
    "fast": fastest_engine,
    "replayed": lambda place: fastest_engine(place, MIN_RECORDED_STEPS),
}


def trained(run, how):
    run.step.engine = ENGINES[how](run.place)
    found = list(run.reports())
    return run, found


def pair_of(spec, **arguments):
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
    return [trained(make_trainer(spec, X, y, **settings), how) for how in ENGINES]


def close(slowly, fast, replayed, rtol=ORDER):
    """The fast ways against the slow one, and replays against the steps that they are of."""
    (run, reported), (other, found) = slowly, fast
    again, repeated = replayed
    assert all(bits(*two) for two in zip(again.step.buffers, other.step.buffers, strict=True))
    assert np.array_equal([r.loss for r in repeated], [r.loss for r in found])
    assert np.allclose(other.state.params, run.state.params, rtol=rtol, atol=rtol)
    assert all(
        np.allclose(a, b, rtol=rtol, atol=rtol)
        for a, b in zip(other.state.slots, run.state.slots, strict=True)
    )
    assert np.allclose([r.loss for r in found], [r.loss for r in reported], rtol=rtol)
    norms = [[r.grad_norm for r in epochs] for epochs in (found, reported)]
    assert np.allclose(*norms, rtol=max(rtol, 1e-9))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("measure", sorted(LOSSES))
def test_every_activation_and_loss_trains_as_plainly(name, measure):
    measure = "quantile:0.1,0.5,0.9" if measure == "quantile" else measure
    n_out = 4 if measure == "gaussian" else 3
    spec = Spec.parse(f"4-6-5-{n_out}", activation=name, loss=measure)
    trainings = pair_of(spec)
    close(*trainings)
    assert {r.executor for r in trainings[2][1]} == {"replayed"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("members", [None, 3])
@pytest.mark.parametrize(
    "more",
    [{}, {"l1": 0.01, "l2": 0.1, "clip": 0.5}, {"schedule": "cosine", "weight_decay": 0.1}],
    ids=["plain", "penalties", "schedule"],
)
def test_every_rule_trains_as_plainly(name, members, more):
    spec = Spec.parse("4-6-5-3", activation="tanh", dropout=0.2, loss="cross_entropy")
    trainings = pair_of(spec, optimizer=name, members=members, **more)
    close(*trainings)
    assert {r.executor for r in trainings[2][1]} == {"replayed"}


@pytest.mark.parametrize("sizes", ["3-1", "1-1-1", "2-40-1", "50-64-64-10"])
@pytest.mark.parametrize("batch", [1, 7, 23])
def test_every_size_trains_as_plainly(sizes, batch):
    close(*pair_of(Spec.parse(sizes), batch_size=batch))


def test_nothing_that_training_gave_out_changes_later():
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
    assert all(bits(a, copy) for epoch in given_out for a, copy in epoch)


def test_two_trainers_do_not_share_buffers():
    spec = Spec.parse("4-6-1", activation="sigmoid")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)), rng.normal(size=20)
    alone = [r.loss for r in make_trainer(spec, X, y, epochs=5, batch_size=4).reports()]
    both = [make_trainer(spec, X, y, epochs=5, batch_size=4).reports() for _ in range(2)]
    turns = [(next(both[0]).loss, next(both[1]).loss) for _ in range(5)]
    assert turns == [(one, one) for one in alone]


@pytest.mark.parametrize("name", ["numpy", "strict", "torch"])
def test_another_namespace_runs_as_it_is(name, place_named):
    place = place_named(name)
    found = fastest_engine(place)
    assert (found.xp is place.xp) == (place.xp is not CPU.xp)
    x = place.xp.ones((2, 3), device=place.device)
    assert to_host(found.apply(activation("relu").f, found.xp, x)).tolist() == [[1.0] * 3] * 2
