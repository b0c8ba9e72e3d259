"""Training that leaves the finite numbers, against steps counted one by one in plain NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from support.epochs import run_steps

from xpmlp import Spec
from xpmlp.apply import plain
from xpmlp.devices.namespace import CPU, to_host, to_place
from xpmlp.optimizers import OPTIMIZERS
from xpmlp.recording.guards import find_guard
from xpmlp.recording.tracing import trace
from xpmlp.step import Batch, gradient, new_state, update
from xpmlp.training import train as assembly
from xpmlp.training.batches import epoch_order, windows
from xpmlp.training.divergence import DivergedError, DivergenceWarning, add_to_accounts, frozen
from xpmlp.training.train import finish, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.* diverged and (is|are) stopped")

SPEC = Spec.parse("3-5-2", activation="tanh")
ROWS, BATCH = 40, 8
BAD = 17  # the row that makes its step bad
EXECUTORS = ("eager", "replayed", "captured", "one by one")


def rows(rng):
    return rng.standard_normal((ROWS, 3)), rng.standard_normal((ROWS, 2))


@pytest.fixture(autouse=True)
def no_warnings():
    """As `devices.namespace.running` has it inside training."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def begun(monkeypatch, request):
    """A function from a way of running and the arguments of `train` to a run."""

    def begin(X, y, way="eager", place=CPU, **more):
        if way == "captured":
            place = request.getfixturevalue("gpu")
        monkeypatch.setattr(assembly, "choose_place", lambda *_: place)
        arguments = {"batch_size": BATCH, "epochs": 20, "capture": way in ("replayed", "captured")}
        run = make_trainer(more.pop("spec", SPEC), X.copy(), y.copy(), **arguments | more)
        assert way in ("one by one", run.step.engine.executor.name)
        if way == "one by one":
            run.step.engine = run.step.engine._replace(
                xp=place.xp, apply=plain, restart=lambda: None
            )
        return run

    return begin


def poison(run, row=BAD, value=np.nan):
    """Make one row's target what no check would have let pass."""
    target = to_host(run.data.target).copy()
    target[row] = value
    run.data.target[...] = to_place(run.place, target)


def trained_until(run, orders, steps):
    """Parameters and memory after some steps, and which step is the first that is not finite
    (from 1, or None), by `gradient` and `update` on NumPy one after the other."""
    state = new_state(np, run.spec, run.step.optimizer, to_host(run.best_params))
    hyper = {
        n: v if isinstance(v, float) else to_host(v) for n, v in run.step.hyperparameters.items()
    }
    h = SimpleNamespace(**hyper)
    x, target = to_host(run.data.x.x), to_host(run.data.target)
    for t in range(steps):
        index = orders[t * BATCH : (t + 1) * BATCH]
        weight = np.full(len(index), 1 / len(index))
        value = gradient(np, run.spec, state, Batch(x[index], target[index], weight))
        if not (np.isfinite(value) and np.isfinite(state.grad).all()):
            return state, t + 1
        update(np, run.step.optimizer, state, h)
    return state, None


def held(run):
    return [to_host(part) for part in (run.state.params, *run.state.slots)]


@pytest.mark.parametrize("way", EXECUTORS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_changes_nothing_and_is_known(name, way, begun, rng):
    X, y = rows(rng)
    run = begun(X, y, way, optimizer=name)
    poison(run)
    orders = epoch_order(run.settings.seeds, (), 0, ROWS)
    bad = int(np.flatnonzero(orders == BAD)[0]) // BATCH + 1
    assert trained_until(run, orders, 5)[1] == bad
    with run.step.engine.executor.open():
        run_steps(run)
    assert (float(run.step.alive), int(run.step.finite_steps)) == (0, bad - 1)
    # the same training, of which the bad step is never made
    other = begun(X, y, way, optimizer=name)
    rate = to_place(other.place, np.array([other.settings.learning_rate]))
    other.step.learning_rate[...] = rate
    with other.step.engine.executor.open():
        for one in windows(other.place, other.data, orders[: (bad - 1) * BATCH], BATCH, 5):
            other.step.engine.executor.run(other.step, one, other.counter)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(held(run), held(other), strict=True))
    reference, _ = trained_until(run, orders, bad - 1)
    np.testing.assert_allclose(held(run)[0], reference.params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_member_disturbs_nobody(value, begun, rng):
    X, y = rows(rng)
    run, well = (begun(X, y, members=3, learning_rate=[1e-3, r, 1e-2]) for r in (1e-3, 1e-3))
    run.state.params[1, :8] = value
    for each in (run, well):
        run_steps(each)
    for ours, theirs in zip(held(run), held(well), strict=True):
        assert ours[[0, 2]].tobytes() == theirs[[0, 2]].tobytes()
    assert (to_host(run.step.alive) == [1, 0, 1]).all()
    assert (to_host(run.step.finite_steps) == [5, 0, 5]).all()
    assert all(not memory[1].any() for memory in held(run)[1:])


@pytest.mark.parametrize(("size", "alive"), [(1e18, 1), (1e20, 0)])
def test_a_gradient_whose_square_is_beyond_the_dtype_counts_as_not_finite(size, alive, begun, rng):
    X, y = rows(rng)
    run = begun(X, y, dtype="float32", optimizer="sgd", learning_rate=0.0)
    run.data.weight[...] = np.float32(size)
    with np.errstate(all="ignore"):
        run_steps(run)
    assert np.isfinite(run.state.grad).all()
    assert float(run.step.alive) == alive


@given(st.lists(st.sampled_from([1.0, np.nan, np.inf, -np.inf, 0.0, 1e300]), min_size=1))
def test_the_accounts_are_those_of_a_loop(losses):
    alive, met, made = (np.full((), x) for x in (1.0, 0.0, 0.0))
    with np.errstate(all="ignore"):
        for loss in losses:
            _, alive, met, made = add_to_accounts(
                np, np.asarray(loss), 0.5, np.ones(()), alive, met, made
            )
    good = 0
    while good < len(losses) and np.isfinite(losses[good]):
        good += 1
    assert int(made) == good
    assert bool(alive) == (good == len(losses))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_guard_of_a_rule_is_seen_and_taken_off(name, begun, rng):
    run = begun(*rows(rng), optimizer=name)
    given = (run.step.h, np.ones(()), run.state.params, run.state.grad, *run.state.slots)
    program = trace(frozen(run.step.optimizer.rule), *given)
    names = sorted(k for k, v in vars(run.step.h).items() if isinstance(v, np.ndarray))
    theta = len(names) + 1
    aliases = [theta, *range(theta + 2, theta + 2 + len(run.state.slots))]
    found = find_guard(program, aliases)
    assert found is not None
    assert names[found.condition] == "alive"
    assert all(operation.name != "where" for operation in found.unguarded.operations)
    assert find_guard(found.unguarded, aliases) is None
    assert find_guard(program, aliases[::-1] if len(aliases) > 1 else [theta + 1]) is None


def wild(xp, now):
    """A rate that is beyond reason in the third epoch."""
    at = now.epoch
    return 1 + 1e200 * xp.astype((at >= 2) & (at < 3), at.dtype)


@pytest.mark.parametrize("way", EXECUTORS)
def test_the_error_says_where(way, begun, rng):
    X, y = rows(rng)
    run = begun(X, y, way, optimizer="sgd", learning_rate=0.01, schedule=wild)
    with pytest.raises(DivergedError) as caught:
        finish(run, [])
    error = caught.value
    assert error.step == 12  # the first of epoch 3 gives the weights that fail the second
    assert error.learning_rate == pytest.approx(1e198)
    assert len(error.gradients) == 2
    assert max(error.gradients) > 1e190
    for said in (
        "step 12",
        "epoch 3",
        "rate 1e+198",
        "clip=1.0",
        "lower learning rate",
        "scaled inputs",
    ):
        assert said in str(error)
    other = begun(X, y, way, optimizer="sgd", learning_rate=0.01)
    good = finish(other, [lambda report: report.epoch == 2])
    assert to_host(error.model.flat).tobytes() == to_host(good.flat).tobytes()


@pytest.mark.parametrize("way", EXECUTORS)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_restore_goes_on_from_the_best_and_improves(name, way, begun, rng):
    X, y = rows(rng)
    rate = {"sgd": 50.0, "adam": 1e-2}[name]
    more = {} if name == "sgd" else {"schedule": wild}
    run = begun(X, y * 0.1, way, optimizer=name, learning_rate=rate,
                on_divergence="restore", **more,
                spec=Spec.parse("3-2"), epochs=60)  # fmt: skip
    history = finish(run, []).history
    times = sum(history["restored"])
    assert times > 0
    assert history["learning_rate"][-1] == pytest.approx(rate / 2**times)
    assert np.isfinite(history["loss"][-1])
    finite = [loss for loss in history["loss"] if np.isfinite(loss)]
    assert finite[-1] < 0.9 * max(finite)


def test_restoring_gives_up(begun, rng):
    run = begun(*rows(rng), on_divergence="restore")
    poison(run)
    with pytest.raises(DivergedError, match="restored 10 times in a row"):
        finish(run, [])
    assert run.history["restored"] == [1] * 10


def test_a_restored_member_disturbs_nobody(begun, rng):
    X, y = rows(rng)
    common = {"members": 3, "optimizer": "sgd", "on_divergence": "restore", "epochs": 12}
    run, well = (begun(X, y, learning_rate=[1e-3, r, 1e-2], **common) for r in (1e200, 1e-3))
    ours, theirs = finish(run, []), finish(well, [])
    assert ours.flat[[0, 2]].tobytes() == theirs.flat[[0, 2]].tobytes()
    found = np.array(ours.history["restored"])
    assert (found.sum(axis=0) == [0, 10, 0]).all()
    assert float(run.step.learning_rate_scale[1, 0]) == 0


@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0])
@pytest.mark.parametrize("network", ["3-32-1", "3-32-16-1"])
def test_a_restore_never_goes_on_from_weights_on_their_way_out(network, rate, begun):
    """An epoch may end at weights of 1e60, whose loss is finite: the first weights are better."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2400, 3))
    run = begun(X, np.sin(X[:, :1]), optimizer="sgd", learning_rate=rate, on_divergence="restore",
                spec=Spec.parse(network), epochs=25, batch_size=16)  # fmt: skip
    model = finish(run, [])
    assert sum(model.history["restored"]) > 0
    assert np.abs(to_host(model.flat)).max() < 100
    assert float(run.best_value) < 0.3  # half the variance of the targets is 0.22


def test_a_member_that_diverges_is_said_in_a_warning(begun, rng):
    X, y = rows(rng)
    trainer = begun(X, y, members=3, optimizer="sgd", learning_rate=[1e-3, 1e30, 1e-3])
    with pytest.warns(DivergenceWarning, match=r"1 member diverged and is stopped: 1\. Member 1"):
        finish(trainer, [])
