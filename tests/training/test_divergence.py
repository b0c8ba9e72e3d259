"""Training that diverges, against steps computed one by one in NumPy."""

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
BAD = 17  # the row that makes its step not finite
EXECUTORS = ("eager", "replayed", "captured", "one by one")


def rows(rng):
    return rng.standard_normal((ROWS, 3)), rng.standard_normal((ROWS, 2))


@pytest.fixture(autouse=True)
def no_warnings():
    """As `devices.namespace.running` sets it during training."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def make_run(monkeypatch, request):
    """A function from the arguments of `train` and an executor to a trainer."""

    def make(X, y, executor="eager", place=CPU, **options):
        if executor == "captured":
            place = request.getfixturevalue("gpu")
        monkeypatch.setattr(assembly, "choose_place", lambda *_: place)
        arguments = {
            "batch_size": BATCH,
            "epochs": 20,
            "capture": executor in ("replayed", "captured"),
        }
        run = make_trainer(options.pop("spec", SPEC), X.copy(), y.copy(), **arguments | options)
        assert executor in ("one by one", run.step.engine.executor.name)
        if executor == "one by one":
            run.step.engine = run.step.engine._replace(
                xp=place.xp, apply=plain, restart=lambda: None
            )
        return run

    return make


def poison(run, row=BAD, value=np.nan):
    """Set one row's target to a value that the checks of the input would reject."""
    target = to_host(run.data.target).copy()
    target[row] = value
    run.data.target[...] = to_place(run.place, target)


def trained_until(run, orders, steps):
    """The state after `steps` steps in NumPy, and the number of the first step that is not finite.

    Steps count from 1; None where all are finite.
    """
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


def params_and_slots(run):
    return [to_host(part) for part in (run.state.params, *run.state.slots)]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_changes_nothing_and_is_known(name, executor, make_run, rng):
    X, y = rows(rng)
    run = make_run(X, y, executor, optimizer=name)
    poison(run)
    orders = epoch_order(run.settings.seeds, (), 0, ROWS)
    bad = int(np.flatnonzero(orders == BAD)[0]) // BATCH + 1
    assert trained_until(run, orders, 5)[1] == bad
    with run.step.engine.executor.open():
        run_steps(run)
    assert (float(run.step.alive), int(run.step.finite_steps)) == (0, bad - 1)
    # the same training without the step that is not finite
    expected = make_run(X, y, executor, optimizer=name)
    rate = to_place(expected.place, np.array([expected.settings.learning_rate]))
    expected.step.learning_rate[...] = rate
    with expected.step.engine.executor.open():
        for window in windows(expected.place, expected.data, orders[: (bad - 1) * BATCH], BATCH, 5):
            expected.step.engine.executor.run(expected.step, window, expected.counter)
    assert all(
        a.tobytes() == b.tobytes()
        for a, b in zip(params_and_slots(run), params_and_slots(expected), strict=True)
    )
    reference, _ = trained_until(run, orders, bad - 1)
    np.testing.assert_allclose(params_and_slots(run)[0], reference.params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_diverged_member_does_not_affect_the_others(value, make_run, rng):
    X, y = rows(rng)
    run, undisturbed = (
        make_run(X, y, members=3, learning_rate=[1e-3, r, 1e-2]) for r in (1e-3, 1e-3)
    )
    run.state.params[1, :8] = value
    for trainer in (run, undisturbed):
        run_steps(trainer)
    for actual, expected in zip(params_and_slots(run), params_and_slots(undisturbed), strict=True):
        assert actual[[0, 2]].tobytes() == expected[[0, 2]].tobytes()
    assert (to_host(run.step.alive) == [1, 0, 1]).all()
    assert (to_host(run.step.finite_steps) == [5, 0, 5]).all()
    assert all(not slot[1].any() for slot in params_and_slots(run)[1:])


@pytest.mark.parametrize(("size", "alive"), [(1e18, 1), (1e20, 0)])
def test_a_gradient_with_an_overflowing_square_counts_as_not_finite(size, alive, make_run, rng):
    X, y = rows(rng)
    run = make_run(X, y, dtype="float32", optimizer="sgd", learning_rate=0.0)
    run.data.weight[...] = np.float32(size)
    with np.errstate(all="ignore"):
        run_steps(run)
    assert np.isfinite(run.state.grad).all()
    assert float(run.step.alive) == alive


@given(st.lists(st.sampled_from([1.0, np.nan, np.inf, -np.inf, 0.0, 1e300]), min_size=1))
def test_accounts_match_a_loop(losses):
    alive, running_loss, finite_steps = (np.full((), x) for x in (1.0, 0.0, 0.0))
    with np.errstate(all="ignore"):
        for loss in losses:
            _, alive, running_loss, finite_steps = add_to_accounts(
                np, np.asarray(loss), 0.5, np.ones(()), alive, running_loss, finite_steps
            )
    expected_steps = 0
    while expected_steps < len(losses) and np.isfinite(losses[expected_steps]):
        expected_steps += 1
    assert int(finite_steps) == expected_steps
    assert bool(alive) == (expected_steps == len(losses))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_guard_of_a_rule_is_found_and_removed(name, make_run, rng):
    run = make_run(*rows(rng), optimizer=name)
    arguments = (run.step.h, np.ones(()), run.state.params, run.state.grad, *run.state.slots)
    program = trace(frozen(run.step.optimizer.rule), *arguments)
    names = sorted(k for k, v in vars(run.step.h).items() if isinstance(v, np.ndarray))
    theta = len(names) + 1
    aliases = [theta, *range(theta + 2, theta + 2 + len(run.state.slots))]
    guard = find_guard(program, aliases)
    assert guard is not None
    assert names[guard.condition] == "alive"
    assert all(operation.name != "where" for operation in guard.unguarded.operations)
    assert find_guard(guard.unguarded, aliases) is None
    assert find_guard(program, aliases[::-1] if len(aliases) > 1 else [theta + 1]) is None


def wild(xp, now):
    """A huge learning rate in the third epoch."""
    at = now.epoch
    return 1 + 1e200 * xp.astype((at >= 2) & (at < 3), at.dtype)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_error_names_step_epoch_and_rate(executor, make_run, rng):
    X, y = rows(rng)
    run = make_run(X, y, executor, optimizer="sgd", learning_rate=0.01, schedule=wild)
    with pytest.raises(DivergedError) as caught:
        finish(run, [])
    error = caught.value
    assert (
        error.step == 12
    )  # the first step of epoch 3 makes the weights with which the second is not finite
    assert error.learning_rate == pytest.approx(1e198)
    assert len(error.gradients) == 2
    assert max(error.gradients) > 1e190
    for message in (
        "step 12",
        "epoch 3",
        "rate 1e+198",
        "clip=1.0",
        "lower learning rate",
        "scaled inputs",
    ):
        assert message in str(error)
    undiverged = make_run(X, y, executor, optimizer="sgd", learning_rate=0.01)
    expected = finish(undiverged, [lambda report: report.epoch == 2])
    assert to_host(error.model.flat).tobytes() == to_host(expected.flat).tobytes()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_restore_continues_from_the_best_weights_and_improves(name, executor, make_run, rng):
    X, y = rows(rng)
    rate = {"sgd": 50.0, "adam": 1e-2}[name]
    options = {} if name == "sgd" else {"schedule": wild}
    run = make_run(X, y * 0.1, executor, optimizer=name, learning_rate=rate,
                on_divergence="restore", **options,
                spec=Spec.parse("3-2"), epochs=60)  # fmt: skip
    history = finish(run, []).history
    times = sum(history["restored"])
    assert times > 0
    assert history["learning_rate"][-1] == pytest.approx(rate / 2**times)
    assert np.isfinite(history["loss"][-1])
    finite = [loss for loss in history["loss"] if np.isfinite(loss)]
    assert finite[-1] < 0.9 * max(finite)


def test_restore_gives_up_after_ten_times(make_run, rng):
    run = make_run(*rows(rng), on_divergence="restore")
    poison(run)
    with pytest.raises(DivergedError, match="restored 10 times in a row"):
        finish(run, [])
    assert run.history["restored"] == [1] * 10


def test_a_restored_member_disturbs_nobody(make_run, rng):
    X, y = rows(rng)
    common = {"members": 3, "optimizer": "sgd", "on_divergence": "restore", "epochs": 12}
    run, undisturbed = (
        make_run(X, y, learning_rate=[1e-3, r, 1e-2], **common) for r in (1e200, 1e-3)
    )
    actual, expected = finish(run, []), finish(undisturbed, [])
    assert actual.flat[[0, 2]].tobytes() == expected.flat[[0, 2]].tobytes()
    restored = np.array(actual.history["restored"])
    assert (restored.sum(axis=0) == [0, 10, 0]).all()
    assert float(run.step.learning_rate_scale[1, 0]) == 0


@pytest.mark.parametrize("rate", [pytest.param(2.0, marks=pytest.mark.slow), 5.0, 10.0])
@pytest.mark.parametrize("network", ["3-32-1", "3-32-16-1"])
def test_a_restore_never_goes_on_from_weights_on_their_way_out(network, rate, make_run):
    """An epoch may end with weights of 1e60 and a finite loss; the initial weights are better."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(2400, 3))
    run = make_run(X, np.sin(X[:, :1]), optimizer="sgd", learning_rate=rate,
                   on_divergence="restore",
                   spec=Spec.parse(network), epochs=25, batch_size=16)  # fmt: skip
    model = finish(run, [])
    assert sum(model.history["restored"]) > 0
    assert np.abs(to_host(model.flat)).max() < 100
    assert float(run.best_value) < 0.3  # half the variance of the targets is 0.22


def test_a_diverged_member_is_named_in_a_warning(make_run, rng):
    X, y = rows(rng)
    trainer = make_run(X, y, members=3, optimizer="sgd", learning_rate=[1e-3, 1e30, 1e-3])
    with pytest.warns(DivergenceWarning, match=r"1 member diverged and is stopped: 1\. Member 1"):
        finish(trainer, [])
